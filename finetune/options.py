"""The options of `finetune/run_mug.py`; the docstring under a field is its help text."""

from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from finetune.extensions import ALIGNMENTS, GENERATORS, check_plugin_options
from pretrain.options import LAST_LAYER, WEIGHTED_LAYERS, parse_layer
from pretrain.starter import STARTER
from pretrain.text_models import learned_to_rate
from skesl_mug.console import CommandOptions, given_flags
from skesl_mug.errors import UserError

DatasetName = Literal["mosi", "mosei", "sims", "simsv2", "custom"]
ControlName = Literal["constant", "text-only", "audio-only", "vision-only", "no-pretraining", "no-unimodal-tasks", "permuted"]
DEFAULT_CONTROLS: tuple[ControlName, ...] = ("constant", "text-only", "no-pretraining", "no-unimodal-tasks", "permuted")


@dataclass
class ModelOptions:
    """The networks around the encoder."""

    dim: int = 64
    """Width of the unimodal and the fused representations."""
    fusion: Literal["joint", "encoder", "unimodal"] = "joint"
    """The fused representation reads the cross-modal encoder and the unimodal networks, or one of the two alone."""
    pooling: Literal["mean", "attention", "first"] = "mean"
    """Text network: the mean of the language model's states, a learned weighted mean, or the first token's state."""
    frames: Literal["lstm", "transformer", "statistics"] = "lstm"
    """Audio and vision networks: an LSTM as in the paper, a small transformer, or mean and deviation over time."""
    dropout: float = 0.3
    """Dropout on what the heads read."""
    zero_init_blocks: bool = True
    """Cross-modal blocks that were not pretrained start by passing the text states on, instead of at random."""
    rating_start: bool = True
    """Where the encoder learned to rate utterances in pretraining, the multimodal prediction starts as that rating."""
    common_space: bool = False
    """What the fused representation sums passes two layers that every modality alone passes on the way to its head as well."""
    residual: bool = False
    """The fused representation gains a branch of each present modality: h_m and a two-layer network of it."""


@dataclass
class TaskWeights:
    """Weight of each unimodal task beside the multimodal one, in stages 1 and 3; 0 leaves a task out."""

    text: float = 1.0
    """Weight of the text task."""
    audio: float = 1.0
    """Weight of the audio task."""
    vision: float = 1.0
    """Weight of the vision task."""


@dataclass
class AlignmentOptions:
    """Alignment of the spaces in stage 1."""

    losses: list[str] = field(default_factory=lambda: ["contrastive"])
    """Alignment losses to add up: `contrastive`, `covariance`, `similarity`, `cross-modal`, `label-distance`, a plugin's; or none."""
    weight: float = 0.1
    """Weight of the alignment losses beside the tasks."""
    temperature: float = 0.07
    """Temperature of these losses, except `covariance`."""
    covariance_pairs: list[str] = field(default_factory=lambda: ["text-audio", "text-vision", "audio-vision"])
    """Pairs that `covariance` aligns, such as text-audio; !text-audio pushes the two apart instead."""


@dataclass
class TrainingOptions:
    """Stages 1 and 3."""

    align_epochs: int = 15
    """Most epochs of stage 1 (unimodal networks, fusion, projections)."""
    joint_epochs: int = 15
    """Most epochs of stage 3 (all tasks together); 0: there is no stage 3."""
    keep: Literal["best", "last"] = "best"
    """Each stage keeps its epoch with the best development MAE, or its last (the rates have fallen to 0 by then; nothing is chosen)."""
    patience: int = 6
    """Epochs without a better development MAE before a stage ends (where it keeps the best)."""
    batch_size: int = 32
    """Utterances a step."""
    lr: float = 1e-3
    """Learning rate of the unimodal networks, projections and heads."""
    encoder_lr: float = 2e-4
    """Learning rate of the encoder's cross-modal blocks."""
    lm_lr: float = 5e-5
    """Learning rate of the language model (unless --freeze-lm)."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` runs the networks in bfloat16 (fast where the processor or GPU multiplies it natively); losses stay in float32."""
    unimodal_weighting: Literal["plain", "tanh"] = "plain"
    """`tanh` weighs a sample's unimodal errors by tanh |label - y|, as Self-MM does (and as `ulgm` always does)."""
    alternate: bool = False
    """Tasks take turns: a step for each modality, then one for the fused task, through one shared head whose gradient is projected; the
    result weighs all tasks' predictions by their entropy (MLA)."""
    task_weights: TaskWeights = field(default_factory=TaskWeights)
    alignment: AlignmentOptions = field(default_factory=AlignmentOptions)


@dataclass
class CrossfitOptions:
    """`mucn-crossfit`, `regressor` and `shuffled`: out-of-fold predictions and the network that reads them."""

    folds: int = 5
    """Folds of the cross-fitting."""
    folds_by: Literal["video", "utterance"] = "video"
    """Keep all utterances of a video in one fold, or not."""
    backend: Literal["ridge", "network"] = "ridge"
    """What predicts y out of fold: ridge regression, or a small network of one hidden layer (slower)."""
    sigma: Literal["r2", "residual"] = "r2"
    """Noise of y as a label of one modality: by the R2 rule, or the standard deviation of the residual."""
    max_noise: float = 1.2
    """Upper bound of the uniform corruption of y in training (labels divided by their range)."""
    steps: int = 900
    """Updates of the network, one network per modality."""
    batch_size: int = 128
    """Batch size."""
    lr: float = 3e-3
    """Learning rate (AdamW, cosine)."""


@dataclass
class MetaOptions:
    """`mucn-meta`: the paper's bi-level MUCN. `meta-weight-net` and `mlc` share alpha, beta, steps, batch_size and hidden."""

    sigma: float = 0.6
    """Gaussian corruption of y (labels divided by their range)."""
    swap: float = 0.0
    """Probability that a label is swapped with another sample's."""
    alpha: float = 0.1
    """Learning rate of the inner (unimodal) update."""
    beta: float = 3e-3
    """Learning rate of the outer (multimodal) update, AdamW."""
    inner_weight: float = 0.0
    """Weight of the unimodal denoising loss beside the outer one; 0 is the paper's outer objective alone."""
    first_order: bool = False
    """Leave out the second derivatives (faster, a different gradient)."""
    steps: int = 400
    """Outer updates, one network per modality."""
    batch_size: int = 64
    """Batch size."""
    hidden: int = 64
    """Width of the network."""


@dataclass
class GeneratorOptions:
    """Options of the label generators; each reads its own group."""

    crossfit: CrossfitOptions = field(default_factory=CrossfitOptions)
    meta: MetaOptions = field(default_factory=MetaOptions)


FEWEST = 8
"""Labelled utterances below which nothing can be learned from them."""
FEW_UPDATES = 40
"""Updates that --few makes at least."""


def few_training(few: int, warm: bool) -> dict[str, Any]:
    """Settings of stages 1 and 3 for few labelled utterances: one stage of four passes or more, small rates, the last epoch kept.

    `warm`: an encoder that has learned from rated sentences, whose rates grow with the root of the number of labels (1e-5 with 64, 3e-5
    from 576 on); a plain language model has further to go.

    They were chosen on the part of CMU-MOSI's train split that is carved for development (benchmarks/few_labels.py).
    """
    batch = 16
    steps = -(-few // batch)
    epochs = max(4, -(-FEW_UPDATES // steps))
    rate = 1e-5 * min(3.0, max(1.0, (few / 64) ** 0.5)) if warm else 1e-4
    rates = {"lm_lr": rate, "encoder_lr": rate, "lr": 10 * rate}
    return {"align_epochs": epochs, "joint_epochs": 0, "keep": "last", "batch_size": batch, **rates}


@dataclass(kw_only=True)
class TrainOptions(CommandOptions):
    """What every command needs that trains on a labelled corpus."""

    dataset: DatasetName
    """Whose metrics and label range to use; `custom` for your own labels."""
    data: str
    """An MMSA or SKESL pickle, or the folder of an utterance dataset that has labels; or a URL of either (s3://, https://, ...)."""
    output: Path
    """The run's folder: results, report, model."""
    encoder: str | None = None
    """A SKESL pretraining run, a model folder or a hub name to start from."""
    lm: str | None = None
    """Without --encoder: a plain language model by hub name or folder, `embedded` or `embedded-base`."""
    lm_layer: str = LAST_LAYER
    """Layer of --lm to read: `last`, a number (0: its embeddings; negative: from the end), or `weighted` (a learned sum of all)."""
    freeze_lm: bool = False
    """Leave the language model as it is and cache its states: many times faster."""
    seeds: list[int] = field(default_factory=lambda: [1111, 1112, 1113])
    """One whole run each; the table gives mean and standard deviation over them."""
    workers: int = 1
    """Seeds that run at the same time, one process each."""
    threads: int = 1
    """Threads of each process; raise it for a large language model that is trained on a CPU. Last digits may depend on it."""
    label_range: tuple[float, float] | None = None
    """Lowest and highest label of a custom corpus that does not say it itself."""
    dev_share: float = 0.15
    """Share of train, by video, that is carved off for early stopping where the file has no test split."""
    case: Literal["auto", "fold", "keep"] = "auto"
    """Lower-case the transcripts: `auto` folds those that are all capitals."""
    max_text_tokens: int = 64
    """Longer transcripts are cut."""
    text_bert: bool = False
    """Take the pickle's own BERT token ids (`text_bert`) instead of tokenising its transcripts; fits the language model they are of."""
    cache: Path | None = None
    """Folder of the memory-mapped form that each corpus is converted to once (default: $SKESL_MUG_CACHE, or ~/.cache/skesl-mug)."""
    made: bool = False
    """Say in the report that (parts of) this data are made, not recorded."""
    title: str | None = None
    """Heading of the report."""
    overwrite: bool = False
    """Start anew in an output folder that holds another run."""
    plugin_options: list[str] = field(default_factory=list)
    """Options of plugins, such as `mine.strength=3`."""
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    generators: GeneratorOptions = field(default_factory=GeneratorOptions)

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming the flag and the mend."""
        if (self.encoder is None) == (self.lm is None):
            raise UserError(
                "give either --encoder RUN (a pretrained SKESL encoder, or `starter`) or --lm NAME_OR_DIR (a plain language model)"
            )
        if self.encoder is not None and self.lm_layer != LAST_LAYER:
            raise UserError(f"--lm-layer {self.lm_layer}: goes with --lm; an --encoder reads the layer that it was pretrained on")
        if parse_layer(self.lm_layer) == WEIGHTED_LAYERS and self.freeze_lm:
            raise UserError(f"--lm-layer {WEIGHTED_LAYERS}: learns while the language model runs; leave --freeze-lm out, or give a number")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds {' '.join(map(str, self.seeds))}: wants at least one seed and each only once")
        if min(self.seeds) < 0:
            raise UserError(f"--seeds {min(self.seeds)}: wants seeds of 0 or more")
        whole = {"workers": self.workers, "threads": self.threads, "max-text-tokens": self.max_text_tokens}
        whole |= {"model.dim": self.model.dim, "training.batch-size": self.training.batch_size}
        whole |= {"training.align-epochs": self.training.align_epochs}
        whole |= {
            "generators.crossfit.batch-size": self.generators.crossfit.batch_size,
            "generators.meta.batch-size": self.generators.meta.batch_size,
        }
        for flag, value in whole.items():
            if value < 1:
                raise UserError(f"--{flag} {value}: wants 1 or more")
        if self.training.joint_epochs < 0 or (self.training.joint_epochs == 0 and not isinstance(self, MugOptions)):
            raise UserError(f"--training.joint-epochs {self.training.joint_epochs}: wants 1 or more")
        if self.generators.crossfit.folds < 2:
            raise UserError(f"--generators.crossfit.folds {self.generators.crossfit.folds}: wants 2 or more")
        self.check_training()
        check_plugin_options(self.plugin_options)
        for name in [getattr(self, "labels", "none"), *getattr(self, "compare_labels", ())]:
            GENERATORS.check(name)
        if not 0 < self.dev_share < 1:
            raise UserError(f"--dev-share {self.dev_share}: wants a share between 0 and 1")

    def check_training(self) -> None:
        """Refuse networks and ways to train that do not go together; the checks of `__post_init__` that hold for parts of a study too."""
        for name, weight in vars(self.training.task_weights).items():
            if not weight >= 0:
                raise UserError(f"--training.task-weights.{name} {weight:g}: wants 0 or more")
        if self.model.common_space and self.model.fusion == "encoder":
            raise UserError("--model.common-space: sums the modalities, which --model.fusion encoder leaves out; take joint or unimodal")
        if self.training.alternate and self.model.common_space:
            raise UserError("--training.alternate, --model.common-space: each lets the tasks share a head in its own way; take one of them")
        if self.training.alternate and not all(vars(self.training.task_weights).values()):
            raise UserError("--training.alternate: weighs every task in the result, so each --training.task-weights wants to be above 0")
        for name in self.training.alignment.losses:
            ALIGNMENTS.check(name)
        names = {text for pair in combinations(("text", "audio", "vision"), 2) for text in ("-".join(pair), "-".join(pair[::-1]))}
        strangers = [pair for pair in self.training.alignment.covariance_pairs if pair.removeprefix("!") not in names]
        if strangers:
            raise UserError(
                f"--training.alignment.covariance-pairs {strangers[0]}: is no pair of modalities; write text-audio, or !text-audio"
            )


@dataclass(kw_only=True)
class MugOptions(TrainOptions):
    """Fine-tune on a labelled corpus with MUG's three stages and write a report.

    Stage 1 trains the networks and aligns the spaces, stage 2 learns a label for each modality, stage 3 trains all tasks together.
    Beside the result stand its controls: a constant, text only, no pretraining, no unimodal tasks, audio and vision permuted.
    The same command run again goes on where it stopped.

    Example: python finetune/run_mug.py --dataset mosi --data mosi_aligned_50.pkl --encoder runs/skesl --output runs/mug
    """

    few: int | None = None
    """Train on so many labelled utterances, drawn from train by the first seed, from the starter (unless --encoder or --lm says otherwise)
    and with epochs and rates for so few."""
    labels: str = "mucn-crossfit"
    """Generator of the unimodal labels of stage 3: `mucn-crossfit`, `mucn-meta`, `meta-weight-net`, `mlc`, `ulgm`, `regressor`, `copy`,
    `human`, `shuffled`, a plugin's, or `none` (no unimodal tasks)."""
    compare_labels: list[str] = field(default_factory=lambda: ["mucn-meta", "copy"])
    """Further generators beside --labels, from the same stage 1; `shuffled` gives mucn-crossfit's corrections to the wrong utterances."""
    controls: list[ControlName] = field(default_factory=lambda: list(DEFAULT_CONTROLS))
    """Controls to run beside the result (audio-only and vision-only too, if named); those that do not apply are left out and said."""
    bootstrap: int = 1000
    """Draws of the bootstrap over the videos of the evaluated split, for the result's interval."""
    label_margin: float = 0.005
    """Learned labels count as closer to the known ones than y from this MAE on, as a share of the labels' largest value (3 for -3 to 3)."""
    retrieval_factor: float = 5.0
    """Spaces count as aligned when a projection finds its own sample this many times as often as chance."""
    av_margin: float = 0.01
    """Audio and vision count as used when permuting them raises the MAE by this share of the labels' largest value or more."""

    def set_for_few(self, few: int) -> None:
        """The settings for few labelled utterances; what the command line or --config names stays, and so does what is not the default.

        Unimodal labels are learned from too few utterances to be worth it, so there are none; the control without pretraining would want
        other rates, so it is a run of its own (--lm).
        """
        if few < FEWEST:
            raise UserError(f"--few {few}: wants {FEWEST} or more")
        if self.encoder is None and self.lm is None:
            self.encoder = STARTER
        warm = self.encoder is not None and learned_to_rate(self.encoder)
        for group, changes in (("training", few_training(few, warm)), ("model", {"dropout": 0.1})):
            target = getattr(self, group)
            fresh = type(target)()
            for name, value in changes.items():
                if f"--{group}.{name.replace('_', '-')}" not in given_flags() and getattr(target, name) == getattr(fresh, name):
                    setattr(target, name, value)
        if self.labels == "mucn-crossfit" and self.training.joint_epochs == 0 and "--labels" not in given_flags():
            self.labels, self.compare_labels = "none", []
        if "--controls" not in given_flags():
            self.controls = [name for name in self.controls if name != "no-pretraining"]

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, naming the flag and the mend."""
        if self.few is not None:
            self.set_for_few(self.few)
        super().__post_init__()
        if self.training.joint_epochs == 0 and self.labels != "none":
            raise UserError("--training.joint-epochs 0 (--few sets it) leaves learned labels unused; add --labels none, or give it epochs")
        if self.labels == "copy" and self.training.unimodal_weighting == "tanh":
            raise UserError("--training.unimodal-weighting tanh: weighs copied labels with tanh 0 = 0, so --labels copy wants plain")
        if self.labels == "none" and self.training.alternate:
            raise UserError("--labels none: leaves no unimodal task to alternate with; leave --training.alternate out")
        self.compare_labels = [name for name in dict.fromkeys(self.compare_labels) if name != self.labels]
