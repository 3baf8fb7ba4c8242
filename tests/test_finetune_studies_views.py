"""Views of a split change what their name says and nothing else; the noise and ambiguity studies on synthetic data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_pretraining import write_text_model
from synthetic_studies import SMALL, run_study, write_pickle

from finetune.corpora import LabelledSplit
from finetune.model.minibatches import PreparedSplit
from finetune.studies.label_noise import NoisyLabels, disagreement, parts_by_disagreement
from finetune.studies.missing_data import DroppedAtRandom, FewerRows, Without
from finetune.studies.study import Setting, StudyOptions, mean_scores
from finetune.training.experiment import Experiment, open_corpus
from finetune.training.variants import FULL, Start, Variant
from skesl_mug.console import parse_options


class States:
    """LM states that hold their row number."""

    def __init__(self, count: int):
        self.cache = [torch.full((3, 2), float(row)) for row in range(count)]

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.cache[row]


def prepared(count: int = 200, frames: int = 50) -> PreparedSplit:
    random = np.random.default_rng(0)
    y = random.uniform(-0.5, 0.5, count).astype(np.float32)
    split = LabelledSplit(
        ids=[str(row) for row in range(count)], video_ids=[f"v{row // 5}" for row in range(count)], label=y * 3,
        text=["word"] * count, audio=[random.normal(size=(frames, 3)).astype(np.float32) for _ in range(count)],
        vision=[None if row % 2 else np.ones((frames, 2), np.float32) for row in range(count)],
    )  # fmt: skip
    tokens = [[2, *range(10, 30), 3] for _ in range(count)]
    return PreparedSplit(split, tokens, States(count), True, torch.as_tensor(y), 0)  # type: ignore[arg-type]


def test_noise_has_its_size_and_changes_the_training_labels_only() -> None:
    split = prepared(4000, 1)
    y = split.y.numpy()
    gaussian, swap, bias = (NoisyLabels(kind, 0.3)("train", split, 1).y.numpy() for kind in ("gaussian", "swap", "bias"))
    assert np.std(gaussian - y) == pytest.approx(0.3, abs=0.02)
    assert np.mean(swap != y) == pytest.approx(0.3, abs=0.03)
    assert np.isin(swap, y).all()
    assert np.allclose(bias - y, 0.3, atol=1e-6)
    assert np.abs(NoisyLabels("gaussian", 1.0)("train", split, 1).y.numpy()).max() == 1.0
    assert NoisyLabels("gaussian", 0.3)("dev", split, 1) is split
    assert np.array_equal(gaussian, NoisyLabels("gaussian", 0.3)("train", split, 1).y.numpy())
    assert not np.array_equal(gaussian, NoisyLabels("gaussian", 0.3)("train", split, 2).y.numpy())
    assert np.array_equal(split.y.numpy(), y)


def test_fewer_rows_are_nested_and_keep_their_states() -> None:
    split = prepared()
    small, large = FewerRows(20)("train", split, 3), FewerRows(80)("train", split, 3)
    assert len(small) == 20
    assert set(small.split.ids) < set(large.split.ids)
    for row in (0, 7, 19):
        place = int(small.split.ids[row])
        assert float(small.states[row][0, 0]) == place
        assert small.y[row] == split.y[place]
        assert np.array_equal(small.split.audio[row], split.split.audio[place])
    assert FewerRows(20)("valid", split, 3) is split
    assert FewerRows(200)("train", split, 3) is split


def test_dropped_frames_are_absent_at_the_rate_and_modalities_can_vanish() -> None:
    split = prepared()
    dropped = DroppedAtRandom((0.7,))("test", split, 1)
    lengths = [len(dropped.split.audio[row]) for row in range(len(split))]
    assert np.mean(lengths) == pytest.approx(0.3 * 50, rel=0.05)
    assert np.mean([len(row) - 2 for row in dropped.tokens]) == pytest.approx(0.3 * 20, rel=0.1)
    assert all((row[0], row[-1]) == (2, 3) for row in dropped.tokens)
    assert np.array_equal(dropped.split.audio[5], dropped.split.audio[5])  # drawn once
    assert dropped.present("vision").tolist() == split.present("vision").tolist()
    nothing = DroppedAtRandom((1.0,))("test", split, 1)
    assert not any(nothing.present(name).any() for name in ("text", "audio", "vision"))
    batch = nothing.batch([0, 1])
    assert batch.audio is None
    assert batch.vision is None
    mixed = DroppedAtRandom((0.0, 1.0))("test", split, 1)
    assert 0.3 < mixed.present("audio").mean() < 0.7
    assert DroppedAtRandom((0.0,))("test", split, 1) is split


def test_without_text_the_language_model_reads_nothing() -> None:
    split = prepared()
    blind = Without(("text", "vision"))("test", split, 1)
    assert not blind.present("text").any()
    assert not blind.present("vision").any()
    assert blind.present("audio").all()
    assert blind.tokens[0] == [2, 3]
    assert Without(("audio",))("test", split, 1).tokens == split.tokens


def test_disagreement_is_the_deviation_of_the_known_labels() -> None:
    split = LabelledSplit(
        ids=list("abcd"), video_ids=list("abcd"), label=np.zeros(4, np.float32),
        label_T=np.array([1, 0, 1, np.nan]), label_A=np.array([-1, 0, 0, np.nan]), label_V=np.array([0, 0, np.nan, 1]),
    )  # fmt: skip
    spread = disagreement(split)
    assert spread[:3] == pytest.approx([np.sqrt(2 / 3), 0.0, 0.5])
    assert np.isnan(spread[3])
    least, most = parts_by_disagreement(spread, 2)
    assert least.tolist() == [1, 2]
    assert most.tolist() == [0]


def test_scores_are_averaged_seed_by_seed() -> None:
    first, second = [{"MAE": 0.2, "Corr": None}, {"MAE": 0.4, "Corr": 0.5}], [{"MAE": 0.4, "Corr": 0.1}, {"MAE": 0.6, "Corr": 0.7}]
    assert mean_scores([first, second]) == [{"MAE": pytest.approx(0.3), "Corr": None}, {"MAE": 0.5, "Corr": pytest.approx(0.6)}]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A synthetic corpus and a tiny language model."""
    folder = tmp_path_factory.mktemp("studies")
    return write_pickle(folder / "sims.pkl", {"train": 40, "valid": 16, "test": 24}), write_text_model(folder / "lm")


def test_label_noise_and_ambiguity_on_synthetic_data(made, tmp_path: Path) -> None:
    labels = ["--compare-labels", "copy", "ulgm", "--seeds", 1, 2]  # fewer than three seeds are never clear
    found = run_study("label_noise", made, tmp_path / "noise", *labels, "--kinds", "bias", "--strengths", 0.9)
    scores = found["facts"]["MAE"]["bias"]["copy"]
    assert scores["0.9"] > scores["0"] + 0.02  # with all labels near 1
    assert [row["name"] for row in found["rows"]] == ["copy", "ulgm"] * 2
    assert "No kind of noise makes copy clearly worse" in found["shows"]
    assert found["power"].startswith("With two seeds, no difference could have been shown")
    assert found["power"] in (tmp_path / "noise" / "study.md").read_text(encoding="utf-8")
    found = run_study("label_noise", made, tmp_path / "noise", *labels, 3, "--kinds", "bias", "--strengths", 0.9)
    assert found["power"].startswith("Differences to the first row that the paired tests could have shown with 80 % power: 0.")
    assert {"p", "detectable"} <= set(found["rows"][1]["paired"])
    apart = run_study("label_ambiguity", made, tmp_path / "apart", *labels, "--parts", 2)
    low, high = apart["facts"]["disagreement"]
    assert low < high
    for row in apart["rows"]:
        parts = [float(row[f"MAE, part {place} of 2"]) for place in (1, 2)]
        assert np.mean(parts) == pytest.approx(row["mean"]["MAE"], abs=0.001)


def unchanged(name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
    return split


def test_tests_see_what_their_model_sees(made, tmp_path: Path) -> None:
    flags = ["--dataset", "sims", "--data", made[0], "--lm", made[1], "--freeze-lm", "--output", tmp_path, "--seeds", 1, *SMALL]
    options = parse_options(StudyOptions, [str(flag) for flag in flags])
    variants = [Variant(start.name, "none", start) for start in (FULL, Start.only("text"), Start.without("text"))]
    tests = {"unchanged": unchanged, "without text": Without(("text",))}
    setting = Setting("views", options, variants, tests=tests)
    experiment = Experiment([setting], options.seeds, open_corpus(options), tmp_path)
    experiment.run()
    found = {variant.name: experiment.seed_folder(setting, 1).results(variant.name) for variant in variants}
    for result in found.values():
        assert result["tests"]["unchanged"] == result["metrics"]
    assert found["full"]["tests"]["without text"] != found["full"]["metrics"]
