"""Selection of utterances, masked texts on disk, and validation splits."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_pretraining import feature_info, made_utterances, options_of, write_made_dataset, write_text_model

from preprocessing.schema import DatasetInfo
from preprocessing.store import UtteranceDataset, write_dataset
from pretrain.batches import LengthBucketSampler
from pretrain.crossmodal import feature_statistics
from pretrain.encoder import load_tokenizer
from pretrain.evaluation import derangement
from pretrain.holdout import hold_out
from pretrain.pretraining import run_pretraining
from pretrain.selection import JoinedDatasets, MaskingOptions, select
from pretrain.tokens import tokenise_masked
from pretrain.training_data import MaskedUtterances
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of 60 utterances of 6 speakers and a tiny text model."""
    folder = tmp_path_factory.mktemp("made")
    return write_made_dataset(folder / "data"), write_text_model(folder / "lm")


def test_bad_datasets(made, tmp_path):
    lm = made[1]
    info = DatasetInfo(corpus={"name": "x", "root": ""}, audio=feature_info(33, 43.0), vision=feature_info(8, 12.0))

    def write(name, utterances):
        write_dataset(tmp_path / name, utterances, info)
        return options_of((tmp_path / name, lm), tmp_path / f"run_{name}")

    with pytest.raises(UserError, match="has no utterances"):
        run_pretraining(write("empty", []))
    with pytest.raises(UserError, match=r"none of its 4 utterances can be used \(no_masked_word: 4\)"):
        run_pretraining(write("no_masks", [replace(u, masks=[]) for u in made_utterances(4)]))
    few = [replace(u, split="test" if place > 4 else "train") for place, u in enumerate(made_utterances(8))]
    refused = write("few", few)
    with pytest.raises(UserError, match=r"5 usable utterances, 3 split test kept for evaluation; .* at least 6: .* or --all-splits"):
        run_pretraining(refused)
    with pytest.raises(UserError, match="none of its 4 utterances"):  # and not: the folder holds a run with other options
        run_pretraining(replace(refused, data=[tmp_path / "no_masks"]))
    with pytest.raises(UserError, match=r"--context-intensity: no mask of .* has one .* --mask.context"):
        run_pretraining(replace(write("plain", made_utterances(20)), context_intensity=True))
    other = DatasetInfo(corpus={"name": "x", "root": ""}, audio=feature_info(5, 43.0))
    write_dataset(tmp_path / "other", made_utterances(3, audio=5, vision=0), other)
    with pytest.raises(UserError, match="audio columns differ from"):
        JoinedDatasets([made[0], tmp_path / "other"])


def test_rows_that_cannot_be_used_are_counted_and_evaluation_splits_stay_unseen(made, tmp_path):
    rows = list(made_utterances(12))
    rows[0].masks = []
    rows[1].text = ""
    rows[2].masks[0].intensity = float("nan")
    rows[3].split, rows[4].split, rows[5].split = "test", "valid", "train"
    rows[6].masks[0].start_char = rows[6].masks[0].end_char
    rows[7].masks[0].context_intensity = -1.25
    info = DatasetInfo(corpus={"name": "x", "root": ""}, audio=feature_info(33, 43.0), vision=feature_info(8, 12.0))
    write_dataset(tmp_path / "data", rows, info)
    dataset = JoinedDatasets([tmp_path / "data", made[0]])
    tokenizer = load_tokenizer(made[1])
    chosen = select(dataset, tokenizer, tmp_path / "context", MaskingOptions(max_tokens=64, context=True))
    assert chosen.skipped == {
        "no_masked_word": 1,
        "no_text": 1,
        "intensity_is_no_number": 1,
        "split_test_kept_for_evaluation": 1,
        "split_valid_kept_for_evaluation": 1,
        "masked_word_has_no_token": 1,
    }
    assert len(chosen) + sum(chosen.skipped.values()) == len(dataset) == 72
    assert chosen.intensities[list(chosen.rows).index(7)] == np.float32(-1.25)
    assert len(select(dataset, tokenizer, tmp_path / "all", MaskingOptions(max_tokens=64, all_splits=True))) == len(chosen) + 2
    everything = MaskedUtterances(dataset, chosen, np.arange(len(chosen)), 1000, 500)
    sample = everything[list(chosen.rows).index(12)]  # the first row of the second dataset
    first = UtteranceDataset(made[0])[0]
    np.testing.assert_array_equal(sample.audio, first.audio)
    np.testing.assert_array_equal(sample.vision, first.vision[first.vision_valid])


def test_statistics_are_those_of_all_real_frames(made, tmp_path):
    dataset = JoinedDatasets([made[0]])
    chosen = select(dataset, load_tokenizer(made[1]), tmp_path, MaskingOptions(max_tokens=64))
    data = MaskedUtterances(dataset, chosen, np.arange(20, 50), 30, 500)
    statistics = feature_statistics(data.feature_sample(seed=0))
    rows = [u.audio[:30] for u in (dataset[i] for i in range(20, 50)) if u.audio is not None]
    frames = np.concatenate(rows)
    np.testing.assert_allclose(statistics["audio"][0], frames.mean(0), atol=1e-4)
    np.testing.assert_allclose(statistics["audio"][1], frames.std(0), atol=1e-4)
    assert len(data.features(0)[0]) <= 30


@settings(max_examples=100, deadline=None)
@given(groups=st.lists(st.integers(0, 15), min_size=6, max_size=120), share=st.floats(0.02, 0.5), seed=st.integers(0, 5))
def test_no_speaker_is_on_both_sides(groups, share, seed):
    speakers = [f"s{group}" for group in groups]
    videos = [f"v{group}-{place % 3}" for place, group in enumerate(groups)]
    train, valid, split_by, _ = hold_out(speakers, videos, share, seed)
    assert sorted([*train, *valid]) == list(range(len(groups)))
    assert len(valid) >= 2
    assert len(valid) <= max(0.4, share) * len(groups) + 1
    names = {"speaker": speakers, "video": videos}.get(split_by)
    if names:
        assert not {names[i] for i in train} & {names[i] for i in valid}
    if len(set(groups)) == 1:
        assert split_by != "speaker"


def test_an_unknown_speaker_is_not_one_speaker():
    assert hold_out([""] * 20, [f"v{place // 2}" for place in range(20)], 0.1, 0).by == "video"
    assert hold_out([""] * 20, ["v"] * 20, 0.1, 0).by == "utterance"
    assert hold_out([""] * 20, [""] * 20, 0.1, 0).by == "utterance"


@settings(max_examples=100, deadline=None)
@given(data=st.data(), seed=st.integers(0, 5))
def test_utterances_without_a_speaker_leave_the_others_split_by_speaker(data, seed):
    speakers = [f"s{place % 8}" for place in range(40)]
    videos = [f"v{place % 16}" for place in range(40)]  # each of one speaker
    hidden = data.draw(st.sets(st.integers(0, 39), min_size=1, max_size=30))
    hidden_videos = data.draw(st.sets(st.sampled_from(sorted(hidden)), max_size=5))
    shown = ["" if place in hidden else name for place, name in enumerate(speakers)]
    shown_videos = ["" if place in hidden_videos else name for place, name in enumerate(videos)]
    split = hold_out(shown, shown_videos, 0.2, seed)
    assert split.by == "speaker"
    assert split.unknown_speakers == len(hidden)
    assert sorted([*split.train, *split.valid]) == list(range(40))
    sides = [{shown[place] for place in side} - {""} for side in (split.train, split.valid)]
    assert not sides[0] & sides[1]
    sides = [{shown_videos[place] for place in side} - {""} for side in (split.train, split.valid)]
    assert not sides[0] & sides[1]


def test_an_utterance_without_a_speaker_is_reported(made, tmp_path, capsys):
    rows = list(made_utterances(60))
    rows[0].speaker = None
    info = DatasetInfo(corpus={"name": "x", "root": ""}, audio=feature_info(33, 43.0), vision=feature_info(8, 12.0))
    write_dataset(tmp_path / "data", rows, info)
    results = run_pretraining(options_of((tmp_path / "data", made[1]), tmp_path / "run", epochs=1, max_steps=1))
    assert results["validation"]["split_by"] == "speaker"
    assert "Note: 1 utterance without a speaker" in capsys.readouterr().out


@given(st.integers(2, 50), st.integers(0, 9))
def test_permuted_samples_all_change_places(count, seed):
    donors = derangement(count, np.random.default_rng(seed))
    assert sorted(donors) == list(range(count))
    assert (donors != np.arange(count)).all()


def test_one_sample_has_no_derangement():
    with pytest.raises(ValueError, match="n = 1"):
        derangement(1, np.random.default_rng(0))


def test_the_sampler_of_a_trainer_sees_every_sample(made, tmp_path):
    dataset = JoinedDatasets([made[0]])
    chosen = select(dataset, load_tokenizer(made[1]), tmp_path, MaskingOptions(max_tokens=64))
    assert sorted(index for batch in LengthBucketSampler(chosen.costs, 7) for index in batch) == list(range(60))


def test_a_selection_is_kept_on_disk_and_read_again_as_it_was(made, tmp_path):
    dataset, tokenizer = JoinedDatasets([made[0]]), load_tokenizer(made[1])
    options = MaskingOptions(max_tokens=64)
    chosen = select(dataset, tokenizer, tmp_path, options)
    written = (tmp_path / "rows.bin").stat().st_mtime_ns
    again = pickle.loads(pickle.dumps(select(dataset, tokenizer, tmp_path, options)))
    assert (tmp_path / "rows.bin").stat().st_mtime_ns == written
    expected = tokenise_masked(
        [utterance.text for utterance in dataset.sources[0]],
        [[(mask.start_char, mask.end_char) for mask in utterance.masks] for utterance in dataset.sources[0]],
        tokenizer,
        64,
    )
    assert [again.text(member) for member in range(60)] == expected
    assert [list(row) for row in again.token_lists] == [text.token_ids for text in expected]
    assert again.token_lists.lengths().tolist() == [len(text.token_ids) for text in expected]
    assert list(again.pieces) == [text.pieces for text in expected]
    assert again.pieces.lengths().tolist() == [len(text.pieces) for text in expected]
    assert [again.targets(member)[0] for member in range(60)] == chosen.intensities.tolist()
    select(dataset, tokenizer, tmp_path, replace(options, max_tokens=5))
    assert (tmp_path / "rows.bin").stat().st_mtime_ns > written
