"""The studies by the names that the command takes; each is the `STUDY` of the module of its name."""

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.studies.frame import Study

QUESTIONS = {
    "ablation": "Which component carries the result: pretraining, alignment, learned labels, unimodal tasks, audio, vision, text?",
    "label_source": "Which generator of unimodal labels is worth its cost, and is the meta step?",
    "label_quality": "Does a better unimodal label make a better model, and how strongly?",
    "label_noise": "How do the label generators stand corrupted multimodal labels in training?",
    "label_ambiguity": "Are utterances whose modalities disagree harder, and do unimodal labels pay there?",
    "missing_modality": "What is left of the result where frames and words, or whole modalities, are missing?",
    "data_size": "How does the result grow with labelled utterances, and what does pretraining add at each size?",
    "interaction": "What do the modalities tell about the label together, each alone, or only in combination, and what can fusion gain?",
}
"""What each study asks; here, so that the list of them need not load any."""


class Catalogue(Mapping[str, "Study"]):
    """Imports a study when it is asked for: a misspelt name need not wait for torch."""

    def __getitem__(self, name: str) -> "Study":
        if name not in QUESTIONS:
            raise KeyError(name)
        study: Study = importlib.import_module(f"finetune.studies.{name}").STUDY
        return study

    def __contains__(self, name: object) -> bool:
        return name in QUESTIONS

    def __iter__(self) -> Iterator[str]:
        return iter(QUESTIONS)

    def __len__(self) -> int:
        return len(QUESTIONS)


STUDIES = Catalogue()
