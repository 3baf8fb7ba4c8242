"""The report of a study: study.json, study.md, study.html and its figures."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from finetune.metrics import mean_and_std
from finetune.report.document import PICTURES, Banner, Block, Cell, Document, Figure, Paragraph, Section, Table, to_html, to_markdown
from finetune.report.pictures import COLOURS, OTHERS, QUIET, STYLE, panels, png, result_dots
from finetune.report.tables import columns_for, figures, pairs_table
from finetune.significance import FEWEST_SEEDS, paired_over_seeds
from finetune.studies.study import Difference, Outcome, Row, Study, StudyResults, maes, mean_std
from skesl_mug.files import write_atomically, write_json

SYNTHETIC = "Synthetic data: at least part of it was generated, not recorded; the figures say nothing about real people."
LINES = (COLOURS["text"], COLOURS["audio"], COLOURS["vision"], COLOURS["fused"], *OTHERS)
Points = Sequence[tuple[float, float, float]]
"""(x, mean, standard deviation)."""


def write_study(name: str, study: Study, results: StudyResults, outcome: Outcome, command: str) -> Path:
    """Write the report; returns the path of study.html."""
    folder = results.options.output
    figure = outcome.figure or mae_figure(name, outcome.rows)
    document = document_of(study, results, outcome, figure, command)
    write_atomically(folder / PICTURES / f"{figure.name}.png", lambda path: path.write_bytes(figure.png))
    write_atomically(folder / "study.md", lambda path: path.write_text(to_markdown(document), encoding="utf-8"))
    write_atomically(folder / "study.html", lambda path: path.write_text(to_html(document), encoding="utf-8"))
    write_json(folder / "study.json", numbers_of(name, results, outcome, command))
    return folder / "study.html"


def document_of(study: Study, results: StudyResults, outcome: Outcome, figure: Figure, command: str) -> Document:
    """The report: findings first, then table, figure and method."""
    options, corpus = results.options, results.corpus
    evaluated = len(corpus.splits[corpus.evaluated_on])
    data = f"{options.dataset}, {len(corpus.splits['train'])} training utterances, evaluated on {evaluated} of {corpus.evaluated_on}"
    opening: list[Block] = [Banner(SYNTHETIC)] if corpus.synthetic else []
    opening += [Paragraph(f"**Shows.** {outcome.shows}", "lead"), Paragraph(f"**Does not show.** {outcome.not_shown}", "lead")]
    if power := power_in_words(results, outcome):
        opening.append(Paragraph(power, "quiet"))
    blocks: list[Block] = [result_table(results, outcome), figure]
    for title, table in outcome.tables:
        blocks += [Paragraph(f"**{title}**"), table]
    method = pairs_table(
        [("Question", study.question), ("Data", data), ("Seeds", ", ".join(map(str, options.seeds))), ("Command", command)]
    )
    sections = [Section("Result", blocks)]
    if method is not None:
        note: list[Block] = [Paragraph(corpus.evaluated_on_note, "quiet")] if corpus.evaluated_on_note else []
        sections.append(Section("Method", [method, *note]))
    return Document(options.title or study.title, data, opening, sections)


def result_table(results: StudyResults, outcome: Outcome) -> Table:
    """Mean ± std of every metric, and the MAE difference to the first row."""
    baseline, seeds = outcome.rows[0], len(results.options.seeds)
    summaries = [mean_and_std(row.scores) for row in outcome.rows]
    columns = columns_for(summaries[0]["mean"])
    several = seeds > 1
    rows = []
    for row, summary in zip(outcome.rows, summaries, strict=True):
        found = results.difference(row.scores, baseline.scores)
        delta = Cell("") if row is baseline else Cell(str(found), _verdict(found))
        rows.append([Cell(row.name, row.remark), *map(Cell, row.cells), *figures(summary, columns, several), delta])
    note = "Accuracy and F1 in percent. " + (f"± is the population standard deviation over {seeds} seeds. " if several else "")
    note += f"Δ MAE: difference to the first row; margin (set in advance): {results.margin:.3f}; "
    note += (
        "p: paired t-test over seeds; detectable: the smallest difference that it finds with 80 % power, given the observed deviation."
        if seeds >= FEWEST_SEEDS
        else f"with fewer than {FEWEST_SEEDS} seeds no difference can be shown."
    )
    headers = ["", *outcome.columns, *(heading for heading, _, _ in columns), "Δ MAE"]
    return Table(headers, rows, f"{note} {outcome.note}".strip(), frozenset({0}))


def _verdict(found: Difference) -> str:
    return "differs" if found.clear else "within the margin" if abs(found.value) < found.margin else "unclear"


def power_in_words(results: StudyResults, outcome: Outcome) -> str:
    """How small a difference to the first row the tests could have shown."""
    seeds, (baseline, *others) = len(results.options.seeds), outcome.rows
    if seeds < FEWEST_SEEDS:
        few = {1: "one seed", 2: "two seeds"}[seeds]
        return f"With {few}, no difference could have been shown: the paired test needs {FEWEST_SEEDS} seeds or more."
    found = [found.detectable for row in others if (found := results.difference(row.scores, baseline.scores)).detectable is not None]
    if not found:
        return ""
    low, high = f"{min(found):.3f}", f"{max(found):.3f}"
    limits = low if low == high else f"{low} to {high}, depending on the row"
    return f"Differences to the first row that the paired tests could have shown with 80 % power: {limits}. Smaller ones may exist."


def numbers_of(name: str, results: StudyResults, outcome: Outcome, command: str) -> dict[str, Any]:
    """The content of study.json."""
    options, corpus = results.options, results.corpus
    rows = [
        {
            "name": row.name,
            **dict(zip(outcome.columns, row.cells, strict=True)),
            **{str(seed): scores for seed, scores in zip(options.seeds, row.scores, strict=True)},
            **mean_and_std(row.scores),
            **({} if row is outcome.rows[0] else {"paired": paired_over_seeds(maes(row.scores), maes(outcome.rows[0].scores))}),
        }
        for row in outcome.rows
    ]
    return {
        "study": name,
        "dataset": options.dataset,
        "evaluated_on": corpus.evaluated_on,
        "data": corpus.describe(),
        "data_sha256": corpus.sha256,
        "seeds": options.seeds,
        "margin": results.margin,
        "shows": outcome.shows,
        "does_not_show": outcome.not_shown,
        "power": power_in_words(results, outcome),
        "rows": rows,
        "facts": outcome.facts,
        "command": command,
    }


def mae_figure(
    name: str, rows: Sequence[Row], caption: str = "MAE of each row; bars are ± one standard deviation over the seeds."
) -> Figure:
    """The MAE of the rows as dots."""
    return Figure(name, result_dots([(row.name, *mean_std(row.scores)) for row in rows]), caption)


def curves(series: Mapping[str, Points], x_label: str, y_label: str, log: bool = False) -> bytes:
    """One line per series with a band of ± one standard deviation, as PNG."""
    return curve_panels({"": series}, x_label, y_label, log)


def curve_panels(parts: Mapping[str, Mapping[str, Points]], x_label: str, y_label: str, log: bool = False) -> bytes:
    """`curves` side by side on one scale; a series has the same colour in all panels."""
    names = list(dict.fromkeys(name for series in parts.values() for name in series))
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, len(parts), 7.6, 3.3, sharey=True)
        for place, (title, series) in enumerate(parts.items()):
            axis: Axes = axes[0, place]
            for name, points in series.items():
                colour = LINES[names.index(name) % len(LINES)]
                x, mean, std = (np.array(column) for column in zip(*sorted(points), strict=True))
                axis.plot(x, mean, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name)
                axis.fill_between(x, mean - std, mean + std, color=colour, alpha=0.13, linewidth=0)
            if log:
                axis.set_xscale("log")
                axis.set_xticks(sorted({x for points in series.values() for x, _, _ in points}))
                axis.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
                axis.minorticks_off()
            axis.set_title(title)
            axis.set_xlabel(x_label)
        axes[0, 0].set_ylabel(y_label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        return png(figure)


def scatter(groups: Mapping[str, Sequence[tuple[str, float, float, float]]], x_label: str, y_label: str, joined: Collection[str]) -> bytes:
    """Named points (name, x, mean, standard deviation) in groups; a pale line joins the points of the `joined` groups."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, 7.6, 4.0)
        axis: Axes = axes[0, 0]
        for place, (group, points) in enumerate(groups.items()):
            colour = LINES[place % len(LINES)]
            x, mean, std = ([point[column] for point in points] for column in (1, 2, 3))
            if group in joined:
                axis.plot(x, mean, color=colour, linewidth=1, alpha=0.35)
            axis.errorbar(x, mean, yerr=std, fmt="o", color=colour, markersize=5, elinewidth=1, capsize=0, label=group)
            for name, x_at, y_at, _ in points:
                axis.annotate(name, (x_at, y_at), xytext=(5, 4), textcoords="offset points", fontsize=7.5, color=QUIET)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.legend()
        return png(figure)


def stacked_bars(bars: Mapping[str, Mapping[str, float]], x_label: str) -> bytes:
    """Horizontal stacked bars, from top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, 7.6, 1.2 + 0.45 * len(bars))
        axis: Axes = axes[0, 0]
        left = np.zeros(len(bars))
        for place, part in enumerate(next(iter(bars.values()))):
            widths = np.array([bar[part] for bar in bars.values()])
            axis.barh(list(bars), widths, left=left, color=LINES[place % len(LINES)], height=0.6, label=part)
            left += widths
        axis.invert_yaxis()
        axis.grid(axis="y", visible=False)
        axis.set_xlabel(x_label)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        return png(figure)
