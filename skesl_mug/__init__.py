"""The toolkit from Python, and the ground floor that every room stands on.

>>> import skesl_mug as sm
>>> model = sm.SentimentModel.starter()  # doctest: +SKIP
>>> for utterance in model.predict("video.mp4"):  # doctest: +SKIP
...     print(utterance.start, utterance.score, utterance.text)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.inference import SentimentModel as SentimentModel
    from skesl_mug.errors import UserError as UserError

_PLACES = {"SentimentModel": "finetune.inference", "UserError": "skesl_mug.errors"}
"""Where the public names come from; each is loaded at its first use, so that importing this package takes no time."""
__all__ = ["SentimentModel", "UserError"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
