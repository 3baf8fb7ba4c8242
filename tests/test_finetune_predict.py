"""Prediction on recordings: scores equal those of evaluation, used modalities are reported, and faults are one line."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from synthetic_model import make_clips, make_model, processor

from finetune.corpora import load_corpus
from finetune.finetuning import FinetuneResult
from finetune.model.minibatches import PreparedSplit
from finetune.predict import Options, find_recordings, main
from finetune.prediction.intervals import ScoreInterval
from finetune.prediction.model_folder import check_model, push_model
from finetune.prediction.outputs import as_json, as_webvtt, bar, minutes, signed, table, wrap
from finetune.prediction.predictions import RecordingPrediction, UtterancePrediction, in_words
from finetune.prediction.recipe import Recipe, check_features, read_clips, split_with, write_clips
from finetune.prediction.sentiment_model import SentimentModel
from finetune.run_mug import plugin_flag
from finetune.training import stages
from preprocessing.layouts import Clip
from preprocessing.schema import DatasetInfo, FeatureInfo, Utterance
from preprocessing.store import write_dataset
from pretrain.text_states import TextStateCache
from pretrain.tokens import tokenise
from skesl_mug.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def model(run: Path) -> SentimentModel:
    loaded = SentimentModel.from_pretrained(run)
    loaded.__dict__["processor"] = processor()  # the real models once for all tests
    return loaded


def test_a_clip_scores_as_fine_tuning_scores_it(model: SentimentModel, clips: dict[str, Path], tmp_path: Path) -> None:
    """Through the utterance dataset on disk, its reader, the cache of text states and the evaluation loop, and through `predict`."""
    kept = []
    for name in ("whole", "faceless"):
        row = processor().process(Clip(name, clips[name], "s", name, split="test", labels={"label": 1.0})).result
        assert isinstance(row, Utterance)
        kept += [row, *(replace(row, id=f"{name}{copy}", video_id=f"{name}{copy}", split="train", label=float(copy)) for copy in range(3))]
    described = processor().describe()
    info = DatasetInfo(corpus={"name": "x", "root": ""}, label_range=(-3.0, 3.0), audio=described["audio"], vision=described["vision"])
    write_dataset(tmp_path / "data", kept, info)
    split = load_corpus("custom", tmp_path / "data").splits["test"]
    assert split.ids == ["whole", "faceless"]
    tokens = tokenise(split.text, model.tokenizer, model.recipe.max_text_tokens)
    states = TextStateCache.build(model.network.encoder, tokens, tmp_path / "states", progress=False)
    prepared = PreparedSplit(split, tokens, states, True, torch.zeros(len(split)), model.tokenizer.pad_token_id)
    evaluated = {task: model.recipe.scale.decode(values) for task, values in stages.predict(model.network, prepared).items()}
    for place, name in enumerate(("whole", "faceless")):
        (mine,) = model.predict(clips[name], segments="whole")
        assert mine.score == pytest.approx(float(evaluated["fused"][place]), abs=1e-5)
        assert mine.score_text == pytest.approx(float(evaluated["text"][place]), abs=1e-5)
        assert mine.score_audio == pytest.approx(float(evaluated["audio"][place]), abs=1e-5)
        if name == "whole":
            assert mine.score_vision == pytest.approx(float(evaluated["vision"][place]), abs=1e-5)
    assert abs(float(evaluated["fused"][0] - evaluated["fused"][1])) > 1e-4  # the clips do differ


def test_pauses_give_utterances_with_words_and_intensities(model: SentimentModel, clips: dict[str, Path]) -> None:
    first, second = model.predict(clips["whole"])
    assert "film" in first.text
    assert "food" in second.text
    assert first.end <= second.start
    assert first.used == ["text", "audio", "vision"]
    awful = next(word for word in second.words if word.text == "awful")
    assert awful.intensity is not None
    assert awful.intensity < -1
    assert second.start <= awful.start < awful.end <= second.end
    assert first.sentiment == in_words(first.score, (-3.0, 3.0))


def test_with_context_an_utterance_is_read_after_the_one_before(
    model: SentimentModel, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stretches = list(model.read(clips["whole"]))
    plain = model.recording("x", stretches).utterances
    monkeypatch.setattr(model, "recipe", replace(model.recipe, context=2))
    first, second = model.recording("x", stretches).utterances
    assert first.score == pytest.approx(plain[0].score, abs=1e-5)
    assert abs(second.score - plain[1].score) > 1e-5
    assert abs(second.score_text - plain[1].score_text) > 1e-5
    assert second.score_audio == pytest.approx(plain[1].score_audio, abs=1e-5)
    without = model.recording("x", stretches, ["text"]).utterances  # nor are the words before it
    monkeypatch.setattr(model, "recipe", replace(model.recipe, context=0))
    assert [row.score for row in without] == [row.score for row in model.recording("x", stretches, ["text"]).utterances]


def test_intervals_are_given_for_utterances_with_every_modality(
    model: SentimentModel, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.predict(clips["faceless"])[0].low is None  # its recipe has no interval
    monkeypatch.setattr(model.recipe, "interval", ScoreInterval(0.8, 0.5, 100, 10))
    stretches = list(model.read(clips["whole"]))
    for row in model.recording("x", stretches).utterances:
        assert (row.low, row.high) == pytest.approx((row.score - 0.5, row.score + 0.5))
    assert {(row.low, row.high) for row in model.recording("x", stretches, ["audio"]).utterances} == {(None, None)}
    assert model.predict(clips["faceless"])[0].high is None
    assert model.predict_texts(["I really liked it."])[0].low is None


def test_several_recordings_are_predicted_in_one_call(model: SentimentModel, clips: dict[str, Path]) -> None:
    rows = model.predict([clips["whole"], str(clips["faceless"])])
    assert [row.source for row in rows] == ["whole.mp4", "whole.mp4", "faceless.mp4"]
    assert [(row.text, row.score) for row in rows[:2]] == [(row.text, row.score) for row in model.predict(clips["whole"])]


def test_a_prediction_says_which_modalities_it_used(model: SentimentModel, clips: dict[str, Path]) -> None:
    (faceless,) = model.predict(clips["faceless"])
    assert faceless.used == ["text", "audio"]
    assert faceless.score_vision is None
    (soundless,) = model.predict(clips["soundless"])
    assert soundless.used == ["vision"]
    assert soundless.text == ""
    assert model.predict(clips["soundless"], segments="whole")[0].used == ["vision"]
    read: list[tuple[float, float]] = []
    silent = model.predict_recording(clips["silent"], progress=lambda *seconds: read.append(seconds))
    assert silent.utterances == []
    assert silent.seconds == pytest.approx(1.5, abs=0.1)  # the length of the file, whatever is in it
    assert all(done <= length == silent.seconds for done, length in read)
    stretches = list(model.read(clips["whole"]))
    with_all, without = model.recording("x", stretches), model.recording("x", stretches, ["audio"])
    assert without.utterances[0].used == ["text", "vision"]
    assert without.utterances[0].score != with_all.utterances[0].score
    assert without.utterances[0].score_text == pytest.approx(with_all.utterances[0].score_text, abs=1e-5)
    with pytest.raises(UserError, match="--without sound"):
        model.recording("x", stretches, ["sound"])
    with pytest.raises(UserError, match="leaves no modality"):
        model.recording("x", stretches, ["text", "audio", "vision"])
    unseen = model.recording("x", list(model.read(clips["soundless"])), ["vision"])
    assert unseen.utterances == []
    assert [gap.reason for gap in unseen.skipped] == ["no_modality"]


def test_the_command_writes_the_files_it_lists(
    run: Path, clips: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.prediction.sentiment_model.ClipProcessor", lambda settings: processor())
    places = [clips[name] for name in ("whole", "broken", "silent")]
    main(Options(videos=places, model=str(run), output=tmp_path / "out"))
    shown = capsys.readouterr()
    assert "2 utterances" in shown.out
    assert "synthetic data" in shown.out
    assert "broken.mp4: cannot be used" in shown.err
    assert "1 of 3 recordings could not be read" in shown.err
    assert "no speech found" in shown.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{name}.{suffix}" for name in ("silent", "whole") for suffix in ("csv", "json", "png", "vtt")
    ]
    stored = json.loads((tmp_path / "out" / "whole.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "whole.csv").open()))
    assert [row["text"] for row in rows] == [row["text"] for row in stored["utterances"]]
    assert float(rows[0]["score"]) == pytest.approx(stored["utterances"][0]["score"])
    assert stored["trained_on_made_data"] is True
    vtt = (tmp_path / "out" / "whole.vtt").read_text()
    assert vtt.startswith("WEBVTT\n\n00:00:0")
    assert signed(stored["utterances"][0]["score"]) in vtt
    assert (tmp_path / "out" / "whole.png").stat().st_size > 5000
    with pytest.raises(UserError, match="none of 1 recording could be read"):
        main(Options(videos=[clips["broken"]], model=str(run)))


def test_models_that_cannot_be_used_are_refused(run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "model"
    shutil.copytree(run / "model", changed)
    recipe = json.loads((changed / "recipe.json").read_text())

    def with_recipe(**entries: object) -> SentimentModel:
        (changed / "recipe.json").write_text(json.dumps(recipe | entries))
        return SentimentModel.from_pretrained(changed)

    unknown = with_recipe(features=None)
    assert unknown.score_texts(["a fine day"]).shape == (1,)  # texts need no features
    with pytest.raises(UserError, match="does not record how its features were extracted"):
        unknown.processor  # noqa: B018
    other = json.loads(json.dumps(recipe["features"]))
    other["audio"]["columns"][0]["name"] = "loudness"
    loaded = with_recipe(features=other)
    with pytest.raises(UserError, match=r"other audio features .*with other names"):
        loaded.processor  # noqa: B018
    lost = json.loads(json.dumps(recipe["features"]))
    lost["asr"]["model"] = "/nowhere/whisper"
    loaded = with_recipe(features=lost)
    with pytest.raises(UserError, match="--asr-model"):
        loaded.processor  # noqa: B018
    (changed / "recipe.json").unlink()
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text('{"model_type": "skesl"}')
    with pytest.raises(UserError, match="is a pretrained encoder, not a fine-tuned model"):
        SentimentModel.from_pretrained(encoder)
    with pytest.raises(UserError, match=r"has no recipe\.json"):
        SentimentModel.from_pretrained(changed)
    with pytest.raises(UserError, match="no such run"):
        SentimentModel.from_pretrained(tmp_path / "nothing")
    with pytest.raises(UserError, match="neither a folder nor a model on the hub"):
        SentimentModel.from_pretrained("nobody/nothing-of-this-name")


def test_a_saved_model_predicts_the_same_and_has_no_local_paths(
    model: SentimentModel, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.recipe.features["asr"]["model"] = "/home/somebody/whisper-small"  # as a run with a local recogniser has it
    model.recipe.write(model.folder)
    try:
        saved = model.save_pretrained(tmp_path / "saved")
    finally:
        model.recipe.features["asr"]["model"] = "embedded"
        model.recipe.write(model.folder)
    assert {"config.json", "model.safetensors", "recipe.json", "README.md", "tokenizer.json"} <= {path.name for path in saved.iterdir()}
    for name in ("config.json", "recipe.json", "README.md"):
        text = (saved / name).read_text()
        assert "/home/" not in text
        assert str(tmp_path.parent) not in text
    again = SentimentModel.from_pretrained(saved, asr_model="embedded")
    stretches = list(model.read(clips["faceless"]))
    assert [row.score for row in again.recording("x", stretches).utterances] == [
        row.score for row in model.recording("x", stretches).utterances
    ]
    with pytest.raises(UserError, match="not an empty folder"):
        model.save_pretrained(saved)
    card = (saved / "README.md").read_text()
    for needed in ("Synthetic data", "seeds 1", "consent", "constant", "librosa33, 33 columns", "licence"):
        assert needed.lower() in card.lower(), needed
    pushed: dict[str, object] = {}

    class FakeHub:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
            pushed["name"], pushed["private"] = name, private
            return f"https://hub/{name}"

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            pushed["files"] = sorted(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    assert model.push_to_hub("somebody/sentiment") == "https://hub/somebody/sentiment"
    assert pushed["private"] is True
    assert "recipe.json" in pushed["files"]
    with pytest.raises(UserError, match="not a hub name"):
        push_model(saved, "sentiment")


@pytest.mark.parametrize(
    ("value", "label_range", "word"),
    [
        (0.4, (-3, 3), "neutral"),
        (-0.6, (-3, 3), "slightly negative"),
        (9.0, (-3, 3), "very positive"),
        (0.4, (-1, 1), "slightly positive"),
        (1.0, (1, 5), "very negative"),
    ],
)
def test_scores_in_words(value: float, label_range: tuple[float, float], word: str) -> None:
    assert in_words(value, label_range) == word


def test_the_table_fits_the_terminal(model: SentimentModel, clips: dict[str, Path]) -> None:
    recording = model.predict_recording(clips["whole"])
    for width in (60, 80, 160):
        for line in table(recording, width).splitlines():
            assert len(line) <= max(width, 84), line
    assert bar(3.0, (-3, 3)) == "······┃██████"
    assert bar(-1.5, (-3, 3)) == "···███┃······"
    assert minutes(3661.25) == "1:01:01.2"
    assert signed(-0.04) == "0.0"
    assert signed(-1.26) == "−1.3"
    assert wrap("这部电影非常好看", 8) == ["这部电影", "非常好看"]
    assert as_webvtt(recording).count("-->") == 2


def test_recordings_with_the_same_name_have_separate_results(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "b/x.mp4", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert [stem for _, stem in find_recordings([tmp_path])[0]] == ["a/x", "b/x"]
    assert [stem for _, stem in find_recordings([tmp_path / "a" / "x.mp4", tmp_path / "b" / "x.mp4"])[0]] == ["x", "x-2"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="contains no recordings"):
        find_recordings([tmp_path / "empty"])
    with pytest.raises(UserError, match="no such file"):
        find_recordings([tmp_path / "nothing.mp4"])


def test_every_recording_has_results_of_its_own(tmp_path: Path) -> None:
    """`d1/a.mp4 d2/a.mp4 a-2.mp4` gave `a-2` twice: one result was written over another."""
    places = [tmp_path / name for name in ("d1/a.mp4", "d2/a.mp4", "a-2.mp4", "d3/A.mp4", "d3/a.wav")]
    for path in places:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    named = dict(find_recordings(places)[0])
    assert len({stem.casefold() for stem in named.values()}) == len(places)
    assert named[tmp_path / "a-2.mp4"] == "a-2"
    assert named[tmp_path / "d1" / "a.mp4"] == "a"
    assert dict(find_recordings(places[::-1])[0]) == named  # whatever their order


def test_displayed_scores_are_clipped_and_stored_ones_are_not() -> None:
    row = UtterancePrediction(
        "v.mp4", 0.0, 2.0, "bad", "en", -3.4, in_words(-3.4, (-3.0, 3.0)), -3.2, None, None, ["text"], None, (-3.0, 3.0)
    )
    recording = RecordingPrediction("v.mp4", 2.0, [row], seen_in="train")
    assert "−3.0 very negative" in table(recording)
    assert "−3.4" not in table(recording) + as_webvtt(recording)
    assert as_json(recording)["utterances"][0]["score"] == -3.4
    assert as_json(recording)["seen_in"] == "train"
    assert "* in the model's train split" in table(recording)


def test_a_cue_without_words_has_no_empty_line() -> None:
    row = UtterancePrediction("v.mp4", 0.0, 2.0, "", "en", 1.0, in_words(1.0, (-3.0, 3.0)), None, None, 1.0, ["vision"], 1.0, (-3.0, 3.0))
    cue = as_webvtt(RecordingPrediction("v.mp4", 2.0, [row], seen_in=None)).split("\n\n")[1]
    assert len(cue.strip().splitlines()) == 2


def test_clips_of_the_models_own_corpus_are_recognised(tmp_path: Path) -> None:
    write_clips(tmp_path, {"train": ["id1/v/00001", "one"], "test": ["id1/v/00002"]})
    clips = read_clips(tmp_path)
    assert split_with(clips, Path("/any/where/id1/v/00001.mp4")) == "train"
    assert split_with(clips, Path("elsewhere/one.mp4")) == "train"
    assert split_with(clips, Path("/x/id1/v/00002.mp4")) == "test"
    assert split_with(clips, Path("/x/id2/v/00001.mp4")) is None  # the same file name of another speaker
    assert "id1" not in (tmp_path / "corpus_clips.json").read_text()
    assert read_clips(tmp_path / "none") == {}


def with_plugin_features(run: Path, folder: Path, **settings: str) -> Path:
    """A copy of a run whose audio features are those of a plugin."""
    copy = shutil.copytree(run, folder / "copy")
    recipe = Recipe.read(copy / "model")
    assert recipe.features is not None
    recipe.features["audio"] |= {"extractor": "tiny", "settings": {"plugin": "my_features.tiny", **settings}}
    recipe.write(copy / "model")
    return copy


def test_a_model_with_a_plugin_s_features_names_the_plugin(run: Path, tmp_path: Path) -> None:
    copy = with_plugin_features(run, tmp_path)
    message = r"registers the audio features tiny \(my_features\.tiny .*; add --plugin my_features, or `import my_features` in Python"
    with pytest.raises(UserError, match=message):
        check_model(str(copy))
    write_yaml(copy, {"plugin": ["a/mine.py"]})
    assert plugin_flag(FinetuneResult(copy)) == " --plugin a/mine.py my_features"
    write_yaml(copy, {"plugin": ["my_features"]})
    assert plugin_flag(FinetuneResult(copy)) == " --plugin my_features"
    write_yaml(run, {"plugin": []})
    assert plugin_flag(FinetuneResult(run)) == ""


def write_yaml(run: Path, options: dict[str, object]) -> None:
    (run / "config.yaml").write_text(json.dumps(options))


def test_an_edited_plugin_is_refused(run: Path, tmp_path: Path) -> None:
    trained = Recipe.read(with_plugin_features(run, tmp_path, source_sha256="a") / "model")
    info = trained.feature("audio")
    assert info is not None

    class Processor:
        def __init__(self, **settings: str):
            self.made = replace(info, settings={**info.settings, **settings})

        def audio_info(self) -> FeatureInfo:
            return self.made

        def vision_info(self) -> None:
            return None

        def describe(self) -> dict[str, None]:
            return {"asr": None}

    with pytest.raises(UserError, match=r"the plugin of the audio features tiny is not the one .* \(its code has changed\)"):
        check_features(trained, Processor(source_sha256="b"))
    assert check_features(trained, Processor(plugin="moved.tiny")) == []  # the same code in another module
    del info.settings["source_sha256"]
    trained.features["audio"]["settings"] = {"plugin": "__mp_main__.tiny"}
    assert check_features(trained, Processor(plugin="__main__.tiny")) == []
    with pytest.raises(UserError, match="is not the one"):
        check_features(trained, Processor(plugin="other.tiny"))
