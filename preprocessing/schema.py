"""One utterance and the description of its dataset: the contract between preprocessing and training."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import pyarrow as pa

FORMAT_VERSION = 1
LABEL_COLUMNS = ("label", "label_T", "label_A", "label_V")
REASONS = {
    "no_openface": "there is no readable OpenFace csv file for the clip (with --vision openface)",
    "no_word_times": "its words have no times (with --align words)",
    "nationality": "the speaker's nationality is not one of --nationality",
    "nationality_unknown": "the corpus's table does not give the speaker's nationality",
    "unreadable": "the file cannot be decoded",
    "too_short": "shorter than --min-seconds",
    "too_long": "longer than --max-seconds",
    "no_transcript": "the corpus has no transcript of it, and --asr.model is none",
    "no_sound": "the file has no sound track, or a silent one",
    "no_track": "the file has no such sound track (--audio-track)",
    "same_channel": "its channel has the same sound as another channel of the file (with --channels split)",
    "no_speech": "no speech, or no recognised word",
    "language": "the language spoken is not --asr.language",
    "no_speech_probability": "the recogniser finds it likely that nobody speaks, and is unsure of its words (--asr.no-speech-probability)",
    "log_probability": "the recogniser is unsure of its words (--asr.log-probability)",
    "compression_ratio": "the recognised text is repetitive, as Whisper's hallucinations are (--asr.compression-ratio)",
    "repeated_phrase": "the recognised text repeats a phrase, as Whisper's hallucinations do (--asr.repeated-phrases)",
    "no_face": "no sampled frame shows a face (with --skip-without-face)",
    "crashed": "the worker process died on it, again when it was processed alone",
    "failed": "an unexpected error of the toolkit or a plugin, named in the detail; --debug shows its traceback",
}
"""The reasons why a clip is skipped."""
FILTERS = frozenset({"nationality", "nationality_unknown"})
"""Those that the user asks for."""


@dataclass
class Word:
    """A word of the transcript: its position in the text (characters) and in the clip (seconds; None if unknown)."""

    text: str
    start_char: int
    end_char: int
    start: float | None = None
    end: float | None = None
    probability: float | None = None


@dataclass
class Mask:
    """A span that pretraining may mask: `text[start_char:end_char]` with its intensity in label units.

    `intensity` is the plain lexicon score, `context_intensity` the one adjusted for negation and degree words (None if not computed);
    `from_lexicon` is False for the random word of intensity 0 that is masked if no word is in the lexicon.
    """

    start_char: int
    end_char: int
    intensity: float
    context_intensity: float | None = None
    from_lexicon: bool = True


@dataclass
class Utterance:
    """One row of the utterance dataset. `audio` is [Ta, Da], `vision` [Tv, Dv] (float16 on disk), None if absent.

    The first of `masks` is the paper's: the largest |intensity|, the earliest on a tie. `start` and `end` are seconds in the
    source video; `face_rate` is the share of sampled frames with a face.
    """

    id: str
    video_id: str
    speaker: str
    start: float
    end: float
    language: str
    text: str
    words: list[Word] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    audio: np.ndarray | None = None
    vision: np.ndarray | None = None
    vision_times: np.ndarray | None = None
    vision_valid: np.ndarray | None = None
    face_rate: float | None = None
    split: str | None = None
    label: float | None = None
    label_T: float | None = None  # noqa: N815 - the corpora's own names
    label_A: float | None = None  # noqa: N815
    label_V: float | None = None  # noqa: N815


@dataclass
class FeatureInfo:
    """How a feature sequence was made: the extractor (with library versions), frames per second, and each column's name and unit."""

    extractor: str
    rate_hz: float
    columns: list[dict[str, str]]
    versions: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.columns)


@dataclass
class DatasetInfo:
    """The content of `dataset.json`.

    `corpus` has at least `name` and `root`, and `synthetic: true` for synthetic data; `counts` has `kept` and `skipped` (reason -> clips).
    """

    corpus: dict[str, Any]
    label_range: tuple[float, float] | None = None
    audio: FeatureInfo | None = None
    vision: FeatureInfo | None = None
    asr: dict[str, Any] | None = None
    lexicon: dict[str, Any] | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def synthetic(self) -> bool:
        """Whether the corpus is synthetic, which every report has to say."""
        return bool(self.corpus.get("synthetic") or self.corpus.get("made"))  # the latter is the former name

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts for JSON; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: dict[str, Any]) -> "DatasetInfo":
        """Read what `to_dict` wrote; unknown entries are ignored, so that older code reads newer files of the same format."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in entries.items() if key in known}
        for name in ("corpus", "counts", "seconds", "versions"):
            if not isinstance(values.get(name, {}), dict):
                raise ValueError(f"`{name}` is not a mapping")
        corpus = values.get("corpus", {})
        if "made" in corpus:  # the former name
            values["corpus"] = {"synthetic" if key == "made" else key: value for key, value in corpus.items()}
        for name in ("audio", "vision"):
            if values.get(name) is not None:
                values[name] = FeatureInfo(**values[name])
        if values.get("label_range") is not None:
            low, high = values["label_range"]
            values["label_range"] = (float(low), float(high))
        return cls(**values)


def arrow_schema(audio_width: int, vision_width: int) -> pa.Schema:
    """The Arrow schema of the shards. A width of 0 (no such features) is stored as 1 with every row null."""

    def frames(width: int) -> pa.DataType:
        return pa.list_(pa.list_(pa.float16(), max(1, width)))

    word = pa.struct(
        [
            ("text", pa.string()),
            ("start_char", pa.int32()),
            ("end_char", pa.int32()),
            ("start", pa.float32()),
            ("end", pa.float32()),
            ("probability", pa.float32()),
        ]
    )
    mask = pa.struct(
        [
            ("start_char", pa.int32()),
            ("end_char", pa.int32()),
            ("intensity", pa.float32()),
            ("context_intensity", pa.float32()),
            ("from_lexicon", pa.bool_()),
        ]
    )
    return pa.schema(
        [
            ("id", pa.string()),
            ("video_id", pa.string()),
            ("speaker", pa.string()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("language", pa.string()),
            ("text", pa.string()),
            ("words", pa.list_(word)),
            ("masks", pa.list_(mask)),
            ("audio", frames(audio_width)),
            ("vision", frames(vision_width)),
            ("vision_times", pa.list_(pa.float32())),
            ("vision_valid", pa.list_(pa.bool_())),
            ("face_rate", pa.float32()),
            ("split", pa.string()),
            *((name, pa.float32()) for name in LABEL_COLUMNS),
        ]
    )
