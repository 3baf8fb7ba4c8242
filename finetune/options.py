"""The options of `skesl-mug finetune`; the docstring under a field is its help text."""

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import ClassVar, Literal

from finetune.extensions import ALIGNMENTS, GENERATORS, MECHANISMS, check_plugin_options
from finetune.generator_options import AUTO, NONE, GeneratorOptions
from finetune.training.defaults import set_defaults
from pretrain.options import LAST_LAYER, WEIGHTED_LAYERS, parse_layer
from skesl_mug.console import CommandOptions
from skesl_mug.errors import UserError

DatasetName = Literal["mosi", "mosei", "sims", "simsv2", "custom"]
ControlName = Literal["constant", "text-only", "audio-only", "vision-only", "no-pretraining", "no-unimodal-tasks", "permuted"]
INTERVAL_LEVEL = 0.8
"""At 0.9, intervals are a third wider (CMU-MOSI with a frozen MiniLM: ± 2.0 instead of ± 1.5 on a scale of -3 to 3)."""
DEFAULT_CONTROLS: tuple[ControlName, ...] = ("constant", "text-only", "no-pretraining", "no-unimodal-tasks", "permuted")


@dataclass
class ModelOptions:
    """The networks around the encoder."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset({"dim", "pooling", "gates", "zero_init_blocks", "rating_start"})

    dim: int = 64
    """Width of the unimodal and the fused representations."""
    fusion: Literal["joint", "encoder", "unimodal"] = "joint"
    """Inputs of the fused representation: the cross-modal encoder and the unimodal networks (joint), or one of them."""
    pooling: Literal["mean", "attention", "first"] = "mean"
    """Text network: the mean of the language model's states, a learned weighted mean, or the first token's state."""
    frames: Literal["lstm", "transformer", "statistics"] = "lstm"
    """Audio and vision networks: an LSTM as in the paper, a small transformer, or mean and deviation over time."""
    dropout: float = 0.3
    """Dropout before the heads."""
    gates: Literal["held-out", "none"] = "held-out"
    """How much of each modality the fused prediction uses: a share between 0 and 1 by its gain on held-out utterances of train (held-out),
    or all of it (none)."""
    zero_init_blocks: bool = True
    """Initialise cross-modal blocks that were not pretrained so that they pass the text states on, instead of at random."""
    rating_start: bool = True
    """If the encoder learned to rate utterances in pretraining, initialise the multimodal prediction with that rating."""


@dataclass
class TaskWeights:
    """Weight of each unimodal task in stages 1 and 3 (the multimodal task has 1); 0 leaves a task out."""

    text: float = 1.0
    """Weight of the text task."""
    audio: float = 1.0
    """Weight of the audio task."""
    vision: float = 1.0
    """Weight of the vision task."""


@dataclass
class AlignmentOptions:
    """Alignment of the spaces in stage 1."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset({"weight", "temperature", "covariance_pairs"})

    losses: list[str] = field(default_factory=lambda: ["contrastive"])
    """Alignment losses to add up: `contrastive`, `covariance`, `similarity`, `cross-modal`, `label-distance`, `teacher`, a plugin's;
    or none."""
    weight: float = 0.1
    """Weight of the alignment losses beside the tasks."""
    temperature: float = 0.07
    """Temperature of these losses, except `covariance`."""
    covariance_pairs: list[str] = field(default_factory=lambda: ["text-audio", "text-vision", "audio-vision"])
    """Pairs that `covariance` aligns, such as text-audio; !text-audio pushes the two apart instead."""


@dataclass
class TrainingOptions:
    """Stages 1 and 3."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"keep", "average_epochs", "lm_layer_decay", "weight_decay", "unimodal_weighting", "task_weights"}
    )

    align_epochs: int = 15
    """Maximum epochs of stage 1 (unimodal networks, fusion, projections); 0 skips stage 1."""
    joint_epochs: int = 15
    """Maximum epochs of stage 3 (all tasks together); 0 skips stage 3."""
    keep: Literal["best", "last"] = "best"
    """Weights that each stage keeps: of the epoch with the best development MAE, or of the last epoch (nothing is selected)."""
    average_epochs: int = 0
    """With `--training.keep last`: keep the mean of the weights after each of the last N epochs (0 or 1: the last weights)."""
    patience: int = 6
    """Epochs without a better development MAE before a stage stops early (with `--training.keep best`)."""
    batch_size: int = 32
    """Batch size."""
    lr: float = 1e-3
    """Learning rate of the unimodal networks, projections and heads."""
    encoder_lr: float = 2e-4
    """Learning rate of the encoder's cross-modal blocks."""
    lm_lr: float = 5e-5
    """Learning rate of the language model (unless --freeze-lm)."""
    lm_layer_decay: float = 1.0
    """Each layer of the language model learns at this factor of the rate of the layer above it (Howard and Ruder 2018)."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Mixed precision: `bf16` runs the networks in bfloat16 (faster with hardware support); losses are computed in float32."""
    unimodal_weighting: Literal["plain", "tanh"] = "plain"
    """`tanh` weights the unimodal errors of a sample by tanh |label - y|, as Self-MM does (`ulgm` always does)."""
    task_weights: TaskWeights = field(default_factory=TaskWeights)
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)


@dataclass(kw_only=True)
class TrainOptions(CommandOptions):
    """Options of every command that trains on a labelled corpus."""

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"lm_layer", "threads", "dev_share", "case", "max_text_tokens", "text_bert", "cache", "title", "generators"}
    )

    dataset: DatasetName
    """Corpus whose metrics and label range to use; `custom` for your own labels."""
    data: str
    """A pickle of MMSA, SKESL, MulT, MultiBench or MAG-BERT, a folder of .csd files, or that of a labelled utterance dataset; or a URL
    (s3://, https://, ...)."""
    output: Path
    """Folder for results, report and model."""
    encoder: str | None = None
    """Encoder to start from: a SKESL pretraining run, a model folder, a hub name, or `starter`. In fine-tuning, one that learned to rate
    utterances (the starter, --objective.rated or .distil) has fewer epochs and lower rates by default; your own flags win."""
    lm: str | None = None
    """Instead of --encoder: a plain language model by hub name or folder, `embedded`, `embedded-base` or `embedded-multilingual`."""
    lm_layer: str = LAST_LAYER
    """Layer of --lm to read: `last`, a number (0: the embeddings; negative: from the end), or `weighted` (a learned sum of all)."""
    freeze_lm: bool = False
    """Do not train the language model, and cache its states: many times faster."""
    seeds: list[int] = field(default_factory=lambda: [1111, 1112, 1113])
    """Random seeds, one complete training each; the table shows mean and standard deviation over them."""
    workers: int = 1
    """Seeds to train in parallel, one process each."""
    threads: int = 1
    """Threads per process; more help if a large language model is trained on a CPU. The last digits may depend on it."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest label of a custom corpus, if it does not store them."""
    dev_share: float = 0.15
    """Share of train, by video, that is held out for early stopping if the file has no test split."""
    case: Literal["auto", "fold", "keep"] = "auto"
    """Lower-case the transcripts (`fold`) or not; `auto` lower-cases transcripts that are all capitals."""
    max_text_tokens: int = 64
    """Maximum tokens per transcript; longer ones are truncated."""
    context: int = 0
    """Number of earlier utterances of the same video whose transcripts are read before an utterance's own; needs a language model that
    is trained (with --freeze-lm it was worse on CMU-MOSI)."""
    text_bert: bool = False
    """Use the BERT token ids of the pickle (`text_bert`) instead of tokenising its transcripts; needs the language model they belong to."""
    cache: Path | None = None
    """Folder for the memory-mapped copy of each corpus (default: $SKESL_MUG_CACHE, or ~/.cache/skesl-mug)."""
    synthetic: bool = False
    """State in the report that (parts of) the data are synthetic."""
    title: str | None = None
    """Title of the report."""
    overwrite: bool = False
    """Delete the run in the output folder and start again."""
    mechanisms: list[str] = field(default_factory=list)
    """Mechanisms of other papers to add: `common-space` (two layers shared by all tasks; unseen modality interaction), `residual` (a branch
    per modality in the fused representation), `alternate` (a step per task through a shared head; MLA), `recover` (fills in absent
    modalities; EMMR), or a plugin's."""
    plugin_options: list[str] = field(default_factory=list)
    """Options of plugins, such as `mine.strength=3`."""
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    generators: GeneratorOptions = field(default_factory=GeneratorOptions)

    def __post_init__(self) -> None:
        """Validate the options; errors name the flag and the fix."""
        if (self.encoder is None) == (self.lm is None):
            raise UserError(
                "choose either --encoder RUN (a pretrained SKESL encoder, or `starter`) or --lm NAME_OR_DIR (a plain language model)"
            )
        if self.encoder is not None and self.lm_layer != LAST_LAYER:
            raise UserError(f"--lm-layer {self.lm_layer}: only applies to --lm; an --encoder reads the layer it was pretrained on")
        if parse_layer(self.lm_layer) == WEIGHTED_LAYERS and self.freeze_lm:
            raise UserError(f"--lm-layer {WEIGHTED_LAYERS}: is learned as the language model runs; omit --freeze-lm, or choose a number")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds {' '.join(map(str, self.seeds))}: needs at least one seed, each only once")
        if min(self.seeds) < 0:
            raise UserError(f"--seeds {min(self.seeds)}: seeds must be 0 or more")
        counts = {"workers": self.workers, "threads": self.threads, "max-text-tokens": self.max_text_tokens}
        counts |= {"model.dim": self.model.dim, "training.batch-size": self.training.batch_size}
        each = self.generators
        counts |= {"generators.crossfit.batch-size": each.crossfit.batch_size, "generators.meta.batch-size": each.meta.batch_size}
        for flag, value in counts.items():
            if value < 1:
                raise UserError(f"--{flag} {value}: must be 1 or more")
        if self.context < 0:
            raise UserError(f"--context {self.context}: must be 0 or more")
        if self.context and self.text_bert:
            raise UserError(f"--context {self.context}: --text-bert reads the file's own token ids, which cannot be put together; omit one")
        if self.training.align_epochs < 0:
            raise UserError(f"--training.align-epochs {self.training.align_epochs}: must be 0 or more")
        if self.training.joint_epochs < 0 or (self.training.joint_epochs == 0 and not isinstance(self, MugOptions)):
            raise UserError(f"--training.joint-epochs {self.training.joint_epochs}: must be 1 or more")
        if self.training.align_epochs == self.training.joint_epochs == 0:
            raise UserError("--training.align-epochs 0 --training.joint-epochs 0: leaves nothing to train; raise one of them")
        if self.generators.crossfit.folds < 2:
            raise UserError(f"--generators.crossfit.folds {self.generators.crossfit.folds}: must be 2 or more")
        anchors = self.generators.crossfit.anchors
        if not set(anchors) <= {AUTO, NONE, "text", "audio", "vision"} or (len(anchors) > 1 and {AUTO, NONE} & set(anchors)):
            raise UserError(f"--generators.crossfit.anchors {' '.join(anchors)}: choose auto, none, or some of text, audio, vision")
        self.check_training()
        check_plugin_options(self.plugin_options)
        for name in [getattr(self, "labels", "none"), *getattr(self, "compare_labels", ())]:
            GENERATORS.check(name)
        if not 0 < self.dev_share < 1:
            raise UserError(f"--dev-share {self.dev_share}: must be between 0 and 1")

    def check_training(self) -> None:
        """Validate how networks and training options go together; studies check this for each of their settings too."""
        if not 0 < self.training.lm_layer_decay <= 1:
            raise UserError(f"--training.lm-layer-decay {self.training.lm_layer_decay:g}: must be above 0 and at most 1")
        if self.training.average_epochs < 0:
            raise UserError(f"--training.average-epochs {self.training.average_epochs}: must be 0 or more")
        if self.training.average_epochs > 1 and self.training.keep != "last":
            raise UserError(f"--training.average-epochs {self.training.average_epochs}: needs --training.keep last")
        for name, weight in vars(self.training.task_weights).items():
            if not weight >= 0:
                raise UserError(f"--training.task-weights.{name} {weight:g}: must be 0 or more")
        for name in self.training.alignment.losses:
            ALIGNMENTS.check(name)
        if self.mechanisms:
            from finetune.model.mechanisms import find_mechanism  # imports torch
            from skesl_mug.registry import plugin_errors

            for kind in map(find_mechanism, self.mechanisms):
                with plugin_errors(kind):
                    kind.check(self)
        self.mechanisms = [name for name in MECHANISMS.names() if name in self.mechanisms]  # their order does not matter
        names = {text for pair in combinations(("text", "audio", "vision"), 2) for text in ("-".join(pair), "-".join(pair[::-1]))}
        unknown = [pair for pair in self.training.alignment.covariance_pairs if pair.removeprefix("!") not in names]
        if unknown:
            raise UserError(f"--training.alignment.covariance-pairs {unknown[0]}: is not a pair of modalities, such as text-audio")


@dataclass(kw_only=True)
class MugOptions(TrainOptions):
    """Fine-tune on a labelled corpus with MUG's three stages and write a report.

    Stage 1 trains the networks and aligns the spaces, stage 2 learns a label for each modality, stage 3 trains all tasks together.
    The report compares the result with its controls: a constant, text only, no pretraining, no unimodal tasks, audio and vision permuted.
    Run the same command again to resume.

    Example: skesl-mug finetune --dataset mosi --data mosi_aligned_50.pkl --encoder runs/skesl --output runs/mug
    """

    ADVANCED: ClassVar[frozenset[str]] = frozenset(
        {"bootstrap", "epoch_folds", "interval_level", "label_margin", "retrieval_factor", "av_margin"}
    )

    average_seeds: bool = False
    """Also report the mean of the seeds' predictions, in a row of its own, and keep all seeds' models: the model folder then predicts
    their mean, as many times slower."""
    epochs_from: Literal["dev", "cross-validation"] = "dev"
    """What ends a stage: the development part, or folds of train. `cross-validation` tries the maximum of epochs, a half, a quarter and an
    eighth of it on the folds, and then trains all seeds for the best number on all labels, the development part included. With three folds
    it costs about four more models for each kind of start (all modalities, text only, ...)."""
    epoch_folds: int = 3
    """Folds of --epochs-from cross-validation, by video (by utterance if there is one video)."""
    few: int | None = None
    """Train on this many labelled utterances, drawn from train by the first seed, with epochs and learning rates for few labels; starts
    from the starter unless --encoder or --lm is given."""
    labels: str = "mucn-crossfit"
    """Generator of the unimodal labels of stage 3: `mucn-crossfit`, `mucn-meta`, `meta-weight-net`, `mlc`, `ulgm`, `regressor`, `copy`,
    `human`, `shuffled`, a plugin's, or `none` (no unimodal tasks)."""
    compare_labels: list[str] = field(default_factory=lambda: ["mucn-meta", "copy"])
    """Further generators to compare, from the same stage 1; `shuffled` assigns mucn-crossfit's corrections to the wrong utterances."""
    controls: list[ControlName] = field(default_factory=lambda: list(DEFAULT_CONTROLS))
    """Controls to run beside the result; those that do not apply are left out, with a message."""
    bootstrap: int = 1000
    """Bootstrap draws over the videos of the evaluated split, for the confidence interval; 0: no interval."""
    interval_level: float = INTERVAL_LEVEL
    """Share of labels that the interval around a score is to contain; calibrated on the development part."""
    label_margin: float = 0.005
    """Smallest gain in MAE, relative to the largest label, for learned labels to count as closer to the known ones than y."""
    retrieval_factor: float = 5.0
    """Spaces count as aligned if a projection retrieves its own sample this many times as often as chance."""
    av_margin: float = 0.01
    """Smallest increase in MAE by permuting audio and vision, relative to the largest label, for them to count as used."""

    def __post_init__(self) -> None:
        """Validate the options; errors name the flag and the fix."""
        set_defaults(self)
        super().__post_init__()
        if self.average_seeds and len(self.seeds) < 2:
            raise UserError("--average-seeds: needs two seeds or more; add some, such as --seeds 1111 1112 1113, or leave it out")
        if self.training.joint_epochs == 0 and self.labels != "none":
            raise UserError("--training.joint-epochs 0 (--few sets it) leaves learned labels unused; add --labels none, or raise it")
        if self.labels == "copy" and self.training.unimodal_weighting == "tanh":
            raise UserError("--training.unimodal-weighting tanh: weights copied labels with tanh 0 = 0; use plain with --labels copy")
        if not 0 < self.interval_level < 1:
            raise UserError(f"--interval-level {self.interval_level:g}: choose a share between 0 and 1, such as {INTERVAL_LEVEL:g}")
        self.compare_labels = [name for name in dict.fromkeys(self.compare_labels) if name != self.labels]
