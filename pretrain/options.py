"""The options of pretraining; light to import, so that `--help` answers at once."""

from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Literal

from skesl_mug.console import CommandOptions
from skesl_mug.errors import UserError

LAST_LAYER, WEIGHTED_LAYERS = "last", "weighted"
WORD, RATED, DISTIL = "word", "rated", "distil"
"""Objectives, by the names of their weights in `ObjectiveOptions`."""


@dataclass(kw_only=True)
class EncoderShape:
    """The cross-modal part of the encoder. The defaults are the paper's form; the remarks name the authors' code where it differs."""

    attention_dim: int = 256
    """Width in which the cross-modal attention runs."""
    num_heads: int = 1
    """Heads of each cross-modal attention."""
    num_blocks: int = 4
    """Number of cross-modal blocks."""
    share_blocks: bool = False
    """Apply one block over and over (the authors' code) instead of separate blocks (the paper)."""
    ff_dim: int | None = None
    """Inner width of the feed-forward layer; none: the text width."""
    dropout: float = 0.1
    """Dropout on attention, feed-forward layer and head (the authors' code: 0.5)."""
    residual: Literal["layernorm", "raw"] = "layernorm"
    """Add LN(text), the paper's formula, or the raw text state (the authors' code)."""
    feed_forward: Literal["two_layer", "linear"] = "two_layer"
    """Two layers with a GELU, or a single linear layer (the authors' code)."""
    mask_padding: bool = True
    """Keep padded frames out of the attention (the authors' code does not)."""


@dataclass(kw_only=True)
class ObjectiveOptions:
    """What the encoder learns. The default is the paper's objective: one masked word and its absolute error."""

    word: float = 1.0
    """Weight of the masked word's intensity; 0 leaves it out."""
    rated: float = 0.0
    """Weight of rating whole sentences that people rated (--rated). They are text alone and mix with the utterances of --data."""
    distil: float = 0.0
    """Weight of giving each utterance, its sentiment words masked, the score that a text model gives its whole transcript (--teacher)."""
    masks: int = 1
    """Mask up to so many words of an utterance at a time, the most intense ones."""
    confidence: bool = False
    """Weigh a masked word by how well VADER's raters agreed on it: 1 / (1 + variance of their ratings)."""
    zero_share: float | None = None
    """Leave out training utterances without a lexicon word until they are at most this share."""
    negatives: float = 0.0
    """Weight of the loss that tells an utterance's own audio and vision from another's (arXiv 2007.01179)."""
    cross_modal: float = 0.0
    """Weight of predicting audio and vision from the text, contrasted over the batch (arXiv 2210.14556)."""
    modality_dropout: float = 0.0
    """Take audio, and independently vision, from an utterance in training with this probability."""


@dataclass(kw_only=True)
class PretrainOptions(CommandOptions):
    """Pretrain a SKESL encoder: predict the sentiment intensity of a masked word from text, voice and face.

    Example: accelerate launch --config_file pretrain/configs/cpu.yaml pretrain/run.py --data DATASET --lm bert-base-uncased --output RUN
    """

    data: list[str] = field(default_factory=list)
    """Utterance datasets made by preprocessing/run.py: folders, or URLs (s3://...) of which a copy is kept; several are read as one.
    Not needed with --objective.rated."""
    rated: str = "hutto-gilbert"
    """Sentences with people's ratings, for --objective.rated: `hutto-gilbert` (23,703 English ones, fetched once with pip), or a csv of
    texts and scores on any scale."""
    rated_range: tuple[float, float] | None = None
    """Lowest and highest score of the scale of a csv file, where its own scores do not reach both (1 5 for stars)."""
    teacher: str = "starter"
    """Who scores the transcripts for --objective.distil: a run of --objective.rated, or `starter`: one trained on the rated sentences."""
    output: Path
    """Folder of the run: config.yaml, results.json, model/, checkpoints/, logs/. The same command again resumes."""
    lm: str = "embedded"
    """Text encoder: a hub name, a local folder, `embedded` (6 layers; extra [demo]) or `embedded-base` (12 layers; 404 MB)."""
    lm_layer: str = LAST_LAYER
    """Layer of the text encoder to read: `last`, a number (0: its embeddings; negative: from the end), or `weighted` (a learned sum)."""
    freeze_lm: bool = True
    """Keep the text encoder as it is and compute its states once (the authors' code). `--train-lm` is the same as `--no-freeze-lm`."""
    encoder: EncoderShape = field(default_factory=EncoderShape)
    """The cross-modal blocks."""

    objective: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    """What is learned: the paper's masked word, and what may stand beside it or in its place."""

    epochs: int = 20
    """Passes over the data at most."""
    max_steps: int = 0
    """Updates at most, whatever --epochs say; 0: as many as those take."""
    batch_size: int = 32
    """Utterances per process that pass the model at a time."""
    accumulate: int = 1
    """Gradients of so many batches make one step. Where memory runs out, batches are halved and this is doubled by itself."""
    lr: float = 1e-4
    """Learning rate of the cross-modal blocks and the head."""
    lm_lr: float = 2e-5
    """Learning rate of the text encoder with --train-lm."""
    lm_layer_decay: float = 1.0
    """Every layer of the text encoder learns at this fraction of the rate of the layer above it."""
    weight_decay: float = 0.01
    """AdamW's weight decay (not on biases and LayerNorms)."""
    warmup: float = 0.06
    """Share of all steps in which the rates rise; after it they follow --schedule."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rates fall to 0 after the rise, if they do."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    patience: int = 5
    """Stop after so many epochs without a better validation MAE; 0: never."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Numbers of the matrix products: `auto` takes bf16 where the processor multiplies it natively (or what Accelerate's config says)."""
    seed: int = 1
    """Of weights, order, dropout and the held-out speakers."""

    valid_share: float = 0.1
    """Share of the utterances and of the rated sentences to hold out for validation; whole speakers and whole documents are held out."""
    valid_most: int = 5000
    """Hold out no more utterances than about this, however many there are; 0: no limit."""
    av_margin: float = 0.02
    """By how much permuting audio and vision must raise the validation MAE before we say that they were used."""
    all_splits: bool = False
    """Train on the rows of splits `valid` and `test` too (by default a labelled corpus' held-out parts stay unseen)."""
    context_intensity: bool = False
    """Predict the intensity with negation and degree words where the dataset has it, not the plain lexicon score (the paper)."""
    one_mask_token: bool = False
    """Put one mask token for a whole word, not one for each of its pieces."""
    max_tokens: int = 128
    """Longest text in tokens; a longer one is cut around the masked word."""
    max_audio_frames: int = 1000
    """Longest audio sequence; what comes later is cut (1,000 frames are 23 s of the 33 columns)."""
    max_vision_frames: int = 500
    """Longest vision sequence."""

    checkpoint_steps: int = 0
    """Also checkpoint every so many steps within an epoch; 0: at the end of each epoch alone."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints to keep."""
    gradient_checkpointing: bool = False
    """Compute the text encoder's inner states again in the backward pass: less memory, about a third more time."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where the curves go: any tracker that Accelerate knows and that is installed."""
    num_workers: int = 0
    """Worker processes that read the data."""
    compile: str = "no"
    """Backend of torch.compile for the step, such as `inductor` (wants a C++ compiler; the first steps take minutes); `no`: none."""
    overwrite: bool = False
    """Delete what is in --output and start anew."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work, naming the flag."""
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
                "--data: name an utterance dataset (of preprocessing/run.py), or learn from rated sentences: --objective.rated 1"
            )
        if not self.objective.rated and not self.objective.word and not self.objective.distil:
            raise UserError("--objective.word 0: leaves nothing to learn; give --objective.rated or --objective.distil a weight")
        if self.data and not self.objective.word and not self.objective.distil:
            raise UserError("--objective.word 0: makes no use of --data; leave --data out, or give --objective.distil a weight")
        if not self.data and self.objective.distil:
            raise UserError("--objective.distil: needs utterances to score; give --data")
        if self.valid_share == 0:
            raise UserError("--valid-share 0: some utterances must be held out to tell whether anything was learned")
        parse_layer(self.lm_layer)


def parse_layer(text: int | str) -> int | str:
    """`last`, `weighted`, or the number that `text` is.

    Raises:
        UserError: it is none of them.
    """
    if text in (LAST_LAYER, WEIGHTED_LAYERS):
        return text
    try:
        return int(text)
    except ValueError as error:
        raise UserError(f"--lm-layer {text}: give {LAST_LAYER}, {WEIGHTED_LAYERS} or a whole number") from error
