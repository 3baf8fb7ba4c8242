"""The web page: its HTML pieces, and the page in headless Chromium."""

import re
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_factory import voice, write_tracks
from synthetic_model import SENTENCES, make_clips, make_model, processor
from test_preprocessing_voices import padded

from finetune.prediction.predictions import PredictedWord, RecordingPrediction, SkippedStretch, UtterancePrediction
from finetune.web import Options, keep_to, main, pages_of
from finetune.web_page.page_app import example, framed, invented, welcome
from finetune.web_page.view import chart, disagreements, headline, tint, tinted_words, transcript
from preprocessing.segments import SegmentLimits
from skesl_mug.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = Path("/usr/bin/chromium")


def row(
    score: float = 1.2, text: str = "the <b>film</b> was awful", vision: float | None = -2.0, used: str = "text audio vision"
) -> UtterancePrediction:
    words = [PredictedWord("film", 0.4, 0.8, 0.9, None), PredictedWord("awful", 1.0, 1.4, 0.9, -2.0)]
    return UtterancePrediction(
        "x.mp4", 0.2, 2.0, text, "en", score, "slightly positive", 1.9, 0.1, vision, used.split(), 1.0, (-3.0, 3.0), words
    )


def test_words_are_tinted_and_text_is_escaped() -> None:
    html = tinted_words(row(), 3.0)
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert re.search(r'<mark data-seek="1.00" style="background:rgba\(195, 70, 45, 0.37\)"[^>]*>awful</mark>', html)
    assert '<span data-seek="0.40">film</span>' in html
    assert tint(3.0, 3.0) == "rgba(30, 140, 90, 0.55)"


def test_disagreement_and_change_are_shown() -> None:
    recording = RecordingPrediction("x.mp4", 4.0, [row()], [SkippedStretch(2.0, 4.0, "log_probability", "-1.3")])
    html = transcript(recording)
    assert "text is positive, vision negative" in html
    assert "no prediction (log probability: -1.3)" in html
    assert "changed" not in html
    fewer = RecordingPrediction("x.mp4", 4.0, [row(0.2, vision=None, used="text audio")])
    assert "−1.0 changed" in transcript(fewer, recording)
    later = replace(row(2.0), start=5.0, end=6.0)  # the first has no modality left: utterances are matched by time, not by position
    both = RecordingPrediction("x.mp4", 8.0, [row(), later])
    assert "−1.5 changed" in transcript(RecordingPrediction("x.mp4", 8.0, [replace(later, score=0.5, used=["text"])]), both)
    assert chart(RecordingPrediction("x.mp4", 8.0, [later]), (-3.0, 3.0), both).count('class="was"') == 1
    assert "0:00.2" in disagreements(recording)
    assert "There are none" in disagreements(fewer)
    assert "&lt;script&gt;" in headline(recording, ["trained on <script>"])
    assert "No speech was found" in transcript(RecordingPrediction("x.mp4", 4.0, []))
    svg = chart(recording, (-3.0, 3.0), recording)
    assert svg.count('class="was"') == 1
    assert svg.count("<circle") == 3
    assert 'class="was"' not in chart(fewer, (-3.0, 3.0))


def test_pages_to_browse(tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    for folder in (run / "model", data):
        folder.mkdir(parents=True)
    (run / "report.html").write_text('<p class="x">the "report"</p>')
    assert list(pages_of(str(run / "model"), [])) == ["Report of the run run"]
    with pytest.raises(UserError, match=r"has no summary\.html"):
        pages_of(str(run), [data])
    assert "&lt;p class=&#34;x&#34;&gt;" in framed(run / "report.html")
    assert "Nothing to browse" in framed(None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, dict[str, Path]]]:
    """The page's address on a tiny model, its temporary folder, and clips."""
    pytest.importorskip("gradio", reason="the extra `web` is not installed")
    pytest.importorskip("playwright", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no Chromium ({CHROMIUM})")
    base = tmp_path_factory.mktemp("page")
    run, clips = make_model(base), make_clips(base / "clips")
    (run / "report.html").write_text("<h1>A report</h1>")
    temporary = base / "tmp"
    temporary.mkdir()
    before = tempfile.gettempdir()
    keep_to(temporary)
    from finetune.prediction.sentiment_model import SentimentModel
    from finetune.web_page.page_app import launch, page_of

    model = SentimentModel.from_pretrained(run)
    model.__dict__["processor"] = processor()  # the real models once for all tests
    blocks = page_of(model, pages_of(str(run), []), 0.15, SegmentLimits())
    try:
        yield launch(blocks, "127.0.0.1", free_port(), 1).rstrip("/"), temporary, clips
    finally:
        blocks.close()
        tempfile.tempdir = before


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_visitor_uploads_a_clip_and_reads_its_scores(page: tuple[str, Path, dict[str, Path]], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    address, _, clips = page
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1300, "height": 1000})
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(address)
        tab.set_input_files("#player input[type=file]", clips["whole"])
        tab.wait_for_selector("#player video")
        tab.click("#predict")
        assert "Drop a video" in tab.locator(".welcome").inner_text()
        tab.wait_for_selector(".facts", timeout=120_000)  # the example has given way to the prediction
        assert tab.locator(".example").count() == 0
        assert tab.locator(".utterance").count() == 2
        assert "film" in tab.locator(".said").first.inner_text()
        before = tab.locator(".score").first.inner_text()
        assert re.fullmatch(r"[+−]?\d\.\d", before)
        assert tab.locator(".said mark", has_text="awful").count() == 1
        assert tab.locator("svg.chart polyline").count() == 3
        tab.locator("label", has_text="audio").locator("input").click()
        tab.wait_for_selector(".was", state="attached")
        assert tab.locator(".change").count() == 2
        assert "scores based on text and vision" in tab.locator(".facts").inner_text()
        tab.locator("svg.chart [data-seek]").nth(1).click()
        tab.wait_for_function("document.querySelector('#player video').currentTime > 1")
        tab.screenshot(path=str(tmp_path / "page.png"), full_page=True)
        assert (tmp_path / "page.png").stat().st_size > 20_000
        tab.get_by_role("tab", name="Data and run").click()
        assert tab.frame_locator("iframe.browsed").locator("h1").inner_text() == "A report"
        browser.close()
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()  # nothing from elsewhere


def test_a_call_with_a_speaker_per_channel(page: tuple[str, Path, dict[str, Path]], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    left, right = padded(voice(SENTENCES[0]), voice(SENTENCES[1]))
    call = write_tracks(tmp_path / "the call.wav", [np.stack([left, right])])
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page[0])
        tab.set_input_files("#player input[type=file]", call)
        tab.wait_for_selector("#player video")
        tab.get_by_label("a speaker per channel").check()
        tab.click("#predict")
        tab.wait_for_selector(".facts", timeout=120_000)
        assert sorted(tab.locator(".said .speaker").all_inner_texts()) == ["left", "right"]
        assert tab.locator("svg.chart").count() == 2
        tab.wait_for_function("document.querySelector('#player video').duration > 1")  # the sound plays
        browser.close()


def test_what_the_page_refuses(page: tuple[str, Path, dict[str, Path]]) -> None:
    from playwright.sync_api import sync_playwright

    address, temporary, clips = page
    for path in ("/etc/passwd", str(ROOT / "pyproject.toml"), str(clips["whole"])):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=10)
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(address)
        for name, told in (("broken", "This file cannot be used"), ("long", "this page accepts up to 0.15")):
            tab.set_input_files("#player input[type=file]", clips[name])
            tab.wait_for_selector("#player video", state="attached")
            tab.click("#predict")
            tab.get_by_text(told).wait_for(timeout=30_000)
            tab.reload()
        browser.close()
    assert [path.name for path in temporary.rglob("*.mp4")]  # uploads lie in the page's own folder, which goes with it


def test_the_command_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="the extra `web` is not installed")
    monkeypatch.setattr("tempfile.tempdir", tempfile.gettempdir())
    with pytest.raises(UserError, match="--port 0"):
        Options(model="x", port=0)
    with pytest.raises(UserError, match="no such run"):
        main(Options(model=str(tmp_path / "nothing")))


def test_before_an_upload_there_are_instructions_and_an_example() -> None:
    assert "Predict" in welcome(20)
    assert "Up to 20 minutes" in welcome(20)
    said, drawn = example((-1.0, 1.0), ["text", "audio"])
    assert "not a prediction of this model" in said
    assert 'class="apart"' in said  # words positive, voice negative
    assert "<svg" in drawn
    recording = invented((-1.0, 1.0), ["text", "audio"])
    assert all(abs(row.score) <= 1 and row.score_vision is None for row in recording.utterances)
