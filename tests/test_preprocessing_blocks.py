"""Several blocks of face features at once: joined columns, one mesh, resuming, and prediction's recipe."""

import numpy as np
import pytest
from clip_factory import face, plain, tone, write_clip
from test_preprocessing_encoders import IMAGES, save_model
from test_preprocessing_openface import write_openface

from finetune.prediction.recipe import Recipe, check_features, pipeline_settings
from lexicons import UserError
from preprocessing.blocks import VisionBlocks, at_times, blocks_of
from preprocessing.extensions import VISION_FEATURES, block_names
from preprocessing.features import VisionTrack
from preprocessing.pipeline import ClipProcessor
from preprocessing.preprocess import preprocess as start
from preprocessing.run import Options
from preprocessing.schema import FeatureInfo
from preprocessing.store import UtteranceDataset, read_info


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    still = [face()] * 6 + [np.roll(face(), 8, axis=1)] * 6
    write_clip(folder / "talks.mp4", tone(1.0), still)
    write_clip(folder / "hides.mp4", tone(1.0), [face()] * 6 + [plain()] * 6)
    write_clip(folder / "empty.mp4", tone(1.0), plain())
    (folder / "labels.csv").write_text("clip,transcript\n" + "".join(f"{name}.mp4,a good film\n" for name in ("talks", "hides", "empty")))
    return folder


def preprocess(root, output, **options):
    return start("folder", root, output, **{"workers": 1, "audio": "none", "asr": {"model": "none"}, **options})


def rows_of(folder):
    return {row.id: row for row in UtteranceDataset(folder)}


def test_blocks_are_joined_side_by_side(root, tmp_path):
    model = save_model(tmp_path / "model", "ViTModel", IMAGES)
    names = ["mesh", "expression", f"hf:{model}"]
    info = preprocess(root, tmp_path / "joined", vision=names)
    assert info.vision.extractor == "+".join(names)
    assert info.vision.width == 38 + 87 + 16
    assert [(block.extractor, block.width) for block in blocks_of(info.vision)] == list(zip(names, (38, 87, 16), strict=True))
    assert info.vision.columns[38]["name"] == "expression/head_yaw"
    assert len({column["name"] for column in info.vision.columns}) == info.vision.width
    joined = rows_of(tmp_path / "joined")
    first = 0
    for name, width in zip(names, (38, 87, 16), strict=True):
        preprocess(root, tmp_path / str(width), vision=name)  # one name works too
        alone = rows_of(tmp_path / str(width))
        for clip in ("talks", "hides"):
            np.testing.assert_array_equal(joined[clip].vision[:, first : first + width], alone[clip].vision)
            assert joined[clip].vision_valid.tolist() == alone[clip].vision_valid.tolist()
        first += width
    assert joined["hides"].vision_valid.tolist() == [True] * 3 + [False] * 3
    assert joined["hides"].face_rate == pytest.approx(0.5)
    assert joined["empty"].vision is None
    assert joined["empty"].face_rate == 0.0


def test_another_choice_of_blocks_is_refused(root, tmp_path):
    preprocess(root, tmp_path / "data", vision=["mesh"])
    preprocess(root, tmp_path / "data", vision="mesh")  # resumes
    with pytest.raises(UserError, match=r"--vision was .*mesh.*, now .*expression"):
        preprocess(root, tmp_path / "data", vision=["mesh", "expression"])


def test_prediction_extracts_the_same_blocks(root, tmp_path):
    model = save_model(tmp_path / "model", "ViTModel", IMAGES)
    preprocess(root, tmp_path / "data", vision=["expression", f"hf:{model}"], vision_fps=4.0, faces="largest")
    info = read_info(tmp_path / "data").to_dict()
    features = {name: info[name] for name in ("audio", "vision", "asr", "lexicon")}
    recipe = Recipe("custom", (-3.0, 3.0), ["text", "vision"], [], "x", features=features)
    settings = pipeline_settings(recipe, None, None, True)
    assert settings.vision == ["expression", f"hf:{model}"]
    assert (settings.vision_fps, settings.faces) == (4.0, "largest")
    processor = ClipProcessor(settings)
    assert check_features(recipe, processor) == []
    processor.close()
    network = save_model(tmp_path / "model", "ViTModel", {**IMAGES, "hidden_size": 32})
    processor = ClipProcessor(settings)
    with pytest.raises(UserError, match=rf"hf:{network}: .*16 columns, here 32"):
        check_features(recipe, processor)
    processor.close()
    with pytest.raises(UserError, match="this model does not use OpenFace features"):
        pipeline_settings(recipe, None, "somewhere", True)


def test_names_of_blocks():
    assert block_names(["mesh", "expression"], VISION_FEATURES) == ["mesh", "expression"]
    assert block_names("none", VISION_FEATURES) == []
    for names, message in (
        (["mesh", "mesh"], "--vision mesh mesh: names the same features twice"),
        (["mesh", "none"], "--vision mesh none: none cannot be combined"),
        (["hf"], "--vision hf: needs an argument: hf:NAME_OR_DIR"),
        (["onnx:"], "--vision onnx:: needs an argument: onnx:FILE"),
        (["smile"], "--vision smile: unknown vision feature extractor; choose from mesh, mesh-au, expression, openface, hf:NAME_OR_DIR"),
    ):
        with pytest.raises(UserError, match=message):
            block_names(names, VISION_FEATURES)


def test_openface_beside_the_mesh(root, tmp_path):
    write_openface(tmp_path / "openface" / "talks.csv", seconds=1.0)
    write_openface(tmp_path / "openface" / "hides.csv", seconds=1.0, without=range(15))
    info = preprocess(root, tmp_path / "data", vision=["mesh", "openface"], openface=tmp_path / "openface")
    assert info.vision.width == 38 + 709
    assert info.counts["skipped"] == {"no_openface": 1}
    rows = rows_of(tmp_path / "data")
    assert rows["talks"].vision.shape == (6, 747)
    np.testing.assert_allclose(rows["talks"].vision[:, 38], rows["talks"].vision_times, atol=0.05)  # the time in the first column
    assert rows["hides"].vision is None  # the mesh sees the first half, OpenFace the second
    with pytest.raises(UserError, match=r"--openface .*: only applies to --vision openface"):
        Options(corpus="folder", root=root, output="x", vision=["mesh"], openface=tmp_path)


def test_times_of_another_track():
    track = VisionTrack(np.arange(4.0, dtype=np.float32)[:, None], np.arange(4, dtype=np.float32), np.array([True, True, False, False]))
    moved = at_times(track, np.array([0.25, 1.25, 2.0, 9.0], np.float32))
    np.testing.assert_allclose(moved.values[:, 0], [0.25, 1.25, 2.0, 3.0])
    assert moved.valid.tolist() == [True, True, False, False]
    assert at_times(track, track.times) is track


def test_a_frame_is_valid_where_all_blocks_see_the_face():
    class Fixed:
        needs_frames = False

        def __init__(self, valid):
            self.info = FeatureInfo(f"f{sum(valid)}", 1.0, [{"name": "a", "unit": ""}])
            self.track = VisionTrack(np.ones((3, 1), np.float32), np.arange(3, dtype=np.float32), np.array(valid, bool))

        def extract(self, clip, decoded):
            return self.track if self.track.valid.any() else None

    assert VisionBlocks([Fixed([1, 1, 0]), Fixed([0, 1, 1])]).extract(None, None).valid.tolist() == [False, True, False]
    assert VisionBlocks([Fixed([1, 0, 0]), Fixed([0, 1, 1])]).extract(None, None) is None
    assert VisionBlocks([Fixed([1, 1, 1]), Fixed([0, 0, 0])]).extract(None, None) is None
