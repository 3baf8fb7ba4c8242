"""The report's sections, in reading order; a section says so when its files are missing."""

from pathlib import Path
from typing import Any

from finetune.report import pictures, tables
from finetune.report.document import (
    PICTURES,
    Block,
    Cards,
    Cell,
    Details,
    Document,
    Figure,
    Paragraph,
    Section,
    Table,
    to_html,
    to_markdown,
)
from finetune.report.run_results import MODALITIES, RunResults
from finetune.report.verdict import join_words, opening, score_interval
from finetune.training.variants import epochs_in_words, humanise, variant_name
from skesl_mug.files import write_atomically
from skesl_mug.wording import counted

DATASET_NAMES = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI", "sims": "CH-SIMS", "simsv2": "CH-SIMS v2", "custom": "custom corpus"}


def build_document(run: RunResults) -> Document:
    """Every section for which the folder has files."""
    dataset = DATASET_NAMES.get(str(run.results.get("dataset")), str(run.results.get("dataset") or ""))
    data = run.get("data")
    name = str(data.get("name") or dataset)
    subtitle = name if dataset.lower() in name.lower() or run.results.get("dataset") == "custom" else f"{dataset} · {name}"
    subtitle += " · synthetic data" if run.synthetic else ""
    sections = [
        result(run),
        curves(run),
        clouds(run),
        unimodal_labels(run),
        examples(run),
        pretraining(run),
        data_section(run),
        record(run),
    ]
    return Document(
        str(run.results.get("title") or "Multimodal sentiment: MUG fine-tuning"), subtitle, opening(run), [s for s in sections if s]
    )


def result(run: RunResults) -> Section:
    """The table of results, their picture, errors, unimodal heads and seeds."""
    blocks: list[Block] = [tables.result_table(run)]
    entries = [(run.model_name, run.get("metrics"))]
    entries += [(humanise(name), control) for name, control in run.get("controls").items()]
    dots = [
        (name, float(entry["mean"]["MAE"]), float((entry.get("std") or {}).get("MAE") or 0.0))
        for name, entry in entries
        if (entry.get("mean") or {}).get("MAE") is not None
    ]
    if len(dots) > 1:
        spread = "; bars and band show one standard deviation over seeds" if len(run.seeds) > 1 else ""
        blocks.append(Figure("results", pictures.result_dots(dots), f"MAE of the model and its controls{spread}."))
    if run.predictions is not None and {"id", "label", "pred_M"} <= set(run.predictions):
        caption = "Left: predictions (mean over seeds) and labels of the evaluated split. Right: mean absolute error by label."
        blocks.append(Figure("predictions", pictures.predictions_scatter(run.predictions, run.label_range), caption))
    if interval := score_interval(run):
        blocks.append(Paragraph(interval))
    if heads := tables.heads_table(run):
        blocks += [Paragraph("The unimodal heads, trained on the learned unimodal labels, on the evaluated split:"), heads]
    if gates := tables.gates_table(run):
        blocks.append(gates)
    if len(run.seeds) > 1 and (seeds := tables.seed_table(run)):
        blocks.append(Details("Results by seed", [seeds]))
    return Section("Result", blocks)


def curves(run: RunResults) -> Section:
    """The learning curves."""
    if run.history is None:
        return Section("Learning curves", [_absent("history.csv", "training curves")])
    names = {variant: variant_name(variant, run.headline) for variant in run.history["variant"].unique()}
    joint = ", stage 3 trains all tasks jointly" if (run.history["stage"] == 3).any() else ""
    caption = f"Stage 1 aligns the unimodal and multimodal spaces{joint}."
    if len(run.seeds) > 1:
        caption += " Thin lines: seeds; thick lines: their mean."
    return Section("Learning curves", [Figure("curves", pictures.learning_curves(run.history, run.headline, names), caption)])


def clouds(run: RunResults) -> Section:
    """The representations before and after stage 1."""
    blocks: list[Block] = []
    if table := tables.alignment_table(run):
        blocks.append(table)
    picture = pictures.clouds(run.clouds)
    if picture:
        caption = (
            "Unimodal representations and the multimodal representation projected into the same space (unit length, first two principal "
            "components of each panel); lines connect the two points of a sample. First seed."
        )
        blocks.append(Figure("clouds", picture, caption))
    if not blocks:
        blocks.append(_absent("clouds.npz", "representations before and after stage 1"))
    elif sentence := alignment_sentence(run):
        blocks.insert(0, Paragraph(sentence))
    return Section("Alignment: representations before and after stage 1", blocks)


def alignment_sentence(run: RunResults) -> str:
    """Whether stage 1 aligned the spaces, judged by retrieval."""
    alignment = run.get("alignment")
    parts = [(name, alignment[name].get("before") or {}, alignment[name].get("after") or {}) for name in MODALITIES if alignment.get(name)]
    parts = [part for part in parts if "retrieval_at_1" in part[1] and {"retrieval_at_1", "chance"} <= set(part[2])]
    if not parts:
        return ""
    factor = run.margin("retrieval_factor")
    found = [name for name, before, after in parts if after["retrieval_at_1"] > max(before["retrieval_at_1"], factor * after["chance"])]
    rest = [name for name, _, _ in parts if name not in found]
    often = f"more than {factor:g} times as often as by chance"
    if not found:
        return f"**Stage 1 did not align the spaces**: for no modality does a projection retrieve its own sample {often}."
    text = "After stage 1, projected multimodal representations retrieve their own sample more often than before, and "
    text += f"{often}, for {join_words(found)}"
    return f"{text}; **not for {join_words(rest)}**." if rest else f"{text}."


def unimodal_labels(run: RunResults) -> Section | None:
    """Learned unimodal labels compared with known ones and with copies of y."""
    blocks: list[Block] = []
    if table := tables.labels_table(run):
        blocks.append(table)
    if table := tables.anchors_table(run):
        blocks += [Paragraph("Anchors: opinions that were formed before these labels were seen."), table]
    labels = run.unimodal_labels
    if labels is not None:
        generators = list(dict.fromkeys(labels["generator"]))
        generator = run.headline if run.headline in generators else generators[0]
        part = labels[labels["generator"] == generator]
        part = part[part["seed"] == part["seed"].iloc[0]]
        picture = pictures.label_scatter(part, run.label_range)
        if picture:
            known = part["known"].notna().any()
            what = f"labels of `{generator}` on the training split, first seed"
            caption = f"Multimodal label y and learned {what}."
            if known:
                caption = (
                    f"Copies of y (top) and learned {what}, by known unimodal label; on the dashed line, a label equals the known one."
                )
            blocks.append(Figure("labels", picture, caption))
    if not blocks:
        if run.headline == "none":
            return None
        blocks.append(_absent("unimodal_labels.csv", "learned labels"))
    elif not any((row or {}).get("MAE") is not None for row in run.get("unimodal_labels").values()):
        blocks.insert(0, Paragraph("This corpus has no unimodal labels, so the quality of the learned ones cannot be measured."))
    return Section("Unimodal labels", blocks)


def examples(run: RunResults) -> Section:
    """Example utterances with their scores."""
    entries, frames = run.examples
    if not entries:
        return Section("Examples", [_absent("examples/examples.json", "example utterances")])
    text = "Bars: predictions (mean over seeds); hollow marks: known labels."
    if any(entry.get("mask") for entry in entries):
        text += " Highlighted: the word masked in pretraining; underlined: other lexicon words."
    blocks: list[Block] = [Paragraph(text), Cards(entries, run.label_range, frames)]
    if not frames:
        blocks.append(Paragraph("No video frames: the data contain features only.", "quiet"))
    return Section("Examples", blocks)


def pretraining(run: RunResults) -> Section | None:
    """The pretraining of the encoder, if there was any."""
    entry = run.get("pretraining")
    if not entry:
        return None
    blocks: list[Block] = []
    if entry.get("sentence"):
        blocks.append(Paragraph(str(entry["sentence"])))
    rows = []
    if validation := entry.get("validation"):
        rows.append(("Pretrained encoder", validation))
    rows += [(humanise(name), control) for name, control in (entry.get("controls") or {}).items()]
    if rows:
        cells = [[Cell(name), Cell(tables.number(row.get("MAE"))), Cell(tables.number(row.get("Corr")))] for name, row in rows]
        split_by, count = (entry.get("validation") or {}).get("split_by"), (entry.get("validation") or {}).get("n")
        note = "Masked-intensity regression on held-out utterances" + (f", split by {split_by}" if split_by else "")
        note += f" ({counted(count, 'utterance')})." if count else "."
        blocks.append(Table(["", "MAE ↓", "Corr ↑"], cells, note, frozenset({0})))
    picture = pictures.pretraining_curve(entry.get("history") or [])
    if picture:
        blocks.append(Figure("pretraining", picture, "Pretraining: training loss and validation MAE of the masked word's intensity."))
    return Section("Pretraining", blocks) if blocks else None


def data_section(run: RunResults) -> Section:
    """The source of the data, preprocessing and data checks."""
    data, preparation = run.get("data"), run.get("preprocessing")
    low, high = run.label_range
    counts = data.get("counts") or {}
    kept = preparation.get("kept", (preparation.get("counts") or {}).get("kept"))
    skipped = preparation.get("skipped", (preparation.get("counts") or {}).get("skipped")) or {}
    error_rate = preparation.get("word_error_rate") or {}
    pairs: list[tuple[str, Any]] = [
        ("Corpus", data.get("name")),
        ("Synthetic", f"yes: {data['how']}" if run.synthetic and data.get("how") else "yes" if run.synthetic else "no"),
        ("Source", data.get("source")),
        ("SHA-256", run.results.get("data_sha256")),
        ("Label range", f"[{low:g}, {high:g}]"),
        ("Modalities", ", ".join(data.get("modalities") or [])),
        ("Text", f"vectors of {data['text_width']} columns, without transcripts" if data.get("text_width") else None),
        ("Context", f"up to {counted(data['context'], 'earlier transcript')} of the same video" if data.get("context") else None),
        ("Samples", ", ".join(f"{name} {count:,}" for name, count in counts.items())),
        ("Evaluated on", run.results.get("evaluated_on")),
        ("Clips kept", f"{kept:,}" if isinstance(kept, int) else kept),
        ("Clips skipped", ", ".join(f"{reason.replace('_', ' ')}: {count}" for reason, count in skipped.items()) if skipped else None),
        ("Word error rate", _error_rate(error_rate)),
        ("Frames with a face", None if preparation.get("face_rate") is None else f"{100 * preparation['face_rate']:.1f} %"),
    ]
    blocks: list[Block] = [table for table in (tables.pairs_table(pairs),) if table]
    if findings := tables.findings_table(run):
        blocks += [Paragraph("Data checks:"), findings]
    return Section("Data", blocks)


def _error_rate(entry: dict[str, Any]) -> str | None:
    if entry.get("value") is None:
        return None
    count = f" over {counted(entry['utterances'], 'utterance')}" if entry.get("utterances") else ""
    return f"{100 * entry['value']:.1f} %{count}"


def record(run: RunResults) -> Section:
    """Time, memory, versions and the command."""
    blocks: list[Block] = []
    if steps := tables.steps_table(run):
        blocks.append(steps)
    peak = run.results.get("peak_memory_mb")
    pairs: list[tuple[str, Any]] = [
        ("Seeds", ", ".join(map(str, run.seeds))),
        ("Peak memory", f"{peak:,.0f} MB" if peak else None),
        *((f"Epochs, {start.replace('_', ' ')}", epochs_in_words(choice)) for start, choice in run.get("epochs").items()),
        ("Command", f"`{run.results['command']}`" if run.results.get("command") else None),
        ("Versions", ", ".join(f"{name} {version}" for name, version in run.get("versions").items())),
    ]
    if table := tables.pairs_table(pairs):
        blocks.append(table)
    return Section("Time, memory, versions", blocks)


def _absent(file: str, what: str) -> Paragraph:
    return Paragraph(f"Not shown: {what} (the run has no `{file}`).", "quiet")


def write_report(run: str | Path) -> Path:
    """Write `report.html` (self-contained), `report.md` and `pictures/` into a run folder, from its files.

    Returns:
        The path of `report.html`.

    Raises:
        UserError: the folder has no `results.json`, or it is damaged.
    """
    folder = Path(run)
    document = build_document(RunResults(folder))
    for figure in document.figures():
        write_atomically(folder / PICTURES / f"{figure.name}.png", lambda path, raw=figure.png: path.write_bytes(raw))  # type: ignore[misc]
    write_atomically(folder / "report.md", lambda path: path.write_text(to_markdown(document), encoding="utf-8"))
    page = folder / "report.html"
    write_atomically(page, lambda path: path.write_text(to_html(document), encoding="utf-8"))
    return page
