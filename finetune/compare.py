"""Several runs in one table and one picture: mean, spread, number of seeds, and whether they differ from the first."""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: import from the checkout, never from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from finetune.report.document import Cell
from finetune.report.run_results import read_results
from finetune.report.tables import Column, columns_for, figures, result_lines
from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError
from skesl_mug.wording import signed


@dataclass(kw_only=True)
class CompareOptions(CommandOptions):
    """Compare finished fine-tuning runs on one dataset with the first of them.

    Two runs differ significantly if both tests agree: a paired t-test over their common seeds (at least three), and a bootstrap of
    their difference over the videos of the evaluated split.

    Example: skesl-mug compare runs/mosi runs/mosi-no-pretraining --output comparison
    """

    runs: tyro.conf.Positional[list[Path]]
    """Folders of finished runs."""
    names: list[str] = field(default_factory=list)
    """Names of the runs, in the same order (default: folder names)."""
    output: Path = Path("comparison")
    """Folder for comparison.md, comparison.tex and comparison.png."""
    draws: int = 1000
    """Bootstrap samples."""
    published: bool = True
    """Include published results on the dataset, marked as such."""

    def __post_init__(self) -> None:
        """Validate the options."""
        if len(self.runs) < 2:
            raise UserError("RUN RUN …: at least two runs are needed")
        if self.names and len(self.names) != len(self.runs):
            raise UserError(f"--names: one name per run is needed ({len(self.runs)}), got {len(self.names)}")


def main(options: CompareOptions) -> None:
    """Read the runs, write the files, print the table."""
    from finetune.report.pictures import result_dots
    from skesl_mug.files import write_atomically

    comparison = read_comparison(options.runs, options.names, options.draws, options.published)
    files = {"comparison.md": comparison.markdown().encode(), "comparison.tex": comparison.latex().encode()}
    files["comparison.png"] = result_dots(comparison.dots())
    for name, content in files.items():
        write_atomically(options.output / name, partial(_write_bytes, content))
    print(comparison.terminal() + "\n\n" + "\n".join(comparison.notes))
    print("\nwritten: " + ", ".join(str(options.output / name) for name in files))


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


MARK = "*"
FURTHER = ("seeds", "MAE − first")


@dataclass(frozen=True)
class Row:
    """One row of the table; `differs`: both tests find a difference from the first run."""

    name: str
    figures: list[Cell]
    further: tuple[str, str]
    mean: float
    std: float
    differs: bool = False
    published: bool = False

    @property
    def cells(self) -> list[str]:
        """All cells of the row."""
        return [self.name, *(f"{cell.main} {cell.small}".strip() for cell in self.figures), *self.further]


@dataclass(frozen=True)
class Comparison:
    """The rows in the order of the runs, published results last."""

    dataset: str
    columns: list[Column]
    rows: list[Row]
    notes: list[str]

    def headings(self) -> list[str]:
        """The headings of the columns."""
        return ["run", *(heading for heading, _, _ in self.columns), *FURTHER]

    def dots(self) -> list[tuple[str, float, float]]:
        """Name, mean MAE and standard deviation of each run."""
        return [(row.name, row.mean, row.std) for row in self.rows if not row.published]

    def terminal(self) -> str:
        """The table for a terminal."""
        return result_lines("run", self.columns, [(row.name, row.figures, row.further) for row in self.rows], FURTHER)

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [self.headings(), ["---"] * len(self.headings()), *(row.cells for row in self.rows)]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"{table}\n\n" + "\n".join(f"- {note}" for note in self.notes) + "\n"

    def latex(self) -> str:
        """The table in LaTeX (package booktabs)."""
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
        UserError: a folder is not a finished run, or the runs are on different datasets.
    """
    from finetune.significance import FEWEST_SEEDS, POWER, SIGNIFICANCE

    results = [_read_results(folder) for folder in folders]
    dataset = str(results[0]["dataset"])
    for folder, result in zip(folders, results, strict=True):
        if result["dataset"] != dataset:
            raise UserError(f"{folder}: is a run on {result['dataset']}, but {folders[0]} is on {dataset}; choose runs on one dataset")
    shown = list(names) or [f"{name} ({result['headline']})" for name, result in zip(_distinct_names(folders), results, strict=True)]
    columns = columns_for(results[0]["metrics"]["mean"])
    predictions = [_read_predictions(folder) for folder in folders]
    rows = [
        _row(name, result, columns, *_against_first(place, results, predictions, draws))
        for place, (name, result) in enumerate(zip(shown, results, strict=True))
    ]
    notes = [
        f"{dataset}, evaluated on {results[0]['evaluated_on']}; accuracy and F1 in percent; ± population standard deviation over seeds.",
        f"{MARK}: differs from the first run in both tests: paired over seeds (p < {SIGNIFICANCE}), and a 95 % bootstrap interval over "
        "videos that excludes 0. Without the mark, no difference is established.",
        f"detectable: the smallest difference that the test over seeds would have found with {POWER:.0%} power, given the observed "
        f"deviation. With fewer than {FEWEST_SEEDS} common seeds, no difference can be shown.",
        *_warnings(shown, results),
        *(
            f"Warning: {name} was evaluated on other utterances than the first run, so no difference is given."
            for name, table in zip(shown[1:], predictions[1:], strict=True)
            if not _same_utterances(predictions[0], table)
        ),
    ]
    if published and dataset in PUBLISHED:
        rows += [_published_row(name, figures, columns) for name, figures in PUBLISHED[dataset].items()]
        notes.append(f"†: {SOURCE}; with other features and splits, so not a control for these runs.")
    return Comparison(dataset, columns, rows, notes)


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parent folders as it takes to make them distinct."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while depth < max(map(len, parts)) and len({path[-depth:] for path in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]


def _read_results(folder: Path) -> dict[str, Any]:
    results = read_results(folder)
    if not {"dataset", "evaluated_on", "seeds"} <= set(results):
        place = folder / "results.json"
        raise UserError(f"{place}: not written by fine-tuning; choose its runs (pretraining runs cannot be compared)")
    return results


def _read_predictions(folder: Path) -> pd.DataFrame | None:
    path = folder / "predictions.csv"
    return pd.read_csv(path, dtype={"id": str, "video_id": str}) if path.is_file() else None


def _against_first(
    place: int, results: Sequence[dict[str, Any]], predictions: Sequence[pd.DataFrame | None], draws: int
) -> tuple[str, bool]:
    """The cell with a run's difference in MAE from the first, and whether both tests find one."""
    from finetune.significance import SIGNIFICANCE, difference_by_video, paired_over_seeds

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
        if paired["p"] >= SIGNIFICANCE:
            text += f", detectable {paired['detectable']:.3f}"
    differs = paired is not None and paired["p"] < SIGNIFICANCE and interval is not None and (interval[0] > 0 or interval[1] < 0)
    return text + (f" {MARK}" if differs else ""), differs


def _same_utterances(first: pd.DataFrame | None, second: pd.DataFrame | None) -> bool:
    """Whether two runs were evaluated on the same utterances, as far as their files show."""
    return first is None or second is None or set(first["id"]) == set(second["id"])


def _row(name: str, result: dict[str, Any], columns: Sequence[Column], difference: str, differs: bool) -> Row:
    metrics, seeds = result["metrics"], len(result["seeds"])
    cells = figures(metrics, columns, spread=seeds > 1)
    return Row(name, cells, (str(seeds), difference), float(metrics["mean"]["MAE"]), float(metrics["std"]["MAE"]), differs)


def _published_row(name: str, mean: dict[str, float], columns: Sequence[Column]) -> Row:
    return Row(f"{name} †", figures({"mean": mean}, columns), ("5", ""), mean["MAE"], 0.0, published=True)


def _warnings(names: Sequence[str], results: Sequence[dict[str, Any]]) -> list[str]:
    """Reasons why runs are not directly comparable."""
    first, notes = results[0], []
    for name, result in zip(names[1:], results[1:], strict=True):
        if result["evaluated_on"] != first["evaluated_on"]:
            notes.append(f"Warning: {name} was evaluated on {result['evaluated_on']}, the first run on {first['evaluated_on']}.")
        elif result["data_sha256"] != first["data_sha256"]:
            notes.append(f"Warning: {name} used other data than the first run (its SHA-256 differs).")
        if result["seeds"] != first["seeds"]:
            notes.append(f"Warning: {name} has other seeds than the first run.")
    if any(result["data"].get("synthetic") or result["data"].get("made") for result in results):
        notes.append("Synthetic data: all or part of it was generated, not recorded.")
    return notes


SOURCE = "MMSA's published five-seed means, test split, BERT base"

PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "mosi": {
        "Self-MM (MMSA)": {
            "MAE": 0.708, "Corr": 0.796, "Has0_acc_2": 0.8344, "Non0_acc_2": 0.8546,
            "Has0_F1_score": 0.8336, "Non0_F1_score": 0.8543, "Mult_acc_5": 0.5347, "Mult_acc_7": 0.4667,
        }
    },
    "mosei": {
        "Self-MM (MMSA)": {
            "MAE": 0.531, "Corr": 0.765, "Has0_acc_2": 0.8376, "Non0_acc_2": 0.8515,
            "Has0_F1_score": 0.8382, "Non0_F1_score": 0.8490, "Mult_acc_5": 0.5553, "Mult_acc_7": 0.5387,
        }
    },
    "sims": {
        "Self-MM (MMSA, generated unimodal labels)": {
            "MAE": 0.425, "Corr": 0.595, "Mult_acc_2": 0.8004, "Mult_acc_3": 0.6547, "Mult_acc_5": 0.4153, "F1_score": 0.8044,
        },
        "MTFN (MMSA, human unimodal labels)": {
            "MAE": 0.395, "Corr": 0.666, "Mult_acc_2": 0.8109, "Mult_acc_3": 0.6880, "Mult_acc_5": 0.4031, "F1_score": 0.8101,
        },
        "MLF_DNN (MMSA, human unimodal labels)": {
            "MAE": 0.396, "Corr": 0.665, "Mult_acc_2": 0.8044, "Mult_acc_3": 0.6937, "Mult_acc_5": 0.4022, "F1_score": 0.8028,
        },
    },
}  # fmt: skip


if __name__ == "__main__":
    run_command(CompareOptions, main)
