"""A web page for a fine-tuned model: `python finetune/web.py --model RUN` (extra `[web]`)."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import contextlib
import importlib.util
import os
import socket
import tempfile
import threading
from dataclasses import dataclass, field

from finetune.prediction.model_folder import check_model
from preprocessing.options import checked_track
from preprocessing.segments import SegmentLimits
from pretrain.starter import STARTER, starter_lm
from skesl_mug.console import CommandOptions, run_command, say_loading
from skesl_mug.errors import UserError

REPORT, SUMMARY = "report.html", "summary.html"
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(kw_only=True)
class Options(CommandOptions):
    """Serve a page for scoring videos: transcript with tinted words, scores over time, where words, voice and face disagree, and what
    changes without one of them. It also shows the run's report and the summaries of datasets.

    The page is available on this machine only unless --host is set. It sends nothing anywhere, and deletes uploads.
    """

    model: str = STARTER
    """A fine-tuning run, its model/ folder, or a model's hub name; `starter` uses words alone, as in predict."""
    data: list[Path] = field(default_factory=list)
    """Utterance datasets whose summaries to show."""
    host: str = "127.0.0.1"
    """Address to listen on. With 0.0.0.0, everyone on the network can use the page: there is no password."""
    port: int = 7860
    """Port to listen on."""
    max_megabytes: int = 500
    """Maximum size of an upload."""
    max_minutes: float = 20.0
    """Maximum length of a recording."""
    audio_track: str = "auto"
    """Sound track of files with several: auto (the first that has speech), its number from 1, or its language (en, eng)."""
    asr_model: str | None = None
    """Speech recognition model, instead of the one used for the training data (same values as --asr.model of preprocessing)."""
    device: str = "auto"
    """Where the network runs: auto, cpu, cuda."""

    def __post_init__(self) -> None:
        self.audio_track = checked_track(self.audio_track)
        if not 0 < self.port < 65536:
            raise UserError(f"--port {self.port}: choose a number from 1 to 65535")
        if self.max_megabytes < 1 or self.max_minutes <= 0:
            raise UserError("--max-megabytes, --max-minutes: must be above 0")


def main(options: Options) -> None:
    """Load the model and serve the page until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("this needs the extra `web`: pip install -e '.[web]'")
    pages = pages_of(options.model, options.data)
    check_model(options.model)
    check_port(options.host, options.port)
    say_loading("transformers")
    with tempfile.TemporaryDirectory(prefix="sentiment-page-") as folder:
        keep_to(Path(folder))
        from finetune.prediction.sentiment_model import SentimentModel
        from finetune.web_page.page_app import launch, page_of

        model = SentimentModel.from_pretrained(options.model, asr_model=options.asr_model, device=options.device, quiet=not options.debug)
        model.processor  # noqa: B018 - load the models now
        if options.host not in LOCAL:
            print(f"note: everyone who can reach {options.host} can use this page; there is no password")
        print(f"http://{'127.0.0.1' if options.host == '0.0.0.0' else options.host}:{options.port}  (Ctrl-C to stop)", flush=True)
        blocks = page_of(model, pages, options.max_minutes, SegmentLimits(), options.audio_track)
        try:
            with contextlib.suppress(KeyboardInterrupt):  # the normal way to stop
                launch(blocks, options.host, options.port, options.max_megabytes)
                threading.Event().wait()
            blocks.close(verbose=False)
        except OSError as error:
            raise UserError(f"--port {options.port}: cannot be used ({error}); choose another") from error


def pages_of(model: str, data: list[Path]) -> dict[str, Path]:
    """The pages to browse by title: the report of the model's run and the summaries of datasets.

    Raises:
        UserError: a dataset has no summary.
    """
    pages = {}
    run = Path(model)
    for folder in (run, run.parent) if starter_lm(model) is None else ():
        if (folder / REPORT).is_file():
            pages[f"Report of the run {folder.resolve().name}"] = folder / REPORT
            break
    for folder in data:
        if not (folder / SUMMARY).is_file():
            raise UserError(f"--data {folder}: has no {SUMMARY}; choose an utterance dataset written by `skesl-mug preprocess`")
        pages[f"Summary of the dataset {folder.resolve().name}"] = folder / SUMMARY
    return pages


def check_port(host: str, port: int) -> None:
    """Check that the port is free before the models are loaded.

    Raises:
        UserError: it is in use, or the host is not an address of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does, so that a page can be restarted at once
        try:
            trial.bind((host, port))
        except OSError as error:
            raise UserError(f"--port {port}: cannot be used on {host} ({error.strerror or error}); choose another") from error


def keep_to(folder: Path) -> None:
    """Make Gradio keep uploads and results in one folder and send no usage data; to be called before it is imported."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    tempfile.tempdir = str(folder)


if __name__ == "__main__":
    run_command(Options, main)
