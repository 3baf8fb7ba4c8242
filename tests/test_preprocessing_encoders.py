"""Image encoders on the aligned face: tiny random models of each architecture, ONNX files, and what is not an image encoder."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import transformers
from clip_factory import face, plain

from preprocessing.media import Media
from preprocessing.pipeline import PipelineSettings
from preprocessing.vision.crops import PLACES, ImageInput, crop, crop_matrix
from preprocessing.vision.encoders import load_onnx, load_transformers, open_hf, open_onnx
from preprocessing.vision.faces import FaceTracker
from skesl_mug.errors import UserError

LAYERS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
IMAGES = {**LAYERS, "image_size": 32, "patch_size": 16}
WORDS = {**LAYERS, "vocab_size": 50}
SOUNDS = {**LAYERS, "conv_dim": (8,), "conv_stride": (5,), "conv_kernel": (10,), "num_feat_extract_layers": 1}
SOUNDS |= {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
PROCESSOR = {"size": {"height": 32, "width": 32}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}
MODELS = {
    "ViTModel": {"config": IMAGES, "width": 16},
    "ViTForImageClassification": {"config": IMAGES, "width": 16},  # the usual form of face-expression networks: without a pooler
    "Dinov2Model": {"config": IMAGES, "width": 16},
    "BeitModel": {"config": IMAGES, "width": 16},
    "CLIPVisionModel": {"config": IMAGES, "width": 16},
    "CLIPModel": {"config": {"text_config": WORDS, "vision_config": IMAGES, "projection_dim": 8}, "width": 16},
    "SiglipModel": {"config": {"text_config": WORDS, "vision_config": IMAGES}, "width": 16},
    "ConvNextModel": {"config": {"depths": [1, 1], "hidden_sizes": [4, 8], "num_stages": 2}, "width": 8},
    "ResNetModel": {"config": {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}, "width": 8},
}


def save_model(folder: Path, name: str, config: dict, processor: dict | None = PROCESSOR) -> Path:
    torch.manual_seed(1)
    kind = getattr(transformers, name)
    kind(kind.config_class(**config)).save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def mesh():
    tracker = FaceTracker()
    yield tracker.meshes([face()])[0][0]
    tracker.close()


@pytest.mark.parametrize("name", MODELS)
def test_encoders_of_transformers(tmp_path, name):
    encoder = load_transformers(str(save_model(tmp_path / "model", name, MODELS[name]["config"])))
    assert encoder.width == MODELS[name]["width"]
    assert (encoder.image.height, encoder.image.width) == (32, 32)
    pixels = np.random.default_rng(1).normal(size=(3, 3, 32, 32)).astype(np.float32)
    together = encoder.encode(pixels)
    np.testing.assert_allclose(np.concatenate([encoder.encode(pixels[[place]]) for place in range(3)]), together, atol=1e-5)
    again = load_transformers(str(tmp_path / "model"))
    np.testing.assert_array_equal(again.encode(pixels), together)  # nothing is drawn at random: no untrained pooler
    assert again.settings == encoder.settings


def test_the_class_token_stands_for_an_untrained_pooler(tmp_path):
    encoder = load_transformers(str(save_model(tmp_path / "model", "ViTForImageClassification", IMAGES)))
    network = transformers.ViTForImageClassification.from_pretrained(tmp_path / "model").eval()
    pixels = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = network.vit(torch.from_numpy(pixels)).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(encoder.encode(pixels), expected, atol=1e-6)


def test_other_weights_are_recognised(tmp_path):
    first = load_transformers(str(save_model(tmp_path / "model", "ViTModel", IMAGES)))
    network = transformers.ViTModel.from_pretrained(tmp_path / "model")
    network.layernorm.weight.data[0] += 0.5
    network.save_pretrained(tmp_path / "model")
    assert load_transformers(str(tmp_path / "model")).settings["weights_sha256"] != first.settings["weights_sha256"]


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("Wav2Vec2Model", SOUNDS, r"is a wav2vec2 model, which takes sound, not images; --audio hf:.* takes it"),
        ("BertModel", WORDS, "is a bert model, which takes text, not images; use CLIP, ViT, DINOv2"),
        ("VideoMAEModel", {**IMAGES, "num_frames": 2}, "is a videomae model, which takes videos, not images"),
    ],
)
def test_encoders_of_something_else(tmp_path, name, config, message):
    folder = save_model(tmp_path / "model", name, config, None)
    with pytest.raises(UserError, match=rf"^--vision hf:{folder}: {message}"):
        load_transformers(str(folder))


def test_unusable_folders(tmp_path):
    with pytest.raises(UserError, match=r"^--vision hf:.*nowhere: there is no such folder"):
        load_transformers(str(tmp_path / "nowhere"))
    folder = save_model(tmp_path / "model", "ViTModel", IMAGES, None)
    with pytest.raises(UserError, match=r"has no preprocessor_config.json"):
        load_transformers(str(folder))
    (folder / "preprocessor_config.json").write_text('{"size": 32}')
    with pytest.raises(UserError, match=r"its preprocessor_config.json lacks size, image_mean or image_std \('image_mean'\)"):
        load_transformers(str(folder))
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, "size": 48}))
    with pytest.raises(UserError, match=r"fails on an image of 48 by 48 pixels"):
        load_transformers(str(folder))
    wider = save_model(tmp_path / "wider", "ViTModel", {**IMAGES, "num_hidden_layers": 2})
    (wider / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"the checkpoint lacks \d+ weights of ViTModel \(first: "):
        load_transformers(str(wider))


@pytest.mark.parametrize(
    ("entries", "sides"),
    [
        ({"size": 40}, (40, 40)),
        ({"size": {"shortest_edge": 40}}, (40, 40)),
        ({"size": {"height": 24, "width": 40}}, (24, 40)),
        ({"size": {"shortest_edge": 48}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}, (32, 32)),
        ({"size": [32, 40]}, (32, 40)),
    ],
)
def test_forms_of_the_image_size(tmp_path, entries, sides):
    from preprocessing.vision.encoders import read_processor

    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **entries}))
    found = read_processor(str(tmp_path), "--vision hf:x")
    assert (found.height, found.width) == sides
    assert found.mean == (0.5, 0.4, 0.3)


def test_pixels_are_those_of_the_models_own_processor(tmp_path):
    """At the model's size the library only rescales and normalises."""
    save_model(tmp_path, "ViTModel", IMAGES, {**PROCESSOR, "do_resize": True, "do_rescale": True, "do_normalize": True})
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    expected = ViTImageProcessorPil.from_pretrained(tmp_path)(picture, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(load_transformers(str(tmp_path)).image.pixels([picture]), expected, atol=1e-5)


def test_eyes_and_mouth_come_to_their_places(mesh):
    for shown in (mesh, mesh * 3.0 + 40.0, mesh @ np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]])):
        matrix = crop_matrix(shown, 100, 100)
        landmarks = np.stack([shown[[263, 362], :2].mean(0), shown[[33, 133], :2].mean(0), shown[[61, 291], :2].mean(0)])
        np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], PLACES * 100, atol=4.0)
        assert matrix[0, 0] == pytest.approx(matrix[1, 1])
        assert matrix[0, 1] == pytest.approx(-matrix[1, 0])


def test_the_crop_does_not_depend_on_place_size_or_tilt(mesh):
    straight = crop(face(), mesh, 64, 64).astype(float)
    turn = cv2.getRotationMatrix2D((128, 128), 25, 1.8) + np.array([[0, 0, 130], [0, 0, 110]])
    large = cv2.warpAffine(face(), turn, (512, 512))
    points = mesh.copy()
    points[:, :2] = mesh[:, :2] @ turn[:, :2].T + turn[:, 2]
    assert np.abs(crop(large, points, 64, 64) - straight).mean() < 4  # of 255
    assert crop(large, points, 48, 96).shape == (48, 96, 3)


def test_a_face_at_the_edge_of_the_picture_has_a_crop(mesh):
    outside = mesh - (150.0, 0.0, 0.0)
    shown = crop(face(), outside, 32, 32)
    assert shown.shape == (32, 32, 3)
    assert shown.dtype == np.uint8


def test_pixels():
    image = ImageInput(2, 2, (0.5, 0.0, 0.0), (0.5, 1.0, 2.0))
    found = image.pixels([np.full((2, 2, 3), 255, np.uint8)])
    assert found.shape == (1, 3, 2, 2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :, 0, 0], (1.0, 1.0, 0.5), rtol=1e-6)


def media(frames: list[np.ndarray]) -> Media:
    return Media(len(frames) / 6, None, 0, frames, [number / 6 for number in range(len(frames))])


def test_frames_of_a_clip(tmp_path):
    settings = PipelineSettings(whisper=None)
    extractor = open_hf(str(save_model(tmp_path / "model", "ViTModel", IMAGES)), settings)
    track = extractor.extract(None, media([face(), plain(), face()]))
    assert track.valid.tolist() == [True, False, True]
    assert track.values.shape == (3, 16)
    np.testing.assert_allclose(track.values[1], (track.values[0] + track.values[2]) / 2, atol=1e-5)
    assert extractor.extract(None, media([plain()])) is None
    assert extractor.info.extractor == f"hf:{tmp_path / 'model'}"
    assert extractor.info.width == 16
    assert extractor.info.settings["model_type"] == "vit"
    small = extractor.tracker.find([face()], [0.0])
    small.points *= 7.0 / small.eye_distance()[0]  # a face of 20 pixels
    assert np.isnan(extractor.values(small, [face()])).all()
    extractor.close()


def onnx_file(
    path: Path, shape: list = ("N", 3, 24, 24), nodes: list | None = None, outputs: tuple = ("y",), kind: int = 1, **noted
) -> Path:
    """A network whose output is the mean of each channel, [N, 3]."""
    helper = onnx.helper
    nodes = nodes or [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    made = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, list(shape))], made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    for key, value in noted.items():
        helper.set_model_props(model, {**{each.key: each.value for each in model.metadata_props}, key: json.dumps(value)})
    path.write_bytes(model.SerializeToString())
    return path


NORMAL = {"mean": [0.0, 0.0, 0.5], "std": [1.0, 0.5, 0.5]}


@pytest.mark.parametrize("shape", [["N", 3, 24, 24], ["N", 3, "H", "W"], [1, 3, 24, 24]])
@pytest.mark.parametrize("beside", [False, True])
def test_onnx(tmp_path, shape, beside):
    noted = {**NORMAL, "size": 24}
    path = onnx_file(tmp_path / "net.onnx", shape, **({} if beside else noted))
    if beside:
        (tmp_path / "net.json").write_text(json.dumps(noted))
    extractor = open_onnx(str(path), PipelineSettings(whisper=None))
    assert extractor.encoder.width == 3
    assert extractor.encoder.image == ImageInput(24, 24, (0.0, 0.0, 0.5), (1.0, 0.5, 0.5))
    white = extractor.encoder.image.pixels([np.full((24, 24, 3), 255, np.uint8)] * 2)
    np.testing.assert_allclose(extractor.encoder.encode(white), [[1, 2, 1]] * 2, rtol=1e-5)
    track = extractor.extract(None, media([face(), face()]))
    assert track.values.shape == (2, 3)
    extractor.close()


def node(kind: str, sources: list[str], target: str, **options) -> onnx.NodeProto:
    return onnx.helper.make_node(kind, sources, [target], **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (NORMAL | {"shape": ["N", 1, 24, 24]}, r"its input is tensor\(float\) \['N', 1, 24, 24\]"),
        (NORMAL | {"shape": ["N", 24, 24, 3]}, r"its input is tensor\(float\)"),
        (NORMAL | {"shape": ["N", 3, 24], "nodes": [node("Identity", ["x"], "y")]}, r"its input is tensor\(float\)"),
        (NORMAL | {"kind": 11}, r"its input is tensor\(double\)"),
        ({}, "has no mean and no std"),
        ({"mean": [0, 0, 0]}, "has no std"),
        (NORMAL | {"mean": [0, 0]}, r"its mean, std or size cannot be read \(2 channels instead of 3\)"),
        (NORMAL | {"shape": ["N", 3, "H", "W"]}, "leaves the size open, and no size is given"),
        (NORMAL | {"nodes": [node("Identity", ["x"], "y")]}, r"gives an output of shape \[2, 3, 24, 24\] for two images|its output is"),
        (NORMAL | {"nodes": [node("Identity", ["x"], "y"), node("Identity", ["x"], "z")], "outputs": ("y", "z")}, "1 inputs and 2 outputs"),
    ],
)
def test_onnx_files_that_break_the_contract(tmp_path, options, message):
    path = onnx_file(tmp_path / "net.onnx", **options)
    with pytest.raises(UserError, match=rf"^--vision onnx:{path}: .*({message})"):
        load_onnx(path)


def test_unreadable_onnx_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_onnx(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"words")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_onnx(tmp_path / "bad.onnx")
    path = onnx_file(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text("{")
    with pytest.raises(UserError, match="mean, std or size cannot be read"):
        load_onnx(path)
