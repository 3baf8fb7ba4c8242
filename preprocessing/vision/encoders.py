"""Image encoders on the aligned face crop: `--vision hf:NAME_OR_DIR` (transformers) and `--vision onnx:FILE` (ONNX Runtime)."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocessing.schema import FeatureInfo
from preprocessing.vision.crops import CROP, ImageInput, crop
from preprocessing.vision.faces import FACES, SMALLEST_FACE, Face, FaceTracker, tracker_of
from preprocessing.vision.mesh import FaceExtractor
from skesl_mug.console import quiet_libraries
from skesl_mug.errors import UserError

if TYPE_CHECKING:
    from preprocessing.pipeline import PipelineSettings

BATCH = 32  # frames per forward pass
KINDS = {"audio": "sound", "text": "text", "video": "videos", "image": "images"}
UNUSED_WEIGHTS = ("pooler", "mask_token")  # may be missing in a checkpoint: such a pooler is not used, masks occur in pretraining only


@dataclass(frozen=True)
class Encoder:
    """A loaded image network: `encode` maps [N, 3, height, width] float32 to [N, width] float32."""

    encode: Callable[[np.ndarray], np.ndarray]
    image: ImageInput
    width: int
    settings: dict[str, Any]
    versions: dict[str, str]


def open_hf(name: str, settings: "PipelineSettings") -> "FaceEncoder":
    """The extractor `hf:NAME_OR_DIR`."""
    name = str(Path(name).resolve()) if Path(name).is_dir() else name
    return FaceEncoder(tracker_of(settings), f"hf:{name}", load_transformers(name), settings)


def open_onnx(name: str, settings: "PipelineSettings") -> "FaceEncoder":
    """The extractor `onnx:FILE`."""
    path = Path(name).resolve()
    return FaceEncoder(tracker_of(settings), f"onnx:{path}", load_onnx(path), settings)


class FaceEncoder(FaceExtractor):
    """The output of an image encoder for each frame's face. Faces smaller than `SMALLEST_FACE` count as not seen."""

    def __init__(self, tracker: FaceTracker, name: str, encoder: Encoder, settings: "PipelineSettings"):
        self.encoder = encoder
        columns = [{"name": f"state_{number}", "unit": "output of the encoder"} for number in range(encoder.width)]
        about = {
            **encoder.settings,
            "image": encoder.image.describe(),
            "crop": CROP,
            "faces": FACES[settings.faces],
            "frames_without_face": "interpolated in time, vision_valid false",
            "smallest_face": f"{SMALLEST_FACE:g} pixels between the outer eye corners",
        }
        versions = encoder.versions | {library: metadata.version(library) for library in ("mediapipe", "opencv-contrib-python")}
        super().__init__(tracker, FeatureInfo(name, settings.vision_fps, columns, versions, about))

    def values(self, face: Face, frames: list[np.ndarray]) -> np.ndarray:
        """See `FaceExtractor`."""
        values = np.full((len(face.points), self.encoder.width), np.nan, np.float32)
        seen = np.nonzero(face.eye_distance() >= SMALLEST_FACE)[0]
        image = self.encoder.image
        for start in range(0, len(seen), BATCH):
            places = seen[start : start + BATCH]
            crops = [crop(frames[face.numbers[place]], face.points[place], image.height, image.width) for place in places]
            values[places] = self.encoder.encode(image.pixels(crops))
        return values


def load_transformers(name: str) -> Encoder:
    """An image encoder of `transformers` by its hub name or folder: the image tower of models with several (CLIP, SigLIP).

    Its features are the pooled output; where the checkpoint has no trained pooler, the state of the class token, or without one the mean
    over the patches.

    Raises:
        UserError: it cannot be loaded, is not an image encoder, or lacks weights.
    """
    quiet_libraries()
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # else it lists the weights of heads and text towers as unexpected
    logging.disable_progress_bar()
    flag = f"--vision hf:{name}"
    if not Path(name).is_dir() and (Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise UserError(f"{flag}: there is no such folder")
    try:
        config = AutoConfig.from_pretrained(name)
        _check_images(config, flag)
        model, found = AutoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{flag}: cannot be loaded ({_first_line(error)}); use the folder or the hub name of an image encoder") from error
    missing = set(found["missing_keys"])
    prefix = "vision_model." if hasattr(model, "vision_model") else ""
    tower = getattr(model, "vision_model", model).eval()
    lacking = [key for key, _ in tower.named_parameters() if prefix + key in missing and not any(part in key for part in UNUSED_WEIGHTS)]
    if lacking:
        raise UserError(f"{flag}: the checkpoint lacks {len(lacking)} weights of {type(tower).__name__} (first: {lacking[0]})")
    trained_pooler = not any("pooler" in key for key in missing)
    class_token = any(key.endswith(("cls_token", "class_embedding")) for key, _ in tower.named_parameters())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tower.to(device)
    image = read_processor(name, flag)

    def encode(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = tower(pixel_values=torch.from_numpy(pixels).to(device))
            pooled = getattr(output, "pooler_output", None) if trained_pooler else None
            states = output.last_hidden_state if pooled is None else pooled
            if states.ndim == 4:  # a convolutional network's map [N, D, height, width]
                states = states.mean(dim=(2, 3))
            elif states.ndim == 3:
                states = states[:, 0] if class_token else states.mean(dim=1)
            return np.asarray(states.flatten(1).float().cpu().numpy())

    width = _try(encode, image, flag)
    about = {
        "model": name,
        "model_type": config.model_type,
        "weights_sha256": weights_sha256(tower, leave_out={key.removeprefix(prefix) for key in missing}),
    }
    return Encoder(encode, image, width, about, {library: metadata.version(library) for library in ("torch", "transformers")})


def _check_images(config: Any, flag: str) -> None:
    from transformers import AutoModel

    inner = getattr(config, "vision_config", None)
    network: Any = AutoModel._model_mapping.get(type(inner or config), None)
    network = network[0] if isinstance(network, tuple) else network
    kinds = getattr(network, "input_modalities", ("image",))
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if network is None or inner is not None or "image" in kinds:
        return
    takes = " and ".join(KINDS.get(kind, kind) for kind in kinds)
    hint = f"; --audio {flag.split(' ')[1]} takes it" if "audio" in kinds else "; use CLIP, ViT, DINOv2 or another image encoder"
    raise UserError(f"{flag}: is a {config.model_type} model, which takes {takes}, not images{hint}")


def read_processor(name: str, flag: str) -> ImageInput:
    """Size and normalisation of a model's images, from its preprocessor_config.json or processor_config.json.

    Raises:
        UserError: there is none, or it lacks the size.
    """
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        entries, _ = ImageProcessingMixin.get_image_processor_dict(name)
        height, width = _size_of(entries)
        rescaled, normalised = entries.get("do_rescale", True), entries.get("do_normalize", True)
        mean = _three(entries["image_mean"]) if normalised else (0.0, 0.0, 0.0)
        std = _three(entries["image_std"]) if normalised else (1.0, 1.0, 1.0)
        return ImageInput(height, width, mean, std, float(entries.get("rescale_factor", 1 / 255)) if rescaled else 1.0)
    except OSError as error:
        raise UserError(f"{flag}: has no preprocessor_config.json, which gives the size and normalisation of its images") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{flag}: its preprocessor_config.json lacks size, image_mean or image_std ({_first_line(error)})") from error


def _size_of(entries: dict[str, Any]) -> tuple[int, int]:
    size: Any = entries["crop_size"] if entries.get("do_center_crop") and entries.get("crop_size") else entries["size"]
    if isinstance(size, dict):
        side: Any = size.get("shortest_edge", size.get("longest_edge"))
        return int(size.get("height", side)), int(size.get("width", side))
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def _three(values: Any) -> tuple[float, float, float]:
    found = [float(value) for value in (values if isinstance(values, list | tuple) else [values] * 3)]
    if len(found) != 3:
        raise ValueError(f"{len(found)} channels instead of 3")
    return found[0], found[1], found[2]


def weights_sha256(network: Any, leave_out: set[str]) -> str:
    """SHA-256 of a network's weights, so that prediction recognises others under the same name; `leave_out` are drawn at random."""
    found = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if key in leave_out:
            continue
        found.update(key.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


CONTRACT = (
    "one float32 input [N, 3, height, width] in RGB and one float32 output [N, columns]; mean and std (three numbers each, of pixels in "
    "0..1), and size where the input leaves it open, in the file's metadata or in a JSON file of the same name beside it"
)


def load_onnx(path: Path) -> Encoder:
    """An image encoder from an ONNX file that keeps `CONTRACT`.

    Raises:
        UserError: ONNX Runtime is not installed, the file cannot be read, or it does not keep the contract.
    """
    flag = f"--vision onnx:{path}"
    if not path.is_file():
        raise UserError(f"{flag}: no such file")
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{flag}: ONNX Runtime is not installed; `pip install 'skesl-mug[onnx]'`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    available = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has its own exceptions, without a common base
        raise UserError(f"{flag}: cannot be loaded ({_first_line(error)})") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    image = _contract(path, flag, session.get_modelmeta().custom_metadata_map, inputs, outputs)
    source, target = inputs[0], outputs[0].name
    one_by_one = source.shape[0] == 1

    def encode(pixels: np.ndarray) -> np.ndarray:
        parts = [pixels[place : place + 1] for place in range(len(pixels))] if one_by_one else [pixels]
        return np.concatenate([np.asarray(session.run([target], {source.name: part})[0], np.float32) for part in parts])

    width = _try(encode, image, flag)
    about = {"model": str(path), "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return Encoder(encode, image, width, about, {"onnxruntime": onnxruntime.__version__})


def _contract(path: Path, flag: str, noted: dict[str, str], inputs: list[Any], outputs: list[Any]) -> ImageInput:
    """What the network takes.

    Raises:
        UserError: the file does not keep the contract.
    """

    def broken(what: str) -> UserError:
        return UserError(f"{flag}: {what}; the file needs {CONTRACT}")

    if len(inputs) != 1 or len(outputs) != 1:
        raise broken(f"has {len(inputs)} inputs and {len(outputs)} outputs")
    shape = inputs[0].shape
    if inputs[0].type != "tensor(float)" or len(shape) != 4 or shape[1] != 3:
        raise broken(f"its input is {inputs[0].type} {shape}")
    if outputs[0].type != "tensor(float)" or len(outputs[0].shape) not in (0, 2):
        raise broken(f"its output is {outputs[0].type} {outputs[0].shape}")
    beside = path.with_suffix(".json")
    try:
        known: dict[str, Any] = {key: json.loads(value) for key, value in noted.items() if key in ("mean", "std", "size")}
        if beside.is_file():
            known |= json.loads(beside.read_text(encoding="utf-8"))
        size = known.get("size")
        sides = size if isinstance(size, list) else [size, size]
        height, width = (side if isinstance(side, int) else given for side, given in zip(shape[2:], sides, strict=True))
        if not all(isinstance(side, int) and side > 0 for side in (height, width)):
            raise broken(f"its input {shape} leaves the size open, and no size is given")
        lacking = [name for name in ("mean", "std") if name not in known]
        if lacking:
            raise broken(f"has no {' and no '.join(lacking)}")
        return ImageInput(height, width, _three(known["mean"]), _three(known["std"]))
    except (ValueError, TypeError, AttributeError) as error:
        raise broken(f"its mean, std or size cannot be read ({_first_line(error)})") from error


def _try(encode: Callable[[np.ndarray], np.ndarray], image: ImageInput, flag: str) -> int:
    """The width of an encoder's output, from two black images.

    Raises:
        UserError: it fails on them, or its output is not [2, columns].
    """
    try:
        found = encode(image.pixels([np.zeros((image.height, image.width, 3), np.uint8)] * 2))
    except Exception as error:  # whatever a foreign network raises
        raise UserError(f"{flag}: fails on an image of {image.height} by {image.width} pixels ({_first_line(error)})") from error
    if found.ndim != 2 or len(found) != 2 or not found.shape[1]:
        raise UserError(f"{flag}: gives an output of shape {list(found.shape)} for two images; expected [2, columns]")
    return int(found.shape[1])


def _first_line(error: BaseException) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
