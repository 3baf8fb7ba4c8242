"""`--average-seeds`: the mean of the predictions of all seeds' models, which lie below the model folder."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from finetune.corpora import LabelledCorpus
from finetune.metrics import score
from finetune.model.networks import MugConfig, MugInputs, MugModel, MugOutput
from finetune.prediction.model_folder import CARD_FILE, MEMBERS
from finetune.prediction.recipe import Recipe
from finetune.training.pieces import mean_prediction
from finetune.training.variants import averaged_name
from pretrain.encoder import SkeslModel
from skesl_mug.errors import UserError


class AveragedModel(nn.Module):
    """Predicts the mean of several models' predictions; offers what prediction and export need of a `MugModel`."""

    def __init__(self, members: Sequence[MugModel]):
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def first(self) -> MugModel:
        """The first seed's model."""
        first = self.members[0]
        assert isinstance(first, MugModel)
        return first

    @property
    def config(self) -> MugConfig:
        """The configuration that all members share."""
        return self.first.config  # type: ignore[return-value]

    @property
    def encoder(self) -> SkeslModel:
        """The first member's encoder; a frozen language model is the same in all."""
        return self.first.encoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.first.device

    @property
    def modalities(self) -> list[str]:
        """The modalities of all members."""
        return self.first.modalities

    @property
    def tasks(self) -> list[str]:
        """The tasks of all members."""
        return self.first.tasks

    def forward(self, inputs: MugInputs) -> MugOutput:
        """The mean prediction [B] per task."""
        outputs: list[MugOutput] = [member(inputs) for member in self.members]
        return MugOutput({name: torch.stack([output.predictions[name] for output in outputs]).mean(0) for name in outputs[0].predictions})


def averaged_of(predictions: Sequence[np.ndarray], corpus: LabelledCorpus, headline: str) -> dict[str, Any]:
    """The row of results.json for the mean of the seeds' predictions [N] on the evaluated split: one figure, without a spread."""
    scores = score(mean_prediction(predictions), corpus.splits[corpus.evaluated_on].label, corpus.dataset)
    return {"name": averaged_name(headline, len(predictions)), "mean": scores}


def load_network(folder: Path, recipe: Recipe) -> MugModel | AveragedModel:
    """The network of a model folder: a single model, or the average of its members.

    Raises:
        UserError: a member is missing.
    """
    if not recipe.members:
        return MugModel.from_pretrained(folder)
    places = [folder / MEMBERS / name for name in recipe.members]
    for place in places:
        if not (place / "config.json").is_file():
            raise UserError(
                f"{place}: is missing, and this model averages {len(places)}; copy the model's folder again, with its subfolders"
            )
    return AveragedModel([MugModel.from_pretrained(place) for place in places])


def write_members(model: Path, recipe: Recipe, members: Mapping[str, tuple[Path, Recipe]]) -> None:
    """Write a model folder's recipe and members, and remove those of an earlier session.

    Args:
        model: the folder, complete but for these.
        recipe: of the folder.
        members: by name, such as `seed-1111`: the folder with the weights of each model, and its recipe; empty for a single model.
    """
    shutil.rmtree(model / MEMBERS, ignore_errors=True)
    for name, (weights, own) in members.items():
        place = model / MEMBERS / name
        shutil.copytree(model, place, ignore=shutil.ignore_patterns(MEMBERS, "*.safetensors*", CARD_FILE))
        shutil.copytree(weights, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MEMBERS))
        own.write(place)
    recipe.write(model)
