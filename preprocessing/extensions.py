"""Extension points of preprocessing: corpus layouts, audio features, vision features (docs/extending.md).

Layouts are functions `(root) -> clips`. The other registries contain factories, which are called with the `PipelineSettings` once per
worker process and return an `AudioExtractor` or a `VisionExtractor` (features.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from skesl_mug.errors import UserError
from skesl_mug.registry import Registry

LAYOUTS = Registry(
    "corpus layout",
    "--corpus",
    {
        "voxceleb1": "preprocessing.layouts.voxceleb:find_voxceleb1",
        "voxceleb2": "preprocessing.layouts.voxceleb:find_voxceleb2",
        "mosi": "preprocessing.layouts.labelled:find_mosi",
        "mosei": "preprocessing.layouts.labelled:find_mosei",
        "sims": "preprocessing.layouts.labelled:find_sims",
        "simsv2": "preprocessing.layouts.labelled:find_simsv2",
        "folder": "preprocessing.layouts.folder:find_folder",
    },
)
AUDIO_FEATURES = Registry(
    "audio feature extractor",
    "--audio",
    {
        "librosa33": "preprocessing.audio:open_librosa33",
        "egemaps": "preprocessing.audio:open_egemaps",
        "prosody": "preprocessing.sound.prosody:open_prosody",
        "whisper": "preprocessing.sound.whisper_states:open_whisper",
        "hf": "preprocessing.sound.encoder:open_encoder",
    },
    optional=True,
    takes={"hf": "NAME_OR_DIR"},
)
VISION_FEATURES = Registry(
    "vision feature extractor",
    "--vision",
    {
        "mesh": "preprocessing.vision.mesh:open_mesh",
        "mesh-au": "preprocessing.vision.mesh:open_mesh_au",
        "expression": "preprocessing.vision.expression:open_expression",
        "openface": "preprocessing.vision.openface:open_openface",
        "hf": "preprocessing.vision.encoders:open_hf",
        "onnx": "preprocessing.vision.encoders:open_onnx",
    },
    optional=True,
    takes={"hf": "NAME_OR_DIR", "onnx": "FILE"},
)

ALIASES = {"librosa": "librosa33"}
LAST_LAYER = "last"
"""Of an encoder whose states are features (--audio-layer)."""

MakerT = TypeVar("MakerT", bound=Callable[..., Any])
Columns = Sequence[str] | Mapping[str, str]


def block_names(value: str | Sequence[str], registry: Registry) -> list[str]:
    """The names in the value of --audio or --vision (the registry's), checked; empty for `none`.

    Raises:
        UserError: a name is unknown or given twice, or `none` is given with others.
    """
    names = [ALIASES.get(name, name) for name in ([value] if isinstance(value, str) else value)]
    for name in names:
        registry.check(name)
    if len(set(names)) < len(names):
        raise UserError(f"{registry.flag} {' '.join(names)}: names the same features twice")
    if "none" in names and len(names) > 1:
        raise UserError(f"{registry.flag} {' '.join(names)}: none cannot be combined with features")
    return [name for name in names if name != "none"]


def register_layout(name: str) -> Callable[[MakerT], MakerT]:
    """Register a corpus layout, to be chosen with `--corpus NAME`.

    The decorated object is a function `(root: Path) -> list[Clip]`. Clip ids have to be unique and their files have to lie
    below `root`. With parameters `labels` or `folds` it also receives the files of `--labels` and `--folds` (None if not given).

    Raises:
        ValueError: the name is taken.
    """
    return LAYOUTS.register(name)


def register_audio_features(name: str, *, rate_hz: float, columns: Columns, sample_rate: int = 16_000) -> Callable[[MakerT], MakerT]:
    """Register an audio feature extractor, to be chosen with `--audio NAME`.

    The decorated object is a function, or a class whose instances are called (created once per worker process: the place to load a model):
    sound [samples] float32 at `sample_rate` Hz, mono in -1..1 -> features [frames, columns] float32.

    Args:
        name: of the extractor.
        rate_hz: feature frames per second.
        columns: their names, or a mapping from name to unit.
        sample_rate: of the sound that is passed in, Hz.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(maker: MakerT) -> MakerT:
        from preprocessing.features import AudioPlugin

        AUDIO_FEATURES.register(name)(AudioPlugin(name, maker, columns, rate_hz, sample_rate))
        return maker

    return decorate


def register_vision_features(name: str, *, columns: Columns) -> Callable[[MakerT], MakerT]:
    """Register a vision feature extractor, to be chosen with `--vision NAME`.

    The decorated object is a function, or a class whose instances are called (created once per worker process):
    frames (list of RGB images [height, width, 3] uint8, `--vision-fps` per second), times (list of seconds) -> features
    [len(frames), columns] float32. A row of NaN means that the frame shows no face; it is interpolated and marked as invalid.

    Args:
        name: of the extractor.
        columns: their names, or a mapping from name to unit.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(maker: MakerT) -> MakerT:
        from preprocessing.features import VisionPlugin

        VISION_FEATURES.register(name)(VisionPlugin(name, maker, columns))
        return maker

    return decorate
