"""The page itself: upload and player, transcript, timeline, the switch of modalities, and what there is to browse."""

import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.modalities import AUDIO, MODALITIES, TEXT, VISION
from finetune.prediction.outputs import about_model, write_files
from finetune.prediction.predictions import PredictedWord, RecordingPrediction, UtterancePrediction, in_words
from finetune.prediction.sentiment_model import SentimentModel
from finetune.web_page.view import chart, disagreements, headline, transcript
from preprocessing.long_media import Stretch
from preprocessing.media import MediaError, probe
from preprocessing.segments import SegmentLimits
from skesl_mug.errors import UserError

HERE = Path(__file__).parent
KEPT_SECONDS = 1800  # uploads and results older than this are deleted
SWEEP_SECONDS = 300
QUEUE = 8
MADE = "This model was trained on made data (synthetic clips): what it says of real people means nothing."
CONSENT = "Use it on people who agreed to it: the scores guess how raters would label an utterance, and measure nobody's feelings."
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self' blob: data:; frame-src 'self'"
)
"""The browser loads nothing from elsewhere, whatever a library's page asks for."""

Heard = tuple[str, float, list[Stretch]]
"""What is kept of a recording between two scorings: its name, its seconds, its utterances with their features."""


class OnlyFromHere:
    """ASGI middleware: every answer carries the policy that keeps the browser from loading anything from another host."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and add the header to its answer."""

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, answer)


class Page:
    """The handlers of the page around one model; one recording is worked on at a time (`page_of` queues the others)."""

    def __init__(self, model: SentimentModel, max_minutes: float, limits: SegmentLimits):
        self.model, self.max_minutes, self.limits = model, max_minutes, limits

    def hear(self, path: str | None, progress: Callable[..., Any]) -> Heard:
        """Read a recording's utterances.

        Raises:
            gr.Error: no file, one that cannot be read, or one that is too long.
        """
        if not path:
            raise gr.Error("Choose a video first.", print_exception=False)
        try:
            seconds, _ = probe(Path(path))
            if seconds > self.max_minutes * 60:
                raise gr.Error(
                    f"The recording lasts {seconds / 60:.1f} minutes; this page takes up to {self.max_minutes:g} (--max-minutes). "
                    "finetune/predict.py takes any length.",
                    print_exception=False,
                )
            stretches = []
            progress((0, round(seconds)), unit="s", desc="listening and looking")
            for stretch in self.model.read(path, limits=self.limits):
                stretches.append(stretch)
                progress((round(min(stretch.end, seconds)), round(seconds)), unit="s", desc="listening and looking")
        except (UserError, MediaError) as error:
            said = str(error).replace(str(path), Path(path).name)
            raise gr.Error(f"This file cannot be used: {said}", print_exception=False) from error
        return Path(path).name, seconds, stretches

    def score(self, heard: Heard, without: list[str]) -> RecordingPrediction:
        """Score what was heard, some modalities left out."""
        name, seconds, stretches = heard
        recording = self.model.recording(name, stretches, without)
        recording.seconds = seconds
        return recording

    def show(self, heard: Heard | None, kept: list[str]) -> tuple[str, str, str, str]:
        """Headline, chart, transcript and disagreements with the modalities that are kept."""
        if heard is None:
            return "", "", "", ""
        if not kept:
            raise gr.Error("Keep at least one of words, voice and face.", print_exception=False)
        without = [name for name in self.model.modalities if name not in kept]
        everything = self.score(heard, [])
        recording = self.score(heard, without) if without else everything
        before = everything if without else None
        return (
            headline(recording, self.notes),
            chart(recording, self.model.recipe.label_range, before),
            transcript(recording, before),
            disagreements(recording),
        )

    @property
    def notes(self) -> list[str]:
        """What the user has to know of the model."""
        return ([MADE] if self.model.recipe.made else []) + self.model.notes

    def files(self, heard: Heard) -> list[str]:
        """The recording's prediction as files to download."""
        folder = Path(tempfile.mkdtemp(dir=tempfile.gettempdir()))
        about = about_model(self.model.name, self.model.recipe, self.model.notes)
        return [str(path) for path in write_files(folder, Path(heard[0]).stem, self.score(heard, []), about)]


def page_of(model: SentimentModel, pages: dict[str, Path], max_minutes: float, limits: SegmentLimits) -> gr.Blocks:
    """The whole page."""
    page = Page(model, max_minutes, limits)
    kinds = [name for name in MODALITIES if name in model.modalities]
    shown_first, drawn_first = example(model.recipe.label_range, kinds)

    def run(path: str | None, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008 - gradio finds the bar by its default
        heard = page.hear(path, progress)
        return heard, *page.show(heard, kinds), gr.CheckboxGroup(value=kinds, interactive=True, visible=len(kinds) > 1), page.files(heard)

    with gr.Blocks(analytics_enabled=False, title="Multimodal sentiment", delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)) as blocks:
        gr.HTML(f'<div class="intro"><h1>How positive or negative, and why</h1><p>{CONSENT}</p></div>')
        with gr.Tab("A video"):
            heard = gr.State(None, time_to_live=KEPT_SECONDS)
            with gr.Row():
                with gr.Column(scale=4):
                    video = gr.Video(label="Video", sources=["upload"], elem_id="player", height=330, buttons=[])
                    go = gr.Button("Predict", variant="primary", elem_id="predict")
                    kept = gr.CheckboxGroup(
                        kinds,
                        value=kinds,
                        label="Scores rest on",
                        info="Take one away and see what changes",
                        interactive=False,
                        visible=len(kinds) > 1,
                    )
                    files = gr.File(label="Download: JSON, CSV, subtitles", file_count="multiple", interactive=False)
                with gr.Column(scale=7):
                    facts = gr.HTML(welcome(max_minutes, kinds), elem_id="facts")
                    said = gr.HTML(shown_first, elem_id="transcript")
            line = gr.HTML(drawn_first, elem_id="timeline")
            gr.Markdown("#### Moments where the modalities disagree", visible=len(kinds) > 1)
            apart = gr.HTML('<p class="gap">They will be listed here.</p>', elem_id="apart", visible=len(kinds) > 1)
            shown = [facts, line, said, apart]
            one: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
            go.click(run, video, [heard, *shown, kept, files], show_progress="full", show_progress_on=said, **one)
            kept.change(page.show, [heard, kept], shown, show_progress="hidden", **one)
        with gr.Tab("Data and run"):
            names = list(pages)
            chosen = gr.Radio(names, value=names[0] if names else None, label="Show", visible=len(names) > 1)
            frame = gr.HTML(framed(pages[names[0]] if names else None), elem_id="browsed")
            chosen.change(lambda name: framed(pages.get(name)), chosen, frame, show_progress="hidden", api_visibility="private")
    blocks.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    built: gr.Blocks = blocks
    return built


def launch(blocks: gr.Blocks, host: str, port: int, max_megabytes: int) -> str:
    """Serve the page until `blocks.close()`, in threads of its own; gives its address.

    Fonts and scripts are the page's own; nothing is loaded from elsewhere, and no file but uploads and results is handed out.
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
        app_kwargs={"middleware": [Middleware(OnlyFromHere)], "docs_url": None, "redoc_url": None},
    )
    return str(address)


def framed(path: Path | None) -> str:
    """A page inside a frame of its own, so that neither's style touches the other's; a script in it does not run."""
    if path is None:
        return '<p class="gap">Nothing to browse: the model lies in no run folder, and no --data was given.</p>'
    page = escape(path.read_text(encoding="utf-8"), quote=True)
    return f'<iframe class="browsed" sandbox="" title="{escape(path.name)}" srcdoc="{page}"></iframe>'


FIRST = (
    "Drop a video of somebody talking into the field on the left and press <b>Predict</b>. You get the transcript "
    "with a score for each utterance and the scores over time{disagree}. Up to {minutes:g} minutes "
    "a recording; nothing leaves this machine, and what you upload is deleted."
)
# start, end, words with their lexicon intensity, and the scores of text, audio, vision and all of them as shares of the label range
EXAMPLE = (
    (0.4, 3.2, (("The", None), ("food", None), ("was", None), ("wonderful.", 2.0)), (0.75, 0.35, 0.5, 0.6)),
    (3.8, 6.9, (("We", None), ("waited", None), ("an", None), ("hour", None), ("for", None), ("it.", None)), (-0.2, -0.4, -0.1, -0.35)),
    (7.5, 9.6, (("Great", 2.3), ("service,", None), ("really.", None)), (0.6, -0.55, -0.45, -0.3)),
)


def welcome(minutes: float, modalities: Sequence[str] = MODALITIES) -> str:
    """The first words of the page."""
    disagree = ", and where words, voice and face disagree" if len(modalities) > 1 else ", from the words alone"
    return f'<p class="welcome">{FIRST.format(minutes=minutes, disagree=disagree)}</p>'


def example(label_range: tuple[float, float], modalities: list[str]) -> tuple[str, str]:
    """A made-up prediction as transcript and chart, in the label range and with the modalities of the model."""
    recording = made_up(label_range, modalities)
    note = '<p class="gap">So it will look (an example made up by hand, no prediction of this model):</p>'
    return f'{note}<div class="example">{transcript(recording)}</div>', f'<div class="example">{chart(recording, label_range)}</div>'


def made_up(label_range: tuple[float, float], modalities: list[str]) -> RecordingPrediction:
    """The example as a prediction."""
    low, high = label_range
    rows = []
    for start, end, words, shares in EXAMPLE:
        scores = [(low + high) / 2 + share * (high - low) / 2 for share in shares]
        single = {name: scores[place] for place, name in enumerate(MODALITIES) if name in modalities}
        text, length = " ".join(word for word, _ in words), (end - start) / len(words)
        times = [start + place * length for place in range(len(words))]
        said = [PredictedWord(word, at, at + length, 0.9, value) for at, (word, value) in zip(times, words, strict=True)]
        rows.append(
            UtterancePrediction(
                "example", start, end, text, "en", scores[3], in_words(scores[3], label_range), single.get(TEXT), single.get(AUDIO),
                single.get(VISION), list(modalities), 1.0, label_range, said,
            )
        )  # fmt: skip
    return RecordingPrediction("example", 10.0, rows)
