"""Extension points of fine-tuning: label generators, alignments, mechanisms, studies (docs/extending.md)."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from skesl_mug.console import to_plain
from skesl_mug.errors import UserError
from skesl_mug.registry import Registry, fingerprint, load_plugins

if TYPE_CHECKING:
    from finetune.options import TrainOptions

Registered = TypeVar("Registered")

GENERATORS = Registry(
    "label generator",
    "--labels",
    {
        "mucn-crossfit": "finetune.labels.crossfit:CrossfitMucn",
        "mucn-meta": "finetune.labels.mucn_meta:MetaMucn",
        "meta-weight-net": "finetune.neighbours.generators:MetaWeightNet",
        "mlc": "finetune.neighbours.generators:Mlc",
        "ulgm": "finetune.labels.ulgm:Ulgm",
        "regressor": "finetune.labels.crossfit:OutOfFoldRegressor",
        "copy": "finetune.labels.simple:CopyLabels",
        "human": "finetune.labels.simple:HumanLabels",
        "shuffled": "finetune.labels.simple:ShuffledCorrections",
        "none": "finetune.labels.simple:no_labels",
    },
)
ALIGNMENTS = Registry(
    "alignment loss",
    "--training.alignment.losses",
    {
        "contrastive": "finetune.model.alignment:contrastive",
        "covariance": "finetune.model.alignment:covariance",
        "similarity": "finetune.model.alignment:similarity",
        "cross-modal": "finetune.neighbours.alignments:CrossModal",
        "label-distance": "finetune.neighbours.alignments:LabelDistance",
        "teacher": "finetune.neighbours.alignments:Teacher",
    },
)
MECHANISMS = Registry(
    "mechanism",
    "--mechanisms",
    {
        "alternate": "finetune.neighbours.mechanisms:Alternate",
        "common-space": "finetune.neighbours.mechanisms:CommonSpace",
        "recover": "finetune.neighbours.recovery:Recover",
        "residual": "finetune.neighbours.mechanisms:Residual",
    },
)
STUDIES = Registry(
    "study",
    "study",
    {
        "ablation": "finetune.studies.ablation:Ablation",
        "label_source": "finetune.studies.label_source:LabelSource",
        "label_quality": "finetune.studies.label_quality:LabelQuality",
        "label_noise": "finetune.studies.label_noise:LabelNoise",
        "label_ambiguity": "finetune.studies.label_noise:LabelAmbiguity",
        "missing_modality": "finetune.studies.missing_data:MissingModality",
        "data_size": "finetune.studies.missing_data:DataSize",
        "interaction": "finetune.studies.interaction:Interaction",
    },
)
PLUGIN_OPTIONS: dict[str, type[Any]] = {}
"""Options of plugins by the name that they are registered under: dataclasses whose fields all have defaults."""

register_mechanism = MECHANISMS.register
"""Register a subclass of `finetune.model.mechanisms.Mechanism`, which changes the network or the training step; `--mechanisms name`."""
register_study = STUDIES.register


def register_generator(name: str, options: type[Any] | None = None) -> Callable[[Registered], Registered]:
    """Register a label generator: a function `(inputs: LabelInputs) -> dict[str, np.ndarray]` (labels [N] by modality, in the units of
    `inputs.y`), or a class whose instances are called so. `--labels name` and `--compare-labels name` select it.

    Args:
        name: letters, digits, `-` and `_`.
        options: a dataclass of its options, set by `--plugin-options name.field=value`; a function gets an instance as its second
            argument, a class as the argument of `__init__`.

    Raises:
        ValueError: the name is taken.
    """
    return _register(GENERATORS, name, options)


def register_alignment(name: str, options: type[Any] | None = None) -> Callable[[Registered], Registered]:
    """Register an alignment loss of stage 1: a function `(output, present, y, options) -> scalar`, or a class whose instances are called
    so and whose attribute `networks` is an `nn.Module` class. `--training.alignment.losses name` selects it.

    `output` is a `MugOutput`; `present` [B] by modality says which utterances have it; `y` [B] are the labels, scaled as in `LabelInputs`;
    `options` are the `AlignmentOptions`, or an instance of the dataclass given here (see `register_generator`). `networks` is made with
    `(modalities, dim)` and trained in stage 1; it receives the representations [B, dim] by modality and returns a dict of [B, ...], which
    the loss finds in `output.extras`.

    Raises:
        ValueError: the name is taken.
    """
    return _register(ALIGNMENTS, name, options)


def _register(registry: Registry, name: str, options: type[Any] | None) -> Callable[[Registered], Registered]:
    def decorate(registered: Registered) -> Registered:
        registry.register(name)(registered)
        if options is not None:
            PLUGIN_OPTIONS[name] = options
        return registered

    return decorate


def plugin_options(name: str, given: Iterable[str]) -> Any:
    """The options of the plugin `name`, as `--plugin-options` sets them; None where it has none.

    Raises:
        UserError: an option is unknown or has an invalid value.
    """
    if name not in PLUGIN_OPTIONS:
        return None
    options, hints = PLUGIN_OPTIONS[name], get_type_hints(PLUGIN_OPTIONS[name])
    assert is_dataclass(options)
    values = {}
    for entry in given:
        flag, equals, text = entry.partition("=")
        plugin, _, key = flag.partition(".")
        if plugin == name:
            key = key.replace("-", "_")
            if not equals or key not in {each.name for each in fields(options)}:
                known = ", ".join(f"{name}.{each.name}" for each in fields(options))
                raise UserError(f"--plugin-options {entry}: unknown option; choose from {known}")
            try:
                values[key] = _converted(hints[key], text)
            except (ValueError, KeyError) as error:
                raise UserError(f"--plugin-options {entry}: not a valid value for {key}") from error
    return options(**values)


def plugin_code(options: "TrainOptions", generators: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of the code and the resolved options of every plugin that a run uses, by "code of plugin KIND NAME".

    Args:
        options: of the run.
        generators: further label generators, beside those of the options.
    """
    labels = [getattr(options, "labels", "none"), *getattr(options, "compare_labels", ()), *generators]
    parts = [("generator", GENERATORS, labels), ("alignment", ALIGNMENTS, options.training.alignment.losses)]
    found = {}
    for kind, registry, names in [*parts, ("mechanism", MECHANISMS, options.mechanisms)]:
        for name in names:
            code = fingerprint(registry.get(name))
            if code is not None:
                own = json.dumps(to_plain(plugin_options(name, options.plugin_options)), default=str)
                found[f"code of plugin {kind} {name}"] = hashlib.sha256(f"{code} {own}".encode()).hexdigest()
    return found


def check_plugin_options(given: Iterable[str]) -> None:
    """Validate `--plugin-options`.

    Raises:
        UserError: an entry belongs to no plugin, is unknown to its plugin, or has an invalid value.
    """
    load_plugins()
    for entry in given:
        name = entry.partition(".")[0]
        if name not in PLUGIN_OPTIONS:
            known = ", ".join(PLUGIN_OPTIONS) or "none is loaded; see --plugin"
            raise UserError(f"--plugin-options {entry}: no plugin has options of this name (plugins with options: {known})")
        plugin_options(name, [entry])


def _converted(hint: Any, text: str) -> Any:
    """The value of one option, from text: bool, int, float, str or one of a Literal's strings."""
    if get_origin(hint) is Literal:
        return {str(choice): choice for choice in get_args(hint)}[text]
    if hint is bool:
        return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
    return hint(text) if hint in (int, float) else text
