"""study.json, study.md and study.html of a finished study."""

from pathlib import Path
from typing import Any

from finetune.corpora import LabelledCorpus
from finetune.metrics import mean_and_std
from finetune.report.document import PICTURES, Banner, Block, Cell, Document, Paragraph, Section, Table, to_html, to_markdown
from finetune.report.tables import columns_for, figures, pairs_table
from finetune.studies.catalogue import QUESTIONS
from finetune.studies.differences import difference, margin_of
from finetune.studies.frame import Outcome, Study, StudyOptions
from skesl_mug.files import write_atomically, write_json

MADE = "Made data: (parts of) it were synthesised, not recorded; the figures say nothing about real people."


def write_study(name: str, study: Study, options: StudyOptions, corpus: LabelledCorpus, outcome: Outcome, command: str) -> Path:
    """Write the study's files; gives the path of study.html."""
    folder = options.output
    document = document_of(name, study, options, corpus, outcome, command)
    write_atomically(folder / PICTURES / f"{outcome.figure.name}.png", lambda path: path.write_bytes(outcome.figure.png))
    write_atomically(folder / "study.md", lambda path: path.write_text(to_markdown(document), encoding="utf-8"))
    write_atomically(folder / "study.html", lambda path: path.write_text(to_html(document), encoding="utf-8"))
    write_json(folder / "study.json", numbers_of(name, options, corpus, outcome, command))
    return folder / "study.html"


def document_of(name: str, study: Study, options: StudyOptions, corpus: LabelledCorpus, outcome: Outcome, command: str) -> Document:
    """The report: what it shows and does not show first, then table and picture."""
    evaluated = len(corpus.splits[corpus.evaluated_on])
    data = f"{options.dataset}, {len(corpus.splits['train'])} training utterances, evaluated on the {evaluated} of {corpus.evaluated_on}"
    opening: list[Block] = [Banner(MADE)] if corpus.made else []
    opening += [Paragraph(f"**Shows.** {outcome.shows}", "lead"), Paragraph(f"**Does not show.** {outcome.not_shown}", "lead")]
    blocks: list[Block] = [result_table(options, corpus, outcome), outcome.figure]
    for title, table in outcome.tables:
        blocks += [Paragraph(f"**{title}**"), table]
    how = pairs_table([("Question", QUESTIONS[name]), ("Data", data), ("Seeds", ", ".join(map(str, options.seeds))), ("Command", command)])
    sections = [Section("Result", blocks)]
    if how is not None:
        note: list[Block] = [Paragraph(corpus.evaluated_on_note, "quiet")] if corpus.evaluated_on_note else []
        sections.append(Section("How it was done", [how, *note]))
    return Document(options.title or study.title, data, opening, sections)


def result_table(options: StudyOptions, corpus: LabelledCorpus, outcome: Outcome) -> Table:
    """Mean ± std of every metric, and how far each row's MAE lies from the first row's."""
    margin = margin_of(options, corpus)
    summaries = [mean_and_std(row.scores) for row in outcome.rows]
    columns = columns_for(summaries[0]["mean"])
    several = len(options.seeds) > 1
    rows = []
    for row, summary in zip(outcome.rows, summaries, strict=True):
        held = difference(row.scores, outcome.rows[0].scores, margin)
        verdict = (
            "" if row is outcome.rows[0] else "differs" if held.clear else "within the margin" if abs(held.value) < margin else "unclear"
        )
        delta = Cell("") if row is outcome.rows[0] else Cell(str(held), verdict)
        rows.append([Cell(row.name, row.remark), *map(Cell, row.further), *figures(summary, columns, several), delta])
    note = "Accuracy and F1 in percent. " + (f"± is the population standard deviation over {len(options.seeds)} seeds. " if several else "")
    note += f"Δ MAE: against the first row; the margin, set beforehand, is {margin:.3f}; p is paired over the seeds (three or more)."
    headers = ["", *outcome.further, *(heading for heading, _, _ in columns), "Δ MAE"]
    return Table(headers, rows, " ".join([note, outcome.note]).strip(), frozenset({0}))


def numbers_of(name: str, options: StudyOptions, corpus: LabelledCorpus, outcome: Outcome, command: str) -> dict[str, Any]:
    """All numbers of the study as plain data."""
    rows = [
        {
            "name": row.name,
            **dict(zip(outcome.further, row.further, strict=True)),
            **{str(seed): scores for seed, scores in zip(options.seeds, row.scores, strict=True)},
            **mean_and_std(row.scores),
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
        "margin": margin_of(options, corpus),
        "shows": outcome.shows,
        "does_not_show": outcome.not_shown,
        "rows": rows,
        "facts": outcome.facts,
        "command": command,
    }
