"""Studies resume and refuse the wrong folder or options; ablation and label quality on synthetic data."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_pretraining import write_text_model
from synthetic_studies import SMALL, run_study, write_pickle

from finetune.labels import LabelInputs
from finetune.options import MugOptions
from finetune.run_mug import main as run_mug
from finetune.significance import paired_over_seeds
from finetune.studies.label_quality import FusedTeacher, Interpolated, NoisyHuman, fisher_interval
from finetune.studies.study import Difference, difference
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A synthetic corpus and a tiny language model."""
    folder = tmp_path_factory.mktemp("studies")
    return write_pickle(folder / "sims.pkl", {"train": 40, "valid": 16, "test": 16}), write_text_model(folder / "lm")


def test_ablation_removes_each_component_trains_each_alone_and_resumes(made, tmp_path, capsys) -> None:
    found = run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--neighbours", "residual", "alternate")
    printed = capsys.readouterr().out
    assert "seed 1  whole: copy" in printed
    assert "seed 1  with-residual: all_mucn-crossfit" in printed  # the same variant in several settings
    names = [row["name"] for row in found["rows"]]
    assert names[0] == "Full method (mucn-crossfit)"
    assert {"− alignment (CPM)", "− learned labels", "− unimodal tasks", "− audio", "− text", "Nothing", "Vision only"} <= set(names)
    assert {"+ residual branches", "+ alternating steps"} <= set(names)
    assert set(found["facts"]["neighbours_MAE"]) == {"residual branches", "alternating steps"}
    assert "With a neighbouring mechanism added" in found["shows"]
    assert not any("pretraining" in name for name in names)  # a plain language model has no pretraining to remove
    maes = [row["mean"]["MAE"] for row in found["rows"]]
    assert len(set(maes)) > len(maes) / 2  # the settings train different models
    for file in ("study.md", "study.html", "pictures/ablation.png", "config.yaml"):
        assert (tmp_path / "out" / file).stat().st_size > 100, file
    assert "Synthetic data" in (tmp_path / "out" / "study.md").read_text()
    pieces = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "checkpoints").rglob("*.json")}
    lost = next(path for path in pieces if path.name == "nothing.json")
    lost.unlink()
    again = run_study("ablation", made, tmp_path / "out", "--seeds", 1)  # the neighbours' rows can be left out again
    assert again["rows"] == [row for row in found["rows"] if not row["name"].startswith("+")]
    unchanged = {path for path, when in pieces.items() if path.stat().st_mtime_ns == when}
    assert set(pieces) - unchanged == {lost}
    with pytest.raises(UserError, match=r"--training\.lr was 0\.001, now 0\.5"):
        run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--training.lr", 0.5)
    with pytest.raises(UserError, match="already part of the full method"):
        run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--mechanisms", "residual", "--neighbours", "residual")
    with pytest.raises(UserError, match="--neighbours alternate"):
        run_study("ablation", made, tmp_path / "out", "--seeds", 1, "--mechanisms", "alternate")
    with pytest.raises(UserError, match="holds the study ablation"):
        run_study("label_quality", made, tmp_path / "out", "--seeds", 1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(UserError, match=r"not empty \(thesis.txt\) and does not hold the study ablation"):
        run_study("ablation", made, tmp_path / "mine", "--seeds", 1, "--overwrite")


def test_finetune_does_not_overwrite_a_study(made, tmp_path) -> None:
    run_study("ablation", made, tmp_path / "out", "--seeds", 1)
    arguments = ["--dataset", "sims", "--data", made[0], "--lm", made[1], "--output", tmp_path / "out", "--seeds", 1]
    for more in ([], ["--overwrite"]):
        with pytest.raises(UserError, match="does not hold a fine-tuning run"):
            run_mug(parse_options(MugOptions, [str(each) for each in (*arguments, *more)]))
    assert (tmp_path / "out" / "study.html").is_file()


def test_label_quality_orders_the_controlled_labels(made, tmp_path) -> None:
    found = run_study("label_quality", made, tmp_path / "out", "--seeds", 1, "--shares", 0, 0.5, 1, "--sigmas", 0.3)
    error = {row["name"]: row["label MAE ↓"] for row in found["rows"]}
    assert error["human"] == "0.000"
    assert float(error["y"]) == pytest.approx(2 * float(error["0.5 human"]), abs=0.002)
    assert float(error["σ 0.3"]) > 0.1
    assert {"mucn-crossfit", "regressor", "distillation", "no unimodal labels"} <= set(error)
    assert found["facts"]["correlation_controlled"]["points"] == 4
    blind = write_pickle(tmp_path / "blind.pkl", {"train": 40, "valid": 16}, human=False)
    with pytest.raises(UserError, match="needs unimodal labels"):
        run_study("label_quality", (blind, made[1]), tmp_path / "none", "--seeds", 1)
    assert not (tmp_path / "none").exists()


def inputs(count: int = 60, known: Callable[[np.ndarray], np.ndarray] = lambda y: y / 2) -> LabelInputs:
    random = np.random.default_rng(0)
    y = random.uniform(-1, 1, count)
    features = {name: np.stack([y + random.normal(size=count) for _ in range(3)], 1) for name in ("text", "audio")}
    present = {name: np.ones(count, bool) for name in features}
    groups = [f"v{row // 4}" for row in range(count)]
    return LabelInputs(y, groups, {}, {}, features, present, seed=1, human={name: known(y) for name in features})


def test_labels_of_known_quality_have_that_quality() -> None:
    given = inputs()
    assert np.allclose(Interpolated(0.25)(given).labels["text"], 0.75 * given.y + 0.25 * given.y / 2)
    noisy = NoisyHuman(0.1)(given).labels
    assert np.std(noisy["text"] - given.y / 2) == pytest.approx(0.1, abs=0.03)
    assert not np.allclose(noisy["text"], noisy["audio"])
    from finetune.generator_options import CrossfitOptions

    fused = FusedTeacher(CrossfitOptions())(given).labels
    assert np.array_equal(fused["text"], fused["audio"])
    assert np.corrcoef(fused["text"], given.y)[0, 1] > 0.7
    blind = inputs(known=lambda y: np.full_like(y, np.nan))
    assert np.array_equal(FusedTeacher(CrossfitOptions())(blind).labels["text"], fused["text"])  # human labels have no effect


def test_a_difference_is_clear_by_margin_and_seeds() -> None:
    def scores(*values: float) -> list[dict[str, float | None]]:
        return [{"MAE": value} for value in values]

    base = scores(0.40, 0.41, 0.39)
    assert difference(scores(0.50, 0.52, 0.49), base, 0.01).worse
    assert difference(scores(0.30, 0.32, 0.29), base, 0.01).better
    assert not difference(scores(0.401, 0.413, 0.391), base, 0.01).clear  # significant, but too small
    assert not difference(scores(0.60, 0.38, 0.40), base, 0.01).clear  # large, but not significant
    assert not difference(scores(0.60, 0.38), base[:2], 0.01).clear  # two seeds that disagree
    assert not difference(scores(0.60, 0.61), base[:2], 0.01).clear  # two seeds show nothing, even if they agree
    unclear = difference(scores(0.60, 0.38, 0.40), base, 0.01)
    assert str(unclear).endswith(f"detectable {paired_over_seeds([0.60, 0.38, 0.40], [0.40, 0.41, 0.39])['detectable']:.3f}")
    assert str(Difference(-0.0123, 0.04, 0.01, True, 0.02)) == "−0.012, p 0.040"
    assert str(Difference(0.3, 1e-5, 0.01, True, 0.02)) == "+0.300, p < .001"


def test_the_interval_of_a_correlation_is_fishers() -> None:
    x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    y = [0.1, 0.9, 2.4, 2.7, 4.4, 4.6]
    from scipy.stats import pearsonr

    expected = pearsonr(x, y)
    interval = expected.confidence_interval(0.95)
    found = fisher_interval(x, y)
    assert found is not None
    assert (found["r"], found["low"], found["high"]) == pytest.approx((expected.statistic, interval.low, interval.high), abs=1e-3)
    assert fisher_interval(x[:3], y[:3]) is None
    assert json.dumps(found)


def studies(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`skesl-mug study` in `folder`, outside the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SKESL_MUG_CACHE": str(folder / "cache")}
    code = "import sys; sys.path.pop(0); sys.argv[0] = 'skesl-mug'; from skesl_mug.commands import main; main()"
    command = [sys.executable, "-c", code, "study", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600)


def test_the_study_of_the_documentation_runs_as_a_plugin_in_two_workers(made, tmp_path) -> None:
    section = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8").split("\n## A study\n")[1].split("\n## ")[0]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert example is not None
    assert len(example[1].splitlines()) < 40
    (tmp_path / "mine.py").write_text(example[1])
    assert "dropout            How much dropout is best?" in studies(tmp_path, "--help", "--plugin", "mine").stdout
    (tmp_path / "plugins.yaml").write_text("plugin: [mine]\n")
    flags = ["--dataset", "sims", "--data", made[0], "--lm", made[1], "--freeze-lm", *SMALL, "--seeds", 1, 2, "--workers", 2]
    done = studies(tmp_path, "dropout", "--config", "plugins.yaml", *flags, "--rates", 0, 0.5, "--output", "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["dropout 0", "dropout 0.5"]
    assert found["rows"][0]["1"] != found["rows"][1]["1"]
    assert "How much dropout is best?" in (tmp_path / "out" / "study.md").read_text()
    assert (tmp_path / "out" / "pictures" / "dropout.png").is_file()


@pytest.mark.parametrize(
    ("plugin", "arguments", "message"),
    [
        ("", ["dropout"], "study dropout: unknown study; choose from ablation, "),
        ("", ["dropout", "--plugin", "absent"], "--plugin absent: no module named absent in the working folder"),
        ("1 / 0", ["ablation", "--plugin", "mine"], "--plugin mine: cannot be imported (ZeroDivisionError"),
        (
            "import skesl_mug as sm\nsm.register_study('x')(3)",
            ["x", "--plugin", "mine"],
            "study x: what is registered under this name",
        ),
        ("import skesl_mug as sm\nsm.register_study('ablation')(3)", ["x", "--plugin", "mine"], "'ablation' is already registered"),
    ],
)
def test_a_wrong_plugin_is_reported_in_one_line(plugin: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plugin)
    failed = studies(tmp_path, *arguments)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_settings_of_a_plugin_study_are_part_of_its_identity(tmp_path) -> None:
    from copy import deepcopy

    from finetune.studies.folder import code_of_study
    from finetune.studies.study import Setting, Study, StudyOptions
    from finetune.training.variants import of_generator

    class Mine(Study):
        pass

    options = StudyOptions(dataset="sims", data="x", lm="y", output=tmp_path)
    other, more_seeds = deepcopy(options), deepcopy(options)
    other.model.dropout, more_seeds.seeds = 0.5, [1, 2]
    first, changed, resumed = (code_of_study(Mine(), [Setting("a", o, [of_generator("copy")])]) for o in (options, other, more_seeds))
    assert set(first) == {"definition of setting a"}
    assert first == resumed
    assert first != changed
