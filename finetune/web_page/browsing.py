"""The second tab: a dataset's summary and a run's report, each a page of one file that is shown in a frame."""

from html import escape
from pathlib import Path

from pretrain.starter import starter_lm
from skesl_mug.errors import UserError

REPORT, SUMMARY, CARD = "report.html", "summary.html", "README.md"


def pages_of(model: str, data: list[Path]) -> dict[str, Path]:
    """What there is to browse, by its name in the list: the report of the model's run, the summaries of datasets.

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
            raise UserError(f"--data {folder}: has no {SUMMARY}; give the folder of an utterance dataset (preprocessing/run.py writes it)")
        pages[f"Summary of the dataset {folder.resolve().name}"] = folder / SUMMARY
    return pages


def framed(path: Path | None) -> str:
    """A page inside a frame of its own, so that neither's style touches the other's; a script in it does not run."""
    if path is None:
        return '<p class="gap">Nothing to browse: the model lies in no run folder, and no --data was given.</p>'
    page = escape(path.read_text(encoding="utf-8"), quote=True)
    return f'<iframe class="browsed" sandbox="" title="{escape(path.name)}" srcdoc="{page}"></iframe>'
