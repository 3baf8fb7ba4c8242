"""Comparing lexicons on a corpus."""

import json
import subprocess
import sys

import pytest

from lexicons import UserError, load_lexicon
from lexicons.compare import CompareOptions, agree, cover, main, read_texts


@pytest.fixture
def files(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps({"good": 3, "bad": -3, "odd": 1.5, "fed up": -1}))
    (tmp_path / "two.json").write_text(json.dumps({"good": 2, "bad": -3, "odd": -1.5, "lamp": 1}))
    (tmp_path / "t.txt").write_text("A good lamp.\nBad, odd and bad\n\nNothing here\n")
    return tmp_path


def test_coverage_and_agreement_by_hand(files):
    texts = [text for text in read_texts(files / "t.txt") if text.strip()]
    one, two = (cover(texts, load_lexicon(files / name)) for name in ("one.json", "two.json"))
    assert (one.sentences, one.covered, one.words, one.matched) == (3, 2, 9, 4)
    assert one.entries == {"bad": 2, "good": 1, "odd": 1}
    agreement = agree(one, two, 2)
    assert agreement.shared == 3
    assert agreement.same_sign == pytest.approx(2 / 3)
    assert agreement.difference == pytest.approx((1 + 0 + 3) / 3)
    assert agreement.furthest == [("odd", 1.5, -1.5), ("good", 3.0, 2.0)]
    assert agreement.correlation == pytest.approx(14 / (19.5 * 79 / 6) ** 0.5)


def test_the_command(files, capsys):
    main(CompareOptions(texts=files / "t.txt", lexicons=[str(files / "one.json"), str(files / "two.json")]))
    printed = capsys.readouterr().out
    assert "3 sentences, 9 words (en)" in printed
    assert "one and two: 3 entries in common" in printed
    assert "odd" in printed
    (files / "a.csv").write_text("x\n1\n")
    with pytest.raises(UserError, match="none of the columns"):
        list(read_texts(files / "a.csv"))
    done = subprocess.run(
        [sys.executable, "-m", "lexicons.compare", str(files / "none.txt"), "--lexicons", "vader"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-000000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"part-000000\.parquet: is not a readable shard"):
        list(read_texts(tmp_path))
