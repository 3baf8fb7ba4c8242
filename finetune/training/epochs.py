"""Cross-validated epochs (`--epochs-from cross-validation`): folds of train choose how long each stage trains.

A stage of E epochs raises and lowers its learning rate over those E. After e < E of them the rate is still high, so the held-out error then
says little about training for e epochs. Hence every candidate has a schedule of its own length: the maximum, a half, a quarter and an
eighth of it, which costs about twice the maximum per fold.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finetune.corpora import LabelledCorpus
from finetune.corpora.splits import joined
from finetune.labels.crossfit import fold_unit, make_folds
from finetune.modalities import FUSED
from finetune.options import MugOptions, TrainingOptions, TrainOptions
from finetune.training.pieces import SeedFolder, write_arrays, write_entries
from finetune.training.trainer import Splits, Trainer, predictions_of
from finetune.training.variants import Start, Variant
from skesl_mug.files import read_json

HALVINGS = 3


@dataclass(frozen=True)
class ChosenEpochs:
    """The epochs of a start's stages, for all seeds.

    Attributes:
        align, joint: epochs of stages 1 and 3.
        align_errors, joint_errors: held-out MAE (label units) by candidate; empty where there was nothing to choose.
        folds, unit: number of folds, and what they keep together ("video" or "utterance").
        seconds: what choosing took.
    """

    align: int
    joint: int
    align_errors: dict[str, float]
    joint_errors: dict[str, float]
    folds: int
    unit: str
    seconds: float


def cross_validated(options: TrainOptions) -> bool:
    """Whether the number of epochs is chosen by cross-validation."""
    return isinstance(options, MugOptions) and options.epochs_from == "cross-validation"


def candidates(most: int) -> list[int]:
    """The numbers of epochs to compare: the maximum, a half, a quarter and an eighth of it, rounded up."""
    return sorted({-(-most // 2**halvings) for halvings in range(HALVINGS + 1)})


def without_dev(corpus: LabelledCorpus) -> LabelledCorpus:
    """The corpus with its development part in train: cross-validation needs none."""
    splits = {name: split for name, split in corpus.splits.items() if name != "dev"}
    splits["train"] = joined(corpus.splits["train"], corpus.splits["dev"])
    carved = corpus.evaluated_on_note is not None  # otherwise it is the file's own valid split
    part = "The file has no valid and test split both" if carved else "The file's valid split was added to train"
    note = (
        f"{part}: epochs were chosen by cross-validation on train, and results are for the {corpus.evaluated_on} split, which was not used "
    )
    return replace(corpus, splits=splits, evaluated_on_note=f"{note}for any choice.")


class FoldTrainer(Trainer):
    """Trains on all but one fold of a trainer's training split; its `dev` is that fold, and its epochs are set from outside."""

    epochs: tuple[int, int] = (0, 0)

    def __init__(self, whole: Trainer, folder: Path, number: int, rows: Sequence[int], held_out: Sequence[int]):
        super().__init__(whole.setting, whole.seed, whole.corpus, whole.states, folder, whole.prepared, f"fold {number} ")
        self.folder, self._rows, self.held_out = folder, rows, held_out

    def whole(self, start: Start) -> Splits:
        """The splits, with the fold as `dev`."""
        splits = super().whole(start)
        train = splits["train"]
        return {**splits, "train": train.select(self._rows), "dev": train.select(self.held_out)}

    def training(self, start: Start) -> TrainingOptions:
        """The training options with the candidate's epochs."""
        return replace(self.options.training, align_epochs=self.epochs[0], joint_epochs=self.epochs[1])

    def aligned(self, variant: Variant, epochs: int) -> np.ndarray:
        """Held-out predictions [n] in label units after a stage 1 of some epochs; finished ones are read from disk."""
        self.epochs = (epochs, 0)
        model, folder = self.new_model(variant.start), SeedFolder(self.folder / f"align-{epochs}")
        if self.team.on_main(partial(folder.has_stage_one, variant.start)):
            model.load_state_dict(folder.stage_one(variant.start)[0], strict=False)
        else:
            history = self.stage_one(variant.start, model)
            if self.team.is_main:
                folder.write_stage_one(variant.start, self.own_weights(model), history, 0.0)
            self.team.wait()
        return predictions_of(model, self.data(variant.start)["dev"], [], self.scale)[FUSED]

    def finished(self, variant: Variant, align: int, epochs: int) -> np.ndarray:
        """The same after stages 2 and 3 from that stage 1."""
        self.epochs = (align, epochs)
        folder = SeedFolder(self.folder / f"joint-{align}-{epochs}")
        stored: dict[str, np.ndarray] = self.team.on_main(partial(folder.arrays, "held_out"))
        if stored:
            return stored["pred_M"]
        model = self.new_model(variant.start)
        weights, history, seconds = SeedFolder(self.folder / f"align-{align}").stage_one(variant.start)
        model.load_state_dict(weights, strict=False)
        trained = self.train(variant, model, history, seconds)
        predictions = predictions_of(trained.model, self.data(variant.start)["dev"], [], self.scale)[FUSED]
        if self.team.is_main:
            write_arrays(folder.path / "held_out.npz", {"pred_M": predictions})
        self.team.wait()
        return predictions


def choose_epochs(trainer: Trainer, variant: Variant, count: int, folder: Path) -> ChosenEpochs:
    """Choose the epochs of a variant's start by cross-validation, and keep the choice and the held-out predictions in a folder.

    Stage 1 is chosen first, by the error of the multimodal task after it; stage 3 then starts from the chosen one in every fold.

    Args:
        trainer: of the first seed.
        variant: the first model with this start; the labels of its stage 3 are those of the choice.
        count: number of folds, by video (by utterance if there is one video).
        folder: where the pieces lie; a choice that is there is returned.

    Raises:
        UserError: train has fewer than two utterances, or a candidate diverged.
    """
    start, most, began = variant.start, trainer.options.training, time.perf_counter()
    known: ChosenEpochs | None = trainer.team.on_main(lambda: stored_choice(folder, start))
    if known is not None:
        return known
    split, temporary = trainer.data(start)["train"].split, folder / f"folds_{start.name}_seed-{trainer.seed}"
    parts = make_folds(split.video_ids, count, "video", trainer.seed)
    folds = [
        FoldTrainer(trainer, temporary / str(number), number, rows.tolist(), held.tolist()) for number, (rows, held) in enumerate(parts, 1)
    ]
    predictions: dict[int, np.ndarray] = {}

    def errors(at: Sequence[int], predict: Any) -> dict[int, float]:
        predictions.clear()
        for epochs in at:
            predictions[epochs] = np.zeros(len(split), np.float32)
            for fold in folds:
                predictions[epochs][fold.held_out] = predict(fold, epochs)
        return {epochs: round(float(np.abs(values - split.label).mean()), 5) for epochs, values in predictions.items()}

    align_errors = errors(candidates(most.align_epochs), lambda fold, epochs: fold.aligned(variant, epochs))
    align = joint = min(align_errors, key=lambda epochs: (align_errors[epochs], epochs))
    joint_errors: dict[int, float] = {}
    if most.joint_epochs:
        joint_errors = errors(candidates(most.joint_epochs), lambda fold, epochs: fold.finished(variant, align, epochs))
        joint = min(joint_errors, key=lambda epochs: (joint_errors[epochs], epochs))
    chosen = ChosenEpochs(
        align=align,
        joint=joint if most.joint_epochs else 0,
        align_errors=_by_name(align_errors),
        joint_errors=_by_name(joint_errors),
        folds=len(folds),
        unit=fold_unit(split.video_ids, "video"),
        seconds=round(time.perf_counter() - began, 2),
    )
    if trainer.team.is_main:
        write_arrays(folder / f"epochs_{start.name}.npz", {"pred_M": predictions[joint]})
        write_entries(_piece(folder, start), asdict(chosen))
        shutil.rmtree(temporary, ignore_errors=True)
    trainer.team.wait()
    return chosen


def stored_choice(folder: Path, start: Start) -> ChosenEpochs | None:
    """The choice for a start; None if there is none yet."""
    return ChosenEpochs(**read_json(_piece(folder, start))) if _piece(folder, start).is_file() else None


def held_out_predictions(folder: Path, start: Start) -> np.ndarray:
    """Predictions [N] for train in label units by models that were not trained on the utterance, with the chosen epochs."""
    return SeedFolder(folder).arrays(f"epochs_{start.name}")["pred_M"]


def _piece(folder: Path, start: Start) -> Path:
    return folder / f"epochs_{start.name}.json"


def _by_name(errors: dict[int, float]) -> dict[str, float]:
    return {str(epochs): error for epochs, error in errors.items()} if len(errors) > 1 else {}
