"""An experiment of several settings: in one process or several, resumed, and each variant tested as it was trained."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from synthetic_corpus import write_pickle
from synthetic_pretraining import write_text_model
from synthetic_studies import SMALL, write_encoder

from finetune.corpora import LabelledCorpus, load_corpus
from finetune.model.minibatches import PreparedSplit
from finetune.options import TrainOptions
from finetune.training.experiment import Experiment
from finetune.training.trainer import Setting
from finetune.training.variants import FULL, NO_PRETRAINING, Start, Variant
from skesl_mug.console import parse_options


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainOptions, LabelledCorpus]:
    folder = tmp_path_factory.mktemp("experiment")
    data = write_pickle(folder / "sims.pkl", {"train": 40, "valid": 12, "test": 16})
    encoder = write_encoder(folder / "skesl", write_text_model(folder / "lm"), 100)
    flags = ["--dataset", "sims", "--data", data, "--encoder", encoder, "--freeze-lm", "--output", folder, "--seeds", 1, 2, *SMALL]
    return parse_options(TrainOptions, [str(flag) for flag in flags]), load_corpus("sims", data)


@dataclass(frozen=True)
class Retokenised:
    """The same tokens in new lists, so that the language model's states are computed again."""

    def __call__(self, name: str, split: PreparedSplit, seed: int) -> PreparedSplit:
        return replace(split, tokens=[list(row) for row in split.tokens])


def test_a_test_view_is_scored_with_the_inputs_of_the_variants_own_start(made, tmp_path: Path) -> None:
    options, corpus = made
    variants = [Variant(start.name, "none", start) for start in (FULL, NO_PRETRAINING, Start.only("text"), Start.without("text"))]
    setting = Setting("whole", options, variants, tests={"same": Retokenised()}, further_splits=["dev"])
    experiment = Experiment([setting], [1], corpus, tmp_path)
    assert experiment.run()
    for variant in variants:
        piece = experiment.seed_folder(setting, 1).results(variant.name)
        assert piece["tests"]["same"] == pytest.approx(piece["metrics"], abs=2e-3), variant.name
        assert piece["splits"]["dev"]["MAE"] == pytest.approx(piece["history"][-1]["dev_MAE"], abs=1e-3)
    assert not experiment.run()
    more = replace(setting, tests={"same": Retokenised(), "again": Retokenised()})
    assert Experiment([more], [1], corpus, tmp_path).missing(more, 1) == [variant.name for variant in variants]


def test_seeds_in_several_processes_give_the_same_digits(made, tmp_path: Path) -> None:
    options, corpus = made
    found = []
    for workers in (1, 2):
        settings = [Setting(name, replace(options, workers=workers), [Variant("copy", "copy")], Retokenised()) for name in ("one", "two")]
        assert Experiment(settings, [1, 2], corpus, tmp_path / str(workers)).run()
        pieces = sorted((tmp_path / str(workers)).rglob("copy.json"))
        found.append([json.loads(piece.read_text())["metrics"] for piece in pieces])
    assert len(found[0]) == 4
    assert found[0] == found[1]
