"""The studies by the names that the command takes; each is the `STUDY` of the module of its name."""

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.studies.frame import Study

NAMES = (
    "ablation",
    "label_source",
    "label_quality",
    "label_noise",
    "label_ambiguity",
    "missing_modality",
    "data_size",
    "interaction",
)


class Catalogue(Mapping[str, "Study"]):
    """Imports a study when it is asked for: a misspelt name need not wait for torch."""

    def __getitem__(self, name: str) -> "Study":
        if name not in NAMES:
            raise KeyError(name)
        study: Study = importlib.import_module(f"finetune.studies.{name}").STUDY
        return study

    def __contains__(self, name: object) -> bool:
        return name in NAMES

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


STUDIES = Catalogue()
