"""The examples of docs/extending.md: each is extracted from the page, loaded as a plugin and run on synthetic data."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clip_factory import plain, tone, write_clip
from synthetic_corpus import SMALL, write_pickle
from synthetic_pretraining import write_text_model

from finetune.extensions import GENERATORS, plugin_options, register_generator
from finetune.generator_options import GeneratorOptions
from finetune.labels import make_generator
from finetune.options import MugOptions
from skesl_mug.console import parse_options
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"


def example(heading: str) -> str:
    """The first Python block under a heading of the page, under 40 lines."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found, heading
    assert len(found[1].splitlines()) < 40, heading
    return found[1]


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, as a user does outside the checkout."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "SKESL_MUG_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Flags of a run on a tiny corpus."""
    folder = tmp_path_factory.mktemp("data")
    data, lm = write_pickle(folder / "sims.pkl", {"train": 24, "valid": 12, "test": 12}), write_text_model(folder / "lm")
    flags = ["--dataset", "sims", "--data", data, "--lm", lm, "--freeze-lm", "--model.frames", "statistics", "--controls", "constant"]
    return [ROOT / "finetune" / "run_mug.py", *flags, *SMALL]


def test_a_label_generator_runs_in_two_workers_and_its_options_are_recorded(given: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(example("A label generator"))
    flags = ["--plugin", "mine", "--labels", "neighbours", "--compare-labels", "copy", "--plugin-options", "neighbours.count=3"]
    done = command(tmp_path, *given, *flags, "--seeds", 1, 2, "--workers", 2, "--output", "run")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["headline"] == "neighbours"
    assert results["unimodal_labels"]["audio"]["mean_change"] > 0
    assert "neighbours.count=3" in (tmp_path / "run" / "config.yaml").read_text()
    for wrong, what in (
        ("neighbours.number=3", "unknown option"),
        ("neighbours.count=x", "not a valid value"),
        ("other.count=3", "no plugin"),
    ):
        failed = command(tmp_path, *given, *flags, wrong, "--seeds", 1, "--output", "other")
        assert failed.returncode == 2
        assert what in failed.stderr
        assert wrong in failed.stderr


def test_a_label_generator_adds_opinions_of_its_own(given: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(example("Opinions for the label correction"))
    entry = pickle.loads((given[4]).read_bytes())["train"]  # type: ignore[attr-defined]
    random = np.random.default_rng(0)
    scores = entry["regression_labels_T"] + random.normal(size=24) * 0.2
    lines = [f"{name},{score:.3f}" for name, score in zip(entry["id"], scores, strict=True)]
    (tmp_path / "scores.csv").write_text("\n".join(["id,score", *lines[:-1]]))
    flags = ["--plugin", "mine", "--labels", "scored", "--compare-labels", "--seeds", 1, "--output", "run"]
    done = command(tmp_path, *given, *flags)
    assert done.returncode == 0, done.stderr
    anchors = json.loads((tmp_path / "run" / "results.json").read_text())["anchors"]["text"]
    assert anchors["opinions"]["my scores"]["weight"] > 0.05  # ids were found
    assert "my scores" in (tmp_path / "run" / "report.md").read_text()
    failed = command(tmp_path, *given, *flags[:-1], "other", "--plugin-options", "scored.file=no.csv")
    assert failed.returncode == 2
    assert "plugin mine.scored failed: FileNotFoundError" in failed.stderr


PLUGIN = """
import numpy as np
import skesl_mug as sm
from finetune.model.mechanisms import Mechanism
from dataclasses import dataclass

FACTOR = 0.9

@dataclass
class Options:
    add: float = 0.0

@sm.register_generator("mine", options=Options)
def mine(inputs, options):
    return {name: inputs.y * FACTOR + options.add for name in inputs.modalities}

@sm.register_alignment("failing")
def failing(output, present, y, options):
    return output.representations["smell"].sum()

@sm.register_mechanism("broken")
class Broken(Mechanism):
    def fuse(self, model, z, fused, hidden, present):
        return fused / self.no
"""


def test_a_run_of_edited_plugin_code_or_defaults_does_not_resume(given: list[object], tmp_path: Path) -> None:
    flags = ["--plugin", "mine", "--labels", "mine", "--compare-labels", "--seeds", 1, "--output", "run"]
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    assert command(tmp_path, *given, *flags).returncode == 0
    plugin.write_text(PLUGIN.replace('["smell"]', '["text"]'))  # not used by this run
    assert "already trained" in command(tmp_path, *given, *flags).stdout
    for old, new in (("FACTOR = 0.9", "FACTOR = 0.8"), ("add: float = 0.0", "add: float = 0.1")):
        plugin.write_text(PLUGIN.replace(old, new))
        refused = command(tmp_path, *given, *flags)
        assert refused.returncode == 2
        assert "the code of plugin generator mine has changed since this run started; choose another folder, or add" in refused.stderr
    assert command(tmp_path, *given, *flags, "--overwrite").returncode == 0


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--training.alignment.losses", "failing"], "plugin mine.failing failed: KeyError: 'smell' (mine.py line 19)"),
        (["--mechanisms", "broken"], "plugin mine.Broken failed: AttributeError: 'Broken' object has no attribute 'no' (mine.py line 24)"),
    ],
)
def test_the_exception_of_a_plugin_is_one_line(given: list[object], tmp_path: Path, flags: list[str], what: str) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    done = command(tmp_path, *given, "--plugin", "mine", "--labels", "copy", "--compare-labels", *flags, "--seeds", 1, "--output", "run")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {what}; --debug shows the traceback"
    assert "Traceback" not in done.stderr


def test_an_alignment_runs(given: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(example("An alignment"))
    flags = ["--plugin", "mine", "--training.alignment.losses", "cosine", "--labels", "copy", "--compare-labels", "--seeds", 1]
    done = command(tmp_path, *given, *flags, "--output", "run")
    assert done.returncode == 0, done.stderr
    distances = json.loads((tmp_path / "run" / "results.json").read_text())["alignment"]["text"]
    assert distances["after"]["centroid_distance"] < distances["before"]["centroid_distance"]


def test_a_mechanism_runs_and_its_model_needs_the_plugin(given: list[object], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(example("A mechanism"))
    flags = ["--mechanisms", "gate", "--labels", "copy", "--compare-labels", "--seeds", 1]
    done = command(tmp_path, *given, "--plugin", "mine", *flags, "--output", "run")
    assert done.returncode == 0, done.stderr
    load = "import sys, finetune.model.networks as n; m = n.MugModel.from_pretrained('run/model'); print(sorted(dict(m.named_children())))"
    done = command(tmp_path, "-c", f"import mine; {load}")
    assert "'gate'" in done.stdout, done.stderr
    assert "--plugin MODULE" in command(tmp_path, "-c", load).stderr


def test_names_are_checked_and_taken_ones_refused() -> None:
    base = ["--dataset", "sims", "--data", "x", "--lm", "embedded", "--output", "o"]
    for wrong, what in (
        (["--labels", "nobody"], "unknown label generator"),
        (["--training.alignment.losses", "none"], "unknown alignment"),
    ):
        with pytest.raises(UserError, match=what):
            parse_options(MugOptions, [*base, *wrong])
    with pytest.raises(ValueError, match="already registered"):
        register_generator("copy")(lambda inputs: {})
    assert plugin_options("copy", ["copy.strength=3"]) is None


@pytest.mark.parametrize(
    ("returned", "what"),
    [({"text": [0.0]}, "one finite label of text per utterance"), ({"smell": [0.0]}, "labels by modality"), (3, "labels by modality")],
)
def test_labels_of_the_wrong_shape_name_the_generator(returned: object, what: str) -> None:
    from test_finetune_labels import made_inputs

    GENERATORS._found["wrong"] = lambda inputs: returned
    try:
        with pytest.raises(UserError, match=what):
            make_generator("wrong", GeneratorOptions())(made_inputs()[0])
    finally:
        del GENERATORS._found["wrong"]


def test_missing_modalities_and_labels_out_of_range_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    from test_finetune_labels import made_inputs

    inputs = made_inputs()[0]
    GENERATORS._found["wide"] = lambda inputs: {"text": inputs.y + 10}
    GENERATORS._found["empty"] = lambda inputs: {}
    GENERATORS._found["failing"] = lambda inputs: inputs.representations["smell"]
    try:
        assert set(make_generator("wide", GeneratorOptions())(inputs).labels) == {"text"}
        with pytest.raises(UserError, match="returned no labels"):
            make_generator("empty", GeneratorOptions())(inputs)
        with pytest.raises(UserError, match=r"plugin test_extending\..*failed: KeyError: 'smell' \(test_extending.py line \d+\)"):
            make_generator("failing", GeneratorOptions())(inputs)
    finally:
        for name in ("wide", "empty", "failing"):
            del GENERATORS._found[name]
    printed = capsys.readouterr().out
    assert "returned no labels of audio" in printed
    assert f"note: {len(inputs.y):,} labels of --labels wide are far outside the label range" in printed


def test_the_command_names_the_mechanisms_and_their_order_does_not_matter() -> None:
    base = ["--dataset", "sims", "--data", "x", "--lm", "embedded", "--output", "o", "--mechanisms"]
    assert parse_options(MugOptions, [*base, "residual", "common-space"]).mechanisms == ["common-space", "residual"]
    with pytest.raises(UserError, match="unknown mechanism"):
        parse_options(MugOptions, [*base, "magic"])


def test_a_layout_and_features_run_in_two_workers(tmp_path: Path) -> None:
    """The three examples as three plugins in one run, outside the checkout."""
    for heading, module in (("A corpus layout", "layout_plugin"), ("Audio features", "audio_plugin"), ("Vision features", "vision_plugin")):
        (tmp_path / f"{module}.py").write_text(example(heading))
    lines = ["clip\tspeaker\tsplit\tscore\ttext"]
    for number in range(4):
        frames = [plain(40 * place) for place in range(6)] * 2  # black, then lighter and lighter
        write_clip(tmp_path / "corpus" / f"s{number % 2}" / f"c{number}.mp4", tone(1.0), frames)
        lines.append(f"c{number}\ts{number % 2}\ttrain\t{number - 1.5}\tThe film was wonderful.")
    (tmp_path / "corpus" / "clips.tsv").write_text("\n".join(lines) + "\n")
    flags = ["--plugin", "layout_plugin", "audio_plugin", "vision_plugin", "--corpus", "interviews", "--root", "corpus"]
    flags += ["--audio", "loudness", "--vision", "movement", "--asr.model", "none", "--workers", 2, "--output", "dataset"]
    done = command(tmp_path, ROOT / "preprocessing" / "run.py", *flags)
    assert done.returncode == 0, done.stderr
    from preprocessing.store import read_dataset

    data = read_dataset(tmp_path / "dataset")
    assert data.column("id") == ["c0", "c1", "c2", "c3"]
    assert data.column("label") == [-1.5, -0.5, 0.5, 1.5]
    info = data.info
    assert (info.corpus["layout"], info.audio.extractor, info.audio.rate_hz, info.vision.rate_hz) == ("interviews", "loudness", 50.0, 6.0)
    assert [column["name"] for column in info.vision.columns] == ["brightness", "movement"]
    assert info.audio.settings["plugin"] == "audio_plugin.loudness"
    assert len(info.audio.settings["source_sha256"]) == 64
    utterance = data[0]
    assert utterance.audio.shape == (pytest.approx(50, abs=2), 2)
    assert utterance.audio[10:40, 0] == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.5)
    assert not utterance.vision_valid[0]  # black
    assert utterance.vision_valid[1]
    assert np.isfinite(utterance.vision).all()
