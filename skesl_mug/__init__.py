"""The toolkit from Python, and the ground floor that every room stands on.

>>> import skesl_mug as sm
>>> model = sm.SentimentModel.starter()  # doctest: +SKIP
>>> for utterance in model.predict("video.mp4"):  # doctest: +SKIP
...     print(utterance.start, utterance.score, utterance.text)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.corpora import LabelledCorpus as LabelledCorpus
    from finetune.corpora import load_corpus as load_corpus
    from finetune.extensions import register_alignment as register_alignment
    from finetune.extensions import register_generator as register_generator
    from finetune.extensions import register_mechanism as register_mechanism
    from finetune.extensions import register_study as register_study
    from finetune.finetuning import FinetuneResult as FinetuneResult
    from finetune.finetuning import finetune as finetune
    from finetune.labels import LabelInputs as LabelInputs
    from finetune.labels import Opinions as Opinions
    from finetune.labels import make_generator as make_generator
    from finetune.metrics import score as score
    from finetune.prediction.sentiment_model import SentimentModel as SentimentModel
    from finetune.to_mmsa import to_mmsa as to_mmsa
    from lexicons import Lexicon as Lexicon
    from lexicons import load_lexicon as load_lexicon
    from preprocessing.extensions import register_audio_features as register_audio_features
    from preprocessing.extensions import register_layout as register_layout
    from preprocessing.extensions import register_vision_features as register_vision_features
    from preprocessing.layouts import Clip as Clip
    from preprocessing.preprocess import preprocess as preprocess
    from preprocessing.push import push_dataset as push_dataset
    from preprocessing.store import read_dataset as read_dataset
    from pretrain.encoder import SkeslForMaskedIntensity as SkeslForMaskedIntensity
    from pretrain.encoder import SkeslModel as SkeslModel
    from pretrain.pretraining import pretrain as pretrain
    from skesl_mug.errors import UserError as UserError

_PLACES = {
    "Clip": "preprocessing.layouts",
    "FinetuneResult": "finetune.finetuning",
    "LabelInputs": "finetune.labels",
    "LabelledCorpus": "finetune.corpora",
    "Opinions": "finetune.labels",
    "SentimentModel": "finetune.prediction.sentiment_model",
    "UserError": "skesl_mug.errors",
    "finetune": "finetune.finetuning",
    "load_corpus": "finetune.corpora",
    "make_generator": "finetune.labels",
    "register_alignment": "finetune.extensions",
    "register_audio_features": "preprocessing.extensions",
    "register_generator": "finetune.extensions",
    "register_mechanism": "finetune.extensions",
    "register_layout": "preprocessing.extensions",
    "register_vision_features": "preprocessing.extensions",
    "register_study": "finetune.extensions",
    "score": "finetune.metrics",
    "to_mmsa": "finetune.to_mmsa",
    "Lexicon": "lexicons",
    "load_lexicon": "lexicons",
    "preprocess": "preprocessing.preprocess",
    "pretrain": "pretrain.pretraining",
    "push_dataset": "preprocessing.push",
    "read_dataset": "preprocessing.store",
    "SkeslModel": "pretrain.encoder",
    "SkeslForMaskedIntensity": "pretrain.encoder",
}
"""Where the public names come from; each is imported when first used, so that `import skesl_mug` is immediate."""
__all__ = [
    "Clip",
    "FinetuneResult",
    "LabelInputs",
    "LabelledCorpus",
    "Lexicon",
    "Opinions",
    "SentimentModel",
    "SkeslForMaskedIntensity",
    "SkeslModel",
    "UserError",
    "finetune",
    "load_corpus",
    "load_lexicon",
    "make_generator",
    "preprocess",
    "pretrain",
    "push_dataset",
    "read_dataset",
    "register_alignment",
    "register_audio_features",
    "register_generator",
    "register_layout",
    "register_mechanism",
    "register_study",
    "register_vision_features",
    "score",
    "to_mmsa",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
