"""Registered layouts and features: what is checked, and what the pipeline makes of them; and preprocessing as a function."""

from pathlib import Path

import numpy as np
import pytest
from clip_factory import plain, tone, write_clip

import skesl_mug as sm
from preprocessing.extensions import AUDIO_FEATURES, LAYOUTS, VISION_FEATURES
from preprocessing.layouts import Clip, Corpus, find_corpus
from preprocessing.options import Options
from preprocessing.schema import DatasetInfo


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for registry in (LAYOUTS, AUDIO_FEATURES, VISION_FEATURES):
        monkeypatch.setattr(registry, "_found", dict(registry._found))
        monkeypatch.setattr(registry, "_lazy", set(registry._lazy))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name in ("a", "b"):
        write_clip(folder / f"{name}.mp4", tone(0.7), plain())
    (folder / "labels.csv").write_text("clip,label,transcript\na,1,so good\nb,-1,so bad\n")
    return folder


def preprocess(root: Path, output: Path, **options: object) -> DatasetInfo:
    return sm.preprocess("folder", str(root), output, asr={"model": "none"}, workers=1, **{"audio": "none", "vision": "none", **options})


def test_the_function_returns_the_description_and_reports_what_is_wrong(root: Path, tmp_path: Path) -> None:
    info = preprocess(root, tmp_path / "d")
    assert info.counts["kept"] == 2
    assert info.label_range == (-1.0, 1.0)
    assert [row.text for row in sm.read_dataset(tmp_path / "d")] == ["so good", "so bad"]
    assert preprocess(root, tmp_path / "d").counts == info.counts  # complete already
    for wrong, what in (
        ({"vission": "none"}, "--vission: unknown option; did you mean vision"),
        ({"faces": "ugliest"}, "--faces ugliest: choose from first, largest, speaking"),
        ({"audio": "nothing"}, "--audio nothing: unknown audio feature extractor; choose from librosa33, egemaps"),
        ({"seed": 2}, "--seed was 1, now 2"),
        ({"transcripts": "asr"}, "--transcripts asr ignores its transcripts"),
    ):
        with pytest.raises(sm.UserError, match=what):
            preprocess(root, tmp_path / "d", **wrong)
    with pytest.raises(sm.UserError, match=r"unknown corpus layout; choose from voxceleb1, .* --plugin MODULE"):
        Options(corpus="nobody", root=root, output="o")


def test_an_unfinished_folder_and_a_strangers_folder(root: Path, tmp_path: Path) -> None:
    """A job that fails before its first clip leaves options that may still change; --overwrite deletes nothing but datasets."""
    with pytest.raises(sm.UserError, match=r"none\.csv"):
        preprocess(root, tmp_path / "d", lexicon=str(tmp_path / "none.csv"))
    preprocess(root, tmp_path / "d")
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "data" / "mine.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(sm.UserError, match=r"is not empty \(data\)"):
            preprocess(root, other, overwrite=overwrite)
    assert (other / "data" / "mine.txt").is_file()


def test_a_class_is_created_once_per_process(root: Path, tmp_path: Path) -> None:
    created = []

    @sm.register_audio_features("counted", rate_hz=1.0, columns=["length"], sample_rate=8_000)
    class Counted:
        def __init__(self) -> None:
            created.append(self)

        def __call__(self, sound: np.ndarray) -> list[list[float]]:
            return [[len(sound) / 1000]]

    preprocess(root, tmp_path / "d", audio="counted")
    assert len(created) == 1
    data = sm.read_dataset(tmp_path / "d")
    assert [row.audio.tolist() for row in data] == [[[pytest.approx(5.6, abs=0.5)]]] * 2
    assert data.info.audio.columns == [{"name": "length", "unit": ""}]


def test_wrong_shapes_and_values_are_skips_that_name_the_extractor(root: Path, tmp_path: Path) -> None:
    sm.register_audio_features("flat", rate_hz=1.0, columns=["a"])(lambda sound: sound)
    sm.register_audio_features("endless", rate_hz=1.0, columns=["a"])(lambda sound: [[np.inf]])
    sm.register_vision_features("short", columns=["a", "b"])(lambda frames, times: np.zeros((1, 2)))
    for options, detail in (
        ({"audio": "flat"}, "flat returned an array of shape (11200,); expected [frames, 1]"),
        ({"audio": "endless"}, "endless returned values that are not finite"),
        ({"vision": "short"}, "short returned an array of shape (1, 2); expected [4, 2]"),
    ):
        output = tmp_path / next(iter(options.values()))
        with pytest.raises(sm.UserError, match="no clip could be used"):
            preprocess(root, output, **options)
        found = (output / "clips.csv").read_text().replace('"', "")
        assert "failed,ValueError: " in found
        assert detail.partition(" of shape")[0] in found
        assert detail.partition("expected")[2] in found


def test_frames_without_a_face(root: Path, tmp_path: Path) -> None:
    sm.register_vision_features("nobody", columns=["a"])(lambda frames, times: np.full((len(frames), 1), np.nan))
    assert preprocess(root, tmp_path / "d", vision="nobody").counts["kept_without_face"] == 2
    assert sm.read_dataset(tmp_path / "d")[0].vision is None


def test_layouts_are_checked(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text('{"name": "mine", "made": true, "label_range": [-3, 3]}')
    clips = [Clip(name, tmp_path / f"{name}.mp4", "s", "v") for name in ("b", "a")]
    sm.register_layout("mine")(lambda root: clips)
    corpus = find_corpus("mine", tmp_path)
    assert [clip.id for clip in corpus.clips] == ["a", "b"]
    assert corpus.info == {"name": "mine", "root": str(tmp_path), "synthetic": True, "layout": "mine"}
    assert corpus.label_range == (-3.0, 3.0)
    sm.register_layout("whole")(lambda root, labels: Corpus(clips, {"license": str(labels)}))
    assert find_corpus("whole", tmp_path, Path("x.csv")).info["license"] == "x.csv"
    for name, found, what in (
        ("twice", clips + clips, "two clips have the id a"),
        ("outside", [Clip("a", Path("/elsewhere/a.mp4"), "s", "v")], "is not below --root"),
        ("empty", [], "no video files in the empty layout"),
    ):
        sm.register_layout(name)(lambda root, found=found: found)
        with pytest.raises(sm.UserError, match=what):
            find_corpus(name, tmp_path)
    with pytest.raises(sm.UserError, match=r"--labels x\.csv: --corpus mine does not read such a file"):
        find_corpus("mine", tmp_path, Path("x.csv"))
    with pytest.raises(ValueError, match="already registered"):
        sm.register_layout("folder")(lambda root: [])
