"""The inputs of a drill: a folder of synthetic data, and the jobs that are disturbed, each with its undisturbed result."""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clip_factory import face, voice, write_clip
from synthetic_corpus import SMALL, write_pickle
from synthetic_model import make_model
from synthetic_pretraining import write_text_model

from .frame import done, run

SENTENCES = ("The film was wonderful.", "I hated the awful food.", "It was a nice hotel.", "The phone is terrible and I am sad.")
STUDY = ["--training.align-epochs", "1", "--training.joint-epochs", "1", "--model.frames", "statistics", "--model.dim", "8"]


@dataclass(frozen=True)
class Job:
    """A command that writes a folder and resumes; `result` must be the same however often it was disturbed."""

    name: str
    command: Callable[["Ground", Path], list[str]]
    result: Callable[[Path], Any]


@dataclass
class Ground:
    """Synthetic input in one folder; each part is created when first used."""

    folder: Path
    chance: random.Random
    _whole: dict[str, tuple[Any, float]] = field(default_factory=dict)
    kept: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def clips(self) -> Path:
        """Twelve labelled clips of four sentences."""
        root = self.folder / "clips"
        for place, sentence in enumerate(SENTENCES):
            first = write_clip(root / f"v{place}" / "0.mp4", voice(sentence), face())
            for number in (1, 2):
                os.link(first, first.with_name(f"{number}.mp4"))
        rows = [f"v{place}/{number},{place - 1.5},{('train', 'valid', 'test')[number]}" for place in range(4) for number in range(3)]
        (root / "labels.csv").write_text("\n".join(["clip,label,split", *rows]) + "\n")
        return root

    @cached_property
    def lm(self) -> Path:
        """A tiny language model."""
        return write_text_model(self.folder / "lm")

    @cached_property
    def data(self) -> Path:
        """A synthetic dataset of 60 utterances in three shards."""
        return _in_shards(self.folder / "data")

    @cached_property
    def pickle(self) -> Path:
        """A synthetic labelled corpus as a pickle."""
        return write_pickle(self.folder / "sims.pkl", {"train": 48, "valid": 12, "test": 12})

    @cached_property
    def model(self) -> Path:
        """A fine-tuning run for predict."""
        (self.folder / "model").mkdir()
        return make_model(self.folder / "model")

    @cached_property
    def predictable(self) -> Path:
        """A short recording."""
        return self.clips / "v0" / "0.mp4"

    def fresh(self, name: str = "o") -> Path:
        """A new path in the folder."""
        return Path(tempfile.mkdtemp(prefix="run-", dir=self.folder)) / name

    def copy(self, source: Path) -> Path:
        """A copy of a file or folder to damage."""
        target = self.fresh(source.name)
        return Path(shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target))

    def whole(self, job: Job) -> tuple[Any, float]:
        """Result and seconds of an undisturbed run."""
        if job.name not in self._whole:
            output = self.fresh("whole")
            ended = run(job.command(self, output))
            done(ended)
            self._whole[job.name] = (job.result(output), ended.seconds)
        return self._whole[job.name]


def _in_shards(folder: Path) -> Path:
    from synthetic_pretraining import feature_info, made_utterances

    from preprocessing.schema import DatasetInfo
    from preprocessing.store import write_dataset

    corpus = {"name": "made", "root": "", "made": True}
    info = DatasetInfo(corpus=corpus, audio=feature_info(33, 43.0), vision=feature_info(8, 12.0))
    info.counts = {"kept": 60, "skipped": {}, "hours": 0.02, "languages": {"en": 60}, "mean_face_rate": None}
    write_dataset(folder, made_utterances(), info, shard_rows=20)
    return folder


def preprocess(ground: Ground, output: Path) -> list[str]:
    return _texts("preprocessing/run.py", "--corpus", "folder", "--root", ground.clips, *PREPROCESS, "--output", output)


PREPROCESS = ["--workers", "2", "--asr.beam-size", "1", "--vision-fps", "2", "--audio", "librosa33"]


def pretrain(ground: Ground, output: Path) -> list[str]:
    short = ["--epochs", "6", "--batch-size", "8", "--lr", "3e-3", "--encoder.attention-dim", "16", "--encoder.num-blocks", "1"]
    short += ["--checkpoint-steps", "3", "--valid-share", "0.2"]
    return _texts("pretrain/run.py", "--data", ground.data, "--lm", ground.lm, *short, "--output", output)


def fine_tune(ground: Ground, output: Path) -> list[str]:
    less = ["--seeds", "1", "2", "--compare-labels", "copy", "--controls", "permuted", "text-only"]
    given = ["--dataset", "sims", "--data", ground.pickle, "--lm", ground.lm, "--freeze-lm", "--cache", ground.folder / "cache"]
    return _texts("finetune/run_mug.py", *given, *SMALL, *less, "--output", output)


def study(ground: Ground, output: Path) -> list[str]:
    given = ["--dataset", "sims", "--data", ground.pickle, "--lm", ground.lm, "--freeze-lm", "--cache", ground.folder / "cache"]
    return _texts("-m", "finetune.studies", "ablation", *given, *STUDY, "--generators.crossfit.steps", 10, "--seeds", 1, "--output", output)


def search(ground: Ground, output: Path) -> list[str]:
    given = ["--dataset", "sims", "--data", ground.pickle, "--lm", ground.lm, "--freeze-lm", "--cache", ground.folder / "cache"]
    tuned = ["--labels", "copy", "--tune", "training.lr", "model.dropout", "--trials", 3, "--seeds", 1]
    return _texts("-m", "finetune.studies", "search", *given, *STUDY, *tuned, "--output", output)


def predict(ground: Ground, output: Path) -> list[str]:
    return _texts("finetune/predict.py", ground.predictable, "--model", ground.model, "--output", output)


def sample_corpus(ground: Ground, output: Path) -> list[str]:
    return _texts("preprocessing/sample_corpus.py", "--clips", 12, "--workers", 2, "--output", output)


def _texts(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def utterances_of(folder: Path) -> list[str]:
    """All rows of a dataset, ordered by id."""
    import numpy as np

    from preprocessing.store import UtteranceDataset

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else value

    rows = [{name: plain(value) for name, value in vars(row).items()} for row in UtteranceDataset(folder)]
    return sorted(repr(row) for row in rows)


def weights_of(folder: Path) -> Any:
    """Weights and results of a pretraining run."""
    results = json.loads((folder / "results.json").read_text())
    return (folder / "model" / "model.safetensors").read_bytes(), results["validation"], results["controls"]


def figures_of(folder: Path) -> Any:
    """Results of a fine-tuning run."""
    results = json.loads((folder / "results.json").read_text())
    return {name: results[name] for name in ("metrics", "controls", "unimodal_labels_by_generator", "interval", "alignment")}


def study_of(folder: Path) -> Any:
    """Results of a study."""
    return json.loads((folder / "study.json").read_text())["rows"]


def search_of(folder: Path) -> Any:
    """The trials that count."""
    trials = json.loads((folder / "search.json").read_text())["trials"]
    return [{**trial, "number": None} for trial in trials if trial["state"] in ("COMPLETE", "PRUNED")]


def predictions_of(folder: Path) -> Any:
    """The prediction files, without the figure."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix != ".png"}


def clips_of(folder: Path) -> Any:
    """The clips of a sample corpus."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.mp4"))}


JOBS = (
    Job("sample_corpus.py", sample_corpus, clips_of),
    Job("preprocessing/run.py", preprocess, utterances_of),
    Job("pretrain/run.py", pretrain, weights_of),
    Job("run_mug.py", fine_tune, figures_of),
    Job("studies", study, study_of),
    Job("search", search, search_of),
    Job("predict.py", predict, predictions_of),
)
