"""What `finetune.compare` says of several runs: rows with mean, deviation and count, tests against the first, notes on what differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.published import PUBLISHED, SOURCE
from finetune.report.document import Cell
from finetune.report.run_folder import read_results
from finetune.report.tables import Column, columns_for, figures
from finetune.report.terminal import result_lines
from finetune.significance import difference_by_video, paired_over_seeds
from skesl_mug.errors import UserError
from skesl_mug.wording import signed

LEVEL = 0.05
MARK = "*"
FURTHER = ("seeds", "MAE − first")


@dataclass(frozen=True)
class Row:
    """One line of the table; `differs`: both tests tell it from the first run."""

    name: str
    figures: list[Cell]
    further: tuple[str, str]
    mean: float
    std: float
    differs: bool = False
    published: bool = False

    @property
    def cells(self) -> list[str]:
        """The whole line."""
        return [self.name, *(f"{cell.main} {cell.small}".strip() for cell in self.figures), *self.further]


@dataclass(frozen=True)
class Comparison:
    """The rows in the order of the runs, published ones last."""

    dataset: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str]

    def headings(self) -> list[str]:
        """The table's first line."""
        return ["run", *(heading for heading, _, _ in self.columns), *FURTHER]

    def dots(self) -> list[tuple[str, float, float]]:
        """Name, mean MAE and deviation of each run."""
        return [(row.name, row.mean, row.std) for row in self.rows if not row.published]

    def terminal(self) -> str:
        """The table for a screen."""
        return result_lines("run", self.columns, [(row.name, row.figures, row.further) for row in self.rows], FURTHER)

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.headings(), ["---"] * len(self.headings()), *(row.cells for row in self.rows)]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"{table}\n\n" + "\n".join(f"- {note}" for note in self.notes) + "\n"

    def latex(self) -> str:
        """The table for a paper (package booktabs)."""
        heads = [heading.replace("↓", r"$\downarrow$").replace("↑", r"$\uparrow$").replace("−", "$-$") for heading in self.headings()]
        lines = [r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}", r"\toprule", " & ".join(heads) + r" \\", r"\midrule"]
        for place, row in enumerate(self.rows):
            if row.published and not self.rows[place - 1].published:
                lines.append(r"\midrule")
            lines.append(" & ".join(_latex(cell) for cell in row.cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in self.notes)]) + "\n"


def _latex(cell: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("&", r"\&"), ("±", r"$\pm$"), ("−", "$-$"), ("–", "--")):
        cell = cell.replace(plain, escaped)
    return cell


def read_comparison(folders: Sequence[Path], names: Sequence[str], draws: int, published: bool) -> Comparison:
    """Read finished runs and compare each with the first.

    Raises:
        UserError: a folder holds no finished run, or the runs are of different datasets.
    """
    results = [_read_results(folder) for folder in folders]
    dataset = str(results[0]["dataset"])
    for folder, result in zip(folders, results, strict=True):
        if result["dataset"] != dataset:
            raise UserError(f"{folder}: is a run on {result['dataset']}, {folders[0]} one on {dataset}; their figures do not compare")
    shown = list(names) or [f"{name} ({result['headline']})" for name, result in zip(_telling_names(folders), results, strict=True)]
    columns = columns_for(results[0]["metrics"]["mean"])
    predictions = [_read_predictions(folder) for folder in folders]
    rows = [
        _row(name, result, columns, *_against_first(place, results, predictions, draws))
        for place, (name, result) in enumerate(zip(shown, results, strict=True))
    ]
    notes = [
        f"{dataset}, evaluated on {results[0]['evaluated_on']}; accuracy and F1 in percent; ± population standard deviation over seeds.",
        f"{MARK}: told from the first run by both tests, p < {LEVEL} paired over the seeds and a 95 % bootstrap interval over the videos "
        "that leaves 0 out. Without the mark nothing is said.",
        *_warnings(shown, results),
        *(
            f"Careful: {name} was scored on other utterances than the first run; their figures do not compare, no difference is given."
            for name, table in zip(shown[1:], predictions[1:], strict=True)
            if not _same_utterances(predictions[0], table)
        ),
    ]
    if published and dataset in PUBLISHED:
        rows += [_published_row(name, figures, columns) for name, figures in PUBLISHED[dataset].items()]
        notes.append(f"†: {SOURCE}; other features and other splits than the runs', no control of them.")
    return Comparison(dataset, columns, rows, notes)


def _telling_names(folders: Sequence[Path]) -> list[str]:
    """The folders' last names, with as many of the folders above them as it takes to tell one from another."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while depth < max(map(len, parts)) and len({path[-depth:] for path in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]


def _read_results(folder: Path) -> dict[str, Any]:
    results = read_results(folder)
    if not {"dataset", "evaluated_on", "seeds"} <= set(results):
        place = folder / "results.json"
        raise UserError(f"{place}: holds no results of finetune/run_mug.py; give its run folders (pretraining's cannot be compared)")
    return results


def _read_predictions(folder: Path) -> pd.DataFrame | None:
    path = folder / "predictions.csv"
    return pd.read_csv(path, dtype={"id": str, "video_id": str}) if path.is_file() else None


def _against_first(
    place: int, results: Sequence[dict[str, Any]], predictions: Sequence[pd.DataFrame | None], draws: int
) -> tuple[str, bool]:
    """The cell of a run's difference to the first in MAE, and whether both tests find one."""
    if place == 0:
        return "", False
    first, own = results[0], results[place]
    if not _same_utterances(predictions[0], predictions[place]):
        return "", False
    seeds = [seed for seed in own["seeds"] if seed in first["seeds"]]
    paired = paired_over_seeds(*([run["metrics"][str(seed)]["MAE"] for seed in seeds] for run in (own, first))) if seeds else None
    difference = own["metrics"]["mean"]["MAE"] - first["metrics"]["mean"]["MAE"]
    interval = difference_by_video(predictions[place], predictions[0], draws)
    text = signed(difference, 3)
    if interval is not None:
        text += f" [{signed(interval[0], 3)}, {signed(interval[1], 3)}]"
    if paired is not None:
        text += f", p {paired['p']:.3f}"
    differs = paired is not None and paired["p"] < LEVEL and interval is not None and (interval[0] > 0 or interval[1] < 0)
    return text + (f" {MARK}" if differs else ""), differs


def _same_utterances(first: pd.DataFrame | None, second: pd.DataFrame | None) -> bool:
    """Whether two runs were scored on the same utterances, as far as their files tell."""
    return first is None or second is None or set(first["id"]) == set(second["id"])


def _row(name: str, result: dict[str, Any], columns: Sequence[Column], difference: str, differs: bool) -> Row:
    metrics, seeds = result["metrics"], len(result["seeds"])
    cells = figures(metrics, columns, spread=seeds > 1)
    return Row(name, cells, (str(seeds), difference), float(metrics["mean"]["MAE"]), float(metrics["std"]["MAE"]), differs)


def _published_row(name: str, mean: dict[str, float], columns: Sequence[Column]) -> Row:
    return Row(f"{name} †", figures({"mean": mean}, columns), ("5", ""), mean["MAE"], 0.0, published=True)


def _warnings(names: Sequence[str], results: Sequence[dict[str, Any]]) -> list[str]:
    """What keeps runs from being compared as they stand."""
    first, notes = results[0], []
    for name, result in zip(names[1:], results[1:], strict=True):
        if result["evaluated_on"] != first["evaluated_on"]:
            notes.append(f"Careful: {name} was evaluated on {result['evaluated_on']}, the first run on {first['evaluated_on']}.")
        elif result["data_sha256"] != first["data_sha256"]:
            notes.append(f"Careful: {name} read other data than the first run (its SHA-256 differs).")
        if result["seeds"] != first["seeds"]:
            notes.append(f"Careful: {name} has other seeds than the first run.")
    if any(result["data"].get("made") for result in results):
        notes.append("Made data: (parts of) it were synthesised, not recorded.")
    return notes
