"""The report's tables, from the entries of `results.json`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune.report.document import Cell, Table
from finetune.report.run_results import MODALITIES, RunResults
from finetune.report.verdict import Comparison, compare
from finetune.significance import shown_p
from finetune.training.variants import humanise as humanise
from skesl_mug.wording import signed

NONE = "–"
PERCENT = "percent"
DECIMAL = "decimal"

Column = tuple[str, tuple[str, ...], str]
"""A column: its heading, the metrics it shows side by side, and their format."""

# A column is shown if all its metrics are there.
COLUMNS: tuple[Column, ...] = (
    ("MAE ↓", ("MAE",), DECIMAL),
    ("Corr ↑", ("Corr",), DECIMAL),
    ("Acc2 ↑ (has0/non0)", ("Has0_acc_2", "Non0_acc_2"), PERCENT),
    ("F1 ↑ (has0/non0)", ("Has0_F1_score", "Non0_F1_score"), PERCENT),
    ("Acc2 ↑", ("Mult_acc_2",), PERCENT),
    ("Acc3 ↑", ("Mult_acc_3",), PERCENT),
    ("Acc5 ↑", ("Mult_acc_5",), PERCENT),
    ("Acc7 ↑", ("Mult_acc_7",), PERCENT),
    ("F1 ↑", ("F1_score",), PERCENT),
)
CONTROL_REMARKS = {
    "no_unimodal_tasks": "plain fine-tuning of the encoder, without alignment",
    "text_only": "trained and tested without audio and vision; no unimodal tasks",
    "permuted_audio_vision": "the trained model with audio and vision of other samples",
    "labels_human": "uses the known unimodal labels, which the others have to learn",
}


def number(value: float | None, style: str = DECIMAL) -> str:
    """A metric as the tables show it: percentages with two decimals, others with three; a dash if it is missing."""
    if value is None:
        return NONE
    return (f"{100 * value:.2f}" if style == PERCENT else f"{value:.3f}").replace("-", "−")


def result_table(run: RunResults) -> Table:
    """The main model and every control: mean ± std over seeds, and the difference of the control's MAE from the model's."""
    metrics = run.get("metrics")
    columns = columns_for(metrics.get("mean") or {})
    several = len(run.seeds) > 1
    rows = [[Cell(run.model_name), *figures(metrics, columns, several), Cell("")]]
    if averaged := run.get("seeds_averaged"):
        difference = Cell(signed(averaged["mean"]["MAE"] - metrics["mean"]["MAE"], 3))
        rows.append(
            [Cell(averaged["name"], "not a single model: the mean of its seeds' predictions"), *figures(averaged, columns), difference]
        )
    for name, control in run.get("controls").items():
        remark = control.get("note") or CONTROL_REMARKS.get(name, "")
        spread = several and name != "constant"
        rows.append([Cell(humanise(name), remark), *figures(control, columns, spread), difference_of(run, control)])
    note = "MAE: mean absolute error, in label units. Corr: Pearson's r. Accuracy and F1 in percent. "
    if any("has0" in heading for heading, _, _ in columns):
        note += "has0: negative vs. the rest; non0: negative vs. positive, without labels of 0. "
    note += f"± is the population standard deviation over {len(run.seeds)} seeds. " if several else "One seed. "
    note += "Δ MAE is the row's MAE minus the model's: above zero, the model is better."
    note += " y is the multimodal label."
    if any(control.get("paired") for control in run.get("controls").values()):
        note += " p: the larger one of paired t-tests over seeds and videos; detectable: the smallest difference they find with 80 % power."
    interval = [(key, run.get("interval")[key]) for key in ("MAE", "Corr") if key in run.get("interval")]
    if interval:
        ranges = ", ".join(f"{key} {number(low)} to {number(high)}" for key, (low, high) in interval)
        note += f" 95 % confidence interval of the model (bootstrap over videos): {ranges}."
    return Table(["", *(heading for heading, _, _ in columns), "Δ MAE"], rows, note, frozenset({0}))


def difference_of(run: RunResults, control: Mapping[str, Any]) -> Cell:
    """The control's MAE minus the model's, with its tests."""
    comparison = compare(run, control)
    return Cell(NONE) if comparison is None else Cell(signed(comparison.difference, 3), remark_of(comparison))


def remark_of(comparison: Comparison) -> str:
    """The tests of a difference: `p 0.213, detectable 0.129`; empty without a test."""
    if comparison.verdict == "unknown" or not comparison.tests:
        return ""
    detectable = "" if comparison.detectable is None else f", detectable {comparison.detectable:.3f}"
    return f"{shown_p(comparison.p)}{detectable}"


def columns_for(mean: Mapping[str, Any]) -> list[Column]:
    """The columns for which there are metrics; unknown metrics get a column of their own."""
    columns = [column for column in COLUMNS if all(key in mean for key in column[1])]
    known = {key for _, keys, _ in columns for key in keys}
    return columns + [(key, (key,), DECIMAL) for key in mean if key not in known]


def figures(entry: Mapping[str, Any], columns: Sequence[Column], spread: bool = True) -> list[Cell]:
    """The cells of an entry that holds `mean` and `std`."""
    mean, std = entry.get("mean") or {}, entry.get("std") or {}
    cells = []
    for _, keys, style in columns:
        main = " / ".join(number(mean.get(key), style) for key in keys)
        small = "± " + " / ".join(number(std.get(key), style) for key in keys)
        shown = spread and any(mean.get(key) is not None and std.get(key) is not None for key in keys)
        cells.append(Cell(main, small if shown else ""))
    return cells


def seed_table(run: RunResults) -> Table | None:
    """The main model's metrics for each seed."""
    metrics = run.get("metrics")
    columns = columns_for(metrics.get("mean") or {})
    rows = [[Cell(str(seed)), *figures({"mean": metrics[str(seed)]}, columns, False)] for seed in run.seeds if str(seed) in metrics]
    return Table(["Seed", *(heading for heading, _, _ in columns)], rows) if rows else None


def heads_table(run: RunResults) -> Table | None:
    """The main model's unimodal heads, with the labels they were evaluated on."""
    heads = run.get("unimodal_head_metrics")
    present = [name for name in MODALITIES if heads.get(name)]
    if not present:
        return None
    columns = columns_for(heads[present[0]].get("mean") or {})
    rows = []
    for name in present:
        against = heads[name].get("against")
        remark = {None: "", "label": "against y"}.get(against, f"against the known {against}")
        rows.append([Cell(name.capitalize(), remark), *figures(heads[name], columns, len(run.seeds) > 1)])
    return Table(["Head", *(heading for heading, _, _ in columns)], rows)


def labels_table(run: RunResults) -> Table | None:
    """Label quality by generator and modality compared with copying y; without known labels, only how far the labels moved."""
    generators = dict(run.get("unimodal_labels_by_generator"))
    if run.get("unimodal_labels") and run.headline not in generators:
        generators = {run.headline: run.get("unimodal_labels"), **generators}
    generators = {name: rows for name, rows in generators.items() if rows}
    if not generators:
        return None
    known = any(row.get("MAE") is not None for rows in generators.values() for row in rows.values())
    quality_headers = ["MAE ↓", "MAE of copies", "Corr ↑", "Corr of copies"] if known else []
    headers = ["Generator", "Modality", *quality_headers, "Moved", "Mean change", "Flips", *(["Right direction"] if known else [])]
    rows: list[list[Cell]] = []
    strong: set[int] = set()
    for generator, modalities in generators.items():
        for place, name in enumerate(name for name in MODALITIES if modalities.get(name)):
            row = modalities[name]
            quality = [number(row.get(key)) for key in ("MAE", "copy_MAE", "Corr", "copy_Corr")] if known else []
            if generator == run.headline:
                strong.add(len(rows))
            moved, flips, right = (NONE if row.get(key) is None else f"{100 * row[key]:.1f} %" for key in ("moved", "flips", "right_way"))
            change = [moved, number(row.get("mean_change")), flips, *([right] if known else [])]
            rows.append([Cell(generator if place == 0 else ""), Cell(name), *map(Cell, [*quality, *change])])
    note = "On the training split, mean over seeds. Moved: share of labels that differ from y by more than 5 % of the largest label. "
    note += "Flips: share with the opposite sign to y."
    if known:
        note += " MAE and Corr compare with the known unimodal labels, which only `human` uses; copies: y for each modality."
        note += " Right direction: share moved towards the known label, if that differs from y by more than 30 % of the largest label."
    return Table(headers, rows, note, frozenset(strong))


OPINIONS = {"out-of-fold": "regression on this corpus, out of fold", "pretrained rating": "rating by the pretrained encoder"}


def anchors_table(run: RunResults) -> Table | None:
    """The opinions that the labels of each modality are anchored in, and the labels' quality without and with them."""
    anchors = run.get("anchors")
    scored = any(entry.get("without") for entry in anchors.values())
    rows: list[list[Cell]] = []
    for name in (name for name in MODALITIES if name in anchors):
        entry, learned = anchors[name], (run.get("unimodal_labels")).get(name) or {}
        noise_share = " → ".join(number(entry.get(key)) for key in ("lambda_without", "lambda"))
        plain = entry.get("without") or {}
        quality = (
            [" → ".join(number(part.get(key)) for part in (plain, learned)) if plain else NONE for key in ("MAE", "Corr")] if scored else []
        )
        for place, (opinion, given) in enumerate(entry["opinions"].items()):
            remark = f"in {given['seeds']} of {len(run.seeds)} seeds" if given["seeds"] < len(run.seeds) else ""
            rows.append(
                [Cell(name if place == 0 else ""), Cell(OPINIONS.get(opinion, opinion), remark)]
                + [Cell(number(given[key])) for key in ("weight", "noise")]
                + [Cell(value if place == 0 else "") for value in (noise_share, *quality)]
            )
        for opinion, seeds in entry["left_out"].items():
            remark = "" if seeds == len(run.seeds) else f" in {seeds} of {len(run.seeds)} seeds"
            title = Cell("" if entry["opinions"] else name)
            rows.append([title, Cell(OPINIONS.get(opinion, opinion), f"left out{remark}"), *[Cell(NONE)] * (3 + len(quality))])
    if not rows:
        return None
    note = "Mean over seeds, in label units. Weight: change of the joint prediction per standard deviation of the opinion. Noise: standard "
    note += "deviation of the opinion's error, estimated without unimodal labels. Noise share: how far a label moves from y to the joint "
    note += "prediction (1: all the way), without → with anchors."
    if any(entry["left_out"] for entry in anchors.values()):
        note += " Left out: agrees with y more than the modality can explain."
    if scored:
        note += " MAE and Corr compare the labels without → with anchors to the known ones, which serve this comparison only."
    quality_headers = ["MAE ↓", "Corr ↑"] if scored else []
    return Table(["Modality", "Opinion", "Weight", "Noise", "Noise share", *quality_headers], rows, note)


def alignment_table(run: RunResults) -> Table | None:
    """Distances between unimodal and projected multimodal representations before and after stage 1."""
    alignment = run.get("alignment")
    rows = []
    for name in (name for name in MODALITIES if alignment.get(name)):
        before, after = alignment[name].get("before") or {}, alignment[name].get("after") or {}
        retrieval = [NONE if part.get("retrieval_at_1") is None else f"{100 * part['retrieval_at_1']:.1f} %" for part in (before, after)]
        chance = next((part["chance"] for part in (after, before) if part.get("chance") is not None), None)
        rows.append(
            [
                Cell(name.capitalize()),
                Cell(number(before.get("centroid_distance"))),
                Cell(number(after.get("centroid_distance"))),
                *map(Cell, retrieval),
                Cell(NONE if chance is None else f"{100 * chance:.2f} %"),
            ]
        )
    if not rows:
        return None
    headers = ["", "Centroid distance before", "after", "Retrieval at 1 before", "after", "by chance"]
    note = "Representations have unit length. Retrieval at 1: how often a projected multimodal representation is closest to "
    note += "the unimodal one of its own sample."
    return Table(headers, rows, note)


def gates_table(run: RunResults) -> Table | None:
    """How much of each modality the fused prediction uses."""
    gates = run.get("gates")
    rows = []
    for name in (name for name in MODALITIES if name in gates):
        entry = gates[name]
        gained = f"{signed(entry['gain'], 4)} ± {entry['error']:.4f}" if entry["error"] else NONE
        rows.append([Cell(name.capitalize()), Cell(f"{100 * entry['gate']:.0f} %"), Cell(gained)])
    note = "Used: factor on what the modality contributes to the multimodal prediction, mean over seeds. Gain: how much adding it to the "
    note += "other used ones lowers the mean absolute error of ridge regressions on held-out utterances of train (labels divided by the "
    note += "largest label), ± its standard error; a modality whose gain is within that error is not used."
    return Table(["How much of each modality is used", "Used", "Gain"], rows, note) if rows else None


def findings_table(run: RunResults) -> Table | None:
    """The data checks that found something."""
    findings = run.get("data").get("findings") or []
    rows = [[Cell(str(f["severity"])), Cell(str(f["where"])), Cell(str(f["what"])), Cell(f"{f['count']:,}")] for f in findings]
    return Table(["", "Where", "What", "Count"], rows) if rows else None


def steps_table(run: RunResults) -> Table | None:
    """Wall-clock time and peak memory of each step."""
    steps = run.results.get("steps") or [{"name": name, "seconds": seconds} for name, seconds in run.get("seconds").items()]
    if not steps:
        return None
    memory = any(step.get("peak_memory_mb") for step in steps)
    rows = []
    for step in steps:
        seconds = NONE if step.get("seconds") is None else f"{step['seconds']:,.1f}"
        peak = [NONE if not step.get("peak_memory_mb") else f"{step['peak_memory_mb']:,.0f}"] if memory else []
        rows.append([Cell(str(step["name"])), Cell(seconds), *map(Cell, peak)])
    return Table(["Step", "Seconds", *(["Peak memory (MB)"] if memory else [])], rows)


def pairs_table(pairs: Iterable[tuple[str, Any]]) -> Table | None:
    """Names and values, without empty values."""
    rows = [[Cell(name), Cell(str(value))] for name, value in pairs if value not in (None, "", {}, [])]
    return Table(["", ""], rows) if rows else None


def result_lines(
    name: str, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Cell], Sequence[str]]], further: Sequence[str] = ()
) -> str:
    """The table for a terminal, without F1 and the deviations of percentages.

    Args:
        name: heading of the first column.
        columns: columns of the cells.
        rows: name, cells of `columns`, and cells of `further`.
        further: headings of additional columns.
    """
    kept = [place for place, (heading, _, _) in enumerate(columns) if not heading.startswith("F1")]
    lines = [[name, *(columns[place][0].replace(" (", " ").rstrip(")") for place in kept), *further]]
    for title, cells, more in rows:
        shown = (f"{cells[place].main} {cells[place].small if columns[place][2] == DECIMAL else ''}".strip() for place in kept)
        lines.append([title, *shown, *more])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]).rstrip()
        for first, *rest in lines
    )
