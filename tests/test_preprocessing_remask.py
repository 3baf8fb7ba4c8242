"""Recomputing the masks of a dataset."""

import hashlib
import json

import numpy as np
import pytest
import yaml

from lexicons import UserError, load_lexicon
from preprocessing import remask
from preprocessing.remask import MaskOptions, Options
from preprocessing.schema import DatasetInfo, FeatureInfo, Mask, Utterance, Word
from preprocessing.store import UtteranceDataset, read_info, write_dataset
from pretrain.selection import JoinedDatasets

TEXTS = ["so good", "not good", "the lamp", "a table", "the chair", "odd", "my carpet", "very bad"]


@pytest.fixture
def dataset(tmp_path):
    info = DatasetInfo({"name": "x", "root": "x"}, None, FeatureInfo("made", 10.0, [{"name": "a", "unit": "none"}]))
    info.lexicon = load_lexicon("vader").describe()
    rows = []
    for number, text in enumerate(TEXTS):
        first, _, second = text.partition(" ")
        words = [Word(first, 0, len(first), 0.1, 0.2, 0.5)] + ([Word(second, len(first) + 1, len(text))] if second else [])
        rows.append(
            Utterance(f"c{number}", "v", "s", 0.0, 1.0, "en", text, words, [Mask(0, 1, 9.0)], audio=np.full((3, 1), number, np.float32))
        )
    write_dataset(tmp_path / "d", rows, info, shard_rows=3)
    (tmp_path / "d" / "config.yaml").write_text("corpus: folder\nlexicon: vader\nlexicon_scale: 3.0\nseed: 1\n")
    (tmp_path / "other.json").write_text(json.dumps({"good": 1, "odd": -2, "lamp": 2}))
    return tmp_path / "d"


def sums(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "data").iterdir())}


def test_masks_change_and_nothing_else(dataset, capsys):
    before = list(UtteranceDataset(dataset))
    remask.main(Options(dataset=dataset, lexicon="vader", mask=MaskOptions(context=True)))
    assert "masks of 8 utterances by vader; 4 without a lexicon word, 0 of these without a mask" in capsys.readouterr().out
    first = {row.id: row for row in UtteranceDataset(dataset)}
    assert first["c1"].masks[0].intensity == pytest.approx(1.425)
    assert first["c1"].masks[0].context_intensity == pytest.approx(-0.74 * 1.425, abs=1e-5)
    remask.main(Options(dataset=dataset, lexicon=str(dataset.parent / "other.json")))
    after = list(UtteranceDataset(dataset))
    for old, new in zip(before, after, strict=True):
        assert (old.id, old.text, old.words) == (new.id, new.text, new.words)
        np.testing.assert_array_equal(old.audio, new.audio)
    masked = {row.id: (row.text[row.masks[0].start_char : row.masks[0].end_char], row.masks[0].intensity) for row in after}
    assert masked["c0"] == ("good", pytest.approx(1.5))
    assert masked["c2"] == ("lamp", pytest.approx(3.0))
    assert masked["c5"] == ("odd", pytest.approx(-3.0))
    assert all(row.masks[0].context_intensity is None for row in after)
    assert read_info(dataset).lexicon["name"] == "other"
    assert yaml.safe_load((dataset / "config.yaml").read_text())["lexicon"].endswith("other.json")


def test_a_second_run_changes_nothing(dataset):
    options = Options(dataset=dataset, lexicon="vader", mask=MaskOptions(max_zero_share=0.4))
    remask.main(options)
    once = sums(dataset)
    remask.main(options)
    assert sums(dataset) == once


def test_the_cap(dataset):
    remask.main(Options(dataset=dataset, lexicon="vader", mask=MaskOptions(max_zero_share=0.4)))
    rows = list(UtteranceDataset(dataset))
    masked = [row for row in rows if row.masks]
    zeros = [row for row in masked if not row.masks[0].from_lexicon]
    assert len(rows) == len(TEXTS)
    assert len(masked) == 6  # four with a word of VADER and two of the others: one third
    assert len(zeros) == 2
    assert read_info(dataset).lexicon["left_out"] == 2
    remask.main(Options(dataset=dataset, lexicon="vader"))
    assert all(row.masks for row in UtteranceDataset(dataset))


def test_faults(dataset, tmp_path):
    with pytest.raises(UserError, match="is not an utterance dataset"):
        remask.main(Options(dataset=tmp_path / "none"))
    with pytest.raises(UserError, match="none: unknown"):
        remask.main(Options(dataset=dataset, lexicon="none"))
    with pytest.raises(UserError, match="max-zero-share 2: must be between"):
        MaskOptions(max_zero_share=2)
    (dataset / ".journal.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="is not finished"):
        remask.main(Options(dataset=dataset))


def test_pretraining_refuses_an_unfinished_remask(dataset, monkeypatch):
    """Killed between two shards, the masks come from two lexicons: pretraining refuses them, and the same command completes the work."""
    whole = remask.with_masks
    calls = []

    def killed(table, masks):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(table, masks)

    options = Options(dataset=dataset, lexicon=str(dataset.parent / "other.json"))
    with monkeypatch.context() as patch:
        patch.setattr(remask, "with_masks", killed)
        with pytest.raises(KeyboardInterrupt):
            remask.main(options)
    with pytest.raises(UserError, match="masks come from two lexicons"):
        JoinedDatasets([dataset])
    remask.main(options)
    assert len(JoinedDatasets([dataset])) == len(TEXTS)


def test_a_lexicon_of_another_language_is_reported(dataset, tmp_path, capsys):
    info = read_info(dataset)
    rows = [
        Utterance(f"z{number}", "v", "s", 0.0, 1.0, "zh", "这部电影很精彩", [], [], audio=np.zeros((3, 1), np.float32))
        for number in range(12)
    ]
    write_dataset(tmp_path / "zh", rows, info, shard_rows=20)
    remask.main(Options(dataset=tmp_path / "zh"))
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note:")]
    assert "only 0 of 12 utterances have a word of the lexicon vader: most transcripts are in `zh`, the lexicon is for `en`" in note
    (tmp_path / "zh.json").write_text(json.dumps({"精彩": 2}), encoding="utf-8")
    remask.main(Options(dataset=tmp_path / "zh", lexicon=str(tmp_path / "zh.json")))
    assert "note:" not in capsys.readouterr().out
