"""The Gradio page: upload and player, transcript, chart, choice of modalities, and the browser of reports."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.prediction.intervals import ScoreInterval
from finetune.prediction.outputs import about_model, write_files
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, UtterancePrediction, in_words
from finetune.prediction.sentiment_model import SentimentModel
from finetune.web_page.view import chart, disagreements, headline, pieces, transcript
from preprocessing.layouts.files import RECORDING_SUFFIXES
from preprocessing.long_media import Stretch
from preprocessing.media import MediaError, probe
from preprocessing.options import AUTO, MIX, Channels
from preprocessing.segments import SegmentLimits
from preprocessing.timeline import Faults
from skesl_mug.errors import UserError

HERE = Path(__file__).parent
KEPT_SECONDS = 1800  # uploads and results older than this are deleted
SWEEP_SECONDS = 300
QUEUE = 8
SYNTHETIC = "This model was trained on synthetic data: its scores for real people mean nothing."
CONSENT = "Use it on people who agreed to it: the scores estimate how raters would label an utterance; they do not measure feelings."
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob: data:; frame-src 'self'"
)
"""Keeps the browser from loading anything from other hosts."""

Extracted = tuple[str, float, list[Stretch], list[str], Faults]
"""A recording between two scorings: its name, its length in seconds, its utterances with their features, notes, and its faults."""
SOUNDS: list[tuple[str, Channels]] = [("all channels", "mix"), ("a speaker per channel", "split"), ("left", "left"), ("right", "right")]


class SameHostOnly:
    """ASGI middleware that adds the content security policy to every response."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and add the header to its response."""

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, respond)


class Page:
    """The handlers of the page; recordings are processed one at a time (`page_of` queues them)."""

    def __init__(self, model: SentimentModel, max_minutes: float, limits: SegmentLimits, audio_track: str = AUTO):
        self.model, self.max_minutes, self.limits, self.track = model, max_minutes, limits, audio_track

    def read(self, path: str | None, progress: Callable[..., Any], channels: Channels = MIX) -> Extracted:
        """Extract the utterances of a recording.

        Raises:
            gr.Error: there is no file, it cannot be read, or it is too long.
        """
        if not path:
            raise gr.Error("Choose a video or sound file first.", print_exception=False)
        try:
            seconds, _ = probe(Path(path))
            if seconds > self.max_minutes * 60:
                raise gr.Error(
                    f"The recording is {seconds / 60:.1f} minutes long; this page accepts up to {self.max_minutes:g} (--max-minutes). "
                    "finetune/predict.py has no limit.",
                    print_exception=False,
                )
            stretches = []
            progress((0, round(seconds)), unit="s", desc="extracting features")
            for stretch in self.model.read(path, limits=self.limits, audio_track=self.track, channels=channels):
                stretches.append(stretch)
                seconds = max(seconds, stretch.end)  # a file that is being written grows
                progress((round(stretch.end), round(seconds)), unit="s", desc="extracting features")
        except (UserError, MediaError) as error:
            message = str(error).replace(str(path), Path(path).name)
            raise gr.Error(f"This file cannot be used: {message}", print_exception=False) from error
        return Path(path).name, seconds, stretches, self.model.recording_notes(path, self.track, channels), self.model.faults

    def score(self, extracted: Extracted, without: list[str]) -> RecordingPrediction:
        """Score a recording, with some modalities left out."""
        name, seconds, stretches, notes, faults = extracted
        recording = self.model.recording(name, stretches, without)
        recording.seconds, recording.notes, recording.faults = seconds, notes, faults
        return recording

    def show(self, extracted: Extracted | None, kept: list[str]) -> tuple[str, str, str, str]:
        """Headline, chart, transcript and disagreements for the selected modalities."""
        if extracted is None:
            return "", "", "", ""
        if not kept:
            raise gr.Error("Select at least one of text, audio and vision.", print_exception=False)
        without = [name for name in self.model.modalities if name not in kept]
        everything = self.score(extracted, [])
        recording = self.score(extracted, without) if without else everything
        before = everything if without else None
        return (
            headline(recording, self.notes, self.model.recipe.interval),
            chart(recording, self.model.recipe.label_range, before),
            transcript(recording, before),
            disagreements(recording),
        )

    @property
    def notes(self) -> list[str]:
        """Notes on the model for the user."""
        return ([SYNTHETIC] if self.model.recipe.synthetic else []) + self.model.notes

    def files(self, extracted: Extracted) -> list[str]:
        """The prediction as files to download."""
        folder = Path(tempfile.mkdtemp(dir=tempfile.gettempdir()))
        about = about_model(self.model.name, self.model.recipe, self.model.notes)
        return [str(path) for path in write_files(folder, Path(extracted[0]).stem, self.score(extracted, []), about)]


def page_of(model: SentimentModel, pages: dict[str, Path], max_minutes: float, limits: SegmentLimits, audio_track: str = AUTO) -> gr.Blocks:
    """The page."""
    page = Page(model, max_minutes, limits, audio_track)
    kinds = [name for name in MODALITIES if name in model.modalities]
    first_transcript, first_chart = example(model.recipe.label_range, kinds, model.recipe.interval)

    def run(path: str | None, channels: Channels, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008 - Gradio requires this default
        extracted = page.read(path, progress, channels)
        return (
            extracted,
            *page.show(extracted, kinds),
            gr.CheckboxGroup(value=kinds, interactive=True, visible=len(kinds) > 1),
            page.files(extracted),
        )

    with gr.Blocks(analytics_enabled=False, title="Multimodal sentiment", delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)) as blocks:
        gr.HTML(str(pieces().intro(CONSENT)))
        with gr.Tab("A recording"):
            extracted = gr.State(None, time_to_live=KEPT_SECONDS)
            with gr.Row():
                with gr.Column(scale=4):
                    with gr.Column(elem_id="player"):
                        upload = gr.File(label="Video or sound", file_types=sorted(RECORDING_SUFFIXES), height=150, elem_id="upload")
                        player = gr.HTML("")
                    sound = gr.Radio(SOUNDS, value=MIX, label="Sound", info="Calls may have one person per channel", elem_id="sound")
                    go = gr.Button("Predict", variant="primary", elem_id="predict")
                    kept = gr.CheckboxGroup(
                        kinds,
                        value=kinds,
                        label="Modalities",
                        info="Deselect one to see what changes",
                        interactive=False,
                        visible=len(kinds) > 1,
                    )
                    files = gr.File(label="Download: JSON, CSV, subtitles", file_count="multiple", interactive=False)
                with gr.Column(scale=7):
                    facts = gr.HTML(welcome(max_minutes, kinds), elem_id="facts")
                    text = gr.HTML(first_transcript, elem_id="transcript")
            timeline = gr.HTML(first_chart, elem_id="timeline")
            gr.Markdown("#### Where the modalities disagree", visible=len(kinds) > 1)
            moments = gr.HTML('<p class="gap">Moments will be listed here.</p>', elem_id="apart", visible=len(kinds) > 1)
            shown = [facts, timeline, text, moments]
            one: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
            go.click(run, [upload, sound], [extracted, *shown, kept, files], show_progress="full", show_progress_on=text, **one)
            upload.change(player_of, upload, player, show_progress="hidden", api_visibility="private")
            kept.change(page.show, [extracted, kept], shown, show_progress="hidden", **one)
        with gr.Tab("Data and run"):
            names = list(pages)
            chosen = gr.Radio(names, value=names[0] if names else None, label="Show", visible=len(names) > 1)
            frame = gr.HTML(framed(pages[names[0]] if names else None), elem_id="browsed")
            chosen.change(lambda name: framed(pages.get(name)), chosen, frame, show_progress="hidden", api_visibility="private")
    blocks.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    built: gr.Blocks = blocks
    return built


def launch(blocks: gr.Blocks, host: str, port: int, max_megabytes: int) -> str:
    """Serve the page in background threads until `blocks.close()`; returns its address.

    Fonts and scripts are local, and only uploads and results are served as files.
    """
    plain = ["system-ui", "DejaVu Sans", "sans-serif"]
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        inbrowser=False,
        show_error=True,
        max_file_size=f"{max_megabytes}mb",
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        run_history=False,
        theme=gr.themes.Base(font=plain, font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"], primary_hue="emerald"),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        app_kwargs={"middleware": [Middleware(SameHostOnly)], "docs_url": None, "redoc_url": None},
    )
    return str(address)


def player_of(path: str | None) -> str:
    """A player of an uploaded video or sound file."""
    return str(pieces().player(f"gradio_api/file={quote(path)}")) if path else ""


def framed(path: Path | None) -> str:
    """A page in a frame of its own: its style stays inside, and its scripts do not run."""
    return str(pieces().framed(path.name if path else "", path.read_text(encoding="utf-8") if path else ""))


# start, end, words with their lexicon intensity, and the scores of text, audio, vision and all of them as shares of the label range
EXAMPLE = (
    (0.4, 3.2, (("The", None), ("food", None), ("was", None), ("wonderful.", 2.0)), (0.75, 0.35, 0.5, 0.6)),
    (3.8, 6.9, (("We", None), ("waited", None), ("an", None), ("hour", None), ("for", None), ("it.", None)), (-0.2, -0.4, -0.1, -0.35)),
    (7.5, 9.6, (("Great", 2.3), ("service,", None), ("really.", None)), (0.6, -0.55, -0.45, -0.3)),
)


def welcome(max_minutes: float, modalities: Sequence[str] = MODALITIES) -> str:
    """The instructions shown before the first upload."""
    return str(pieces().welcome(max_minutes, len(modalities) > 1))


def example(label_range: tuple[float, float], modalities: list[str], interval: ScoreInterval | None = None) -> tuple[str, str]:
    """An invented prediction as transcript and chart, in the label range and with the modalities of the model."""
    recording = invented(label_range, modalities, interval)
    caption = "The result will look like this (an invented example, not a prediction of this model):"
    return str(pieces().example(transcript(recording), caption)), str(pieces().example(chart(recording, label_range), ""))


def invented(label_range: tuple[float, float], modalities: list[str], interval: ScoreInterval | None = None) -> RecordingPrediction:
    """The example as a prediction, with the intervals of the model."""
    low, high = label_range
    rows = []
    for start, end, words, shares in EXAMPLE:
        scores = [(low + high) / 2 + share * (high - low) / 2 for share in shares]
        single = {name: scores[place] for place, name in enumerate(MODALITIES) if name in modalities}
        text, length = " ".join(word for word, _ in words), (end - start) / len(words)
        times = [start + place * length for place in range(len(words))]
        between = interval.around(scores[3], label_range) if interval is not None else (None, None)
        predicted = [PredictedWord(word, at, at + length, 0.9, value) for at, (word, value) in zip(times, words, strict=True)]
        rows.append(
            UtterancePrediction(
                start=start,
                end=end,
                text=text,
                score=scores[3],
                sentiment=in_words(scores[3], label_range),
                score_text=single.get(TEXT),
                score_audio=single.get(AUDIO),
                score_vision=single.get(VISION),
                used=list(modalities),
                label_range=label_range,
                words=predicted,
                low=between[0],
                high=between[1],
            )
        )
    return RecordingPrediction("example", 10.0, rows)
