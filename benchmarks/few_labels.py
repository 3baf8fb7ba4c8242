"""Fine-tuning on few labels, from the starter and from a plain language model, on CMU-MOSI's transcripts: a table of docs/results.md.

    python -m benchmarks.few_labels --output RUN --table docs/results.md

Text only. Each seed draws its own labelled utterances; settings are those of `finetune --few`. Nothing is chosen on the evaluated splits.
For comparison: the starter itself (no labels), VADER's compound, and a constant. `--record` stores the starter's error for `predict`,
and an interval calibrated on the rated texts held out in its training, with its coverage on MOSI's valid split. The rule, written before
the first measurement: `predict` gives that interval only if the coverage is at most two standard errors below the level (80 %). It was
47 %: starters have no interval; `predict` reports both figures.
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skesl_mug.console import CommandOptions, run_command
from skesl_mug.errors import UserError

METRICS = ("MAE", "Corr", "Has0_acc_2", "Non0_acc_2", "Mult_acc_7")
MOSI = Path(os.environ.get("MSA_DATA", "")) / "mosi" / "mosi_text_audio_train_valid.pkl"
ALL = 1_000_000


@dataclass(kw_only=True)
class FewLabelsOptions(CommandOptions):
    """Fine-tune on few labelled utterances of CMU-MOSI, from the starter and from the plain language model."""

    output: Path
    """Folder of the runs; what is there is not trained again."""
    mosi: Path = MOSI
    """CMU-MOSI as an MMSA pickle (default: in the folder that MSA_DATA names)."""
    lm: list[str] = field(default_factory=lambda: ["embedded"])
    """Language models."""
    sizes: list[int] = field(default_factory=lambda: [16, 64, 256, ALL])
    """Numbers of labelled utterances; a larger one than there are means all."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 5])
    """Each draws its utterances and starts its own run."""
    starts: list[str] = field(default_factory=lambda: ["starter", "plain"])
    """From the starter, from the plain language model, or both."""
    on_dev: bool = False
    """Score on a part carved from train instead of the file's own splits: to choose settings."""
    record: bool = False
    """Store the starters' error on `valid` in the package; `predict` reports it."""
    table: Path | None = None
    """A Markdown file: its part between the marks `few-labels` is replaced."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.record and self.on_dev:
            raise UserError("--record: keeps scores on `valid`; leave --on-dev out")
        if not self.mosi.is_file():
            raise UserError(f"--mosi {self.mosi}: does not exist; pass CMU-MOSI as an MMSA pickle, or set MSA_DATA")


def read_corpus(options: FewLabelsOptions) -> Any:
    """MOSI without audio and vision; nothing is chosen on a development part, so what was carved for one goes back into train."""
    import numpy as np

    from finetune.corpora import load_corpus
    from finetune.corpora.splits import joined

    corpus = load_corpus("mosi", options.mosi)
    for split in corpus.splits.values():
        split.audio = split.vision = None
    corpus.audio_width = corpus.vision_width = 0
    if options.on_dev:
        corpus.splits = {"train": corpus.splits["train"], "dev": corpus.splits["dev"], "valid": corpus.splits["dev"]}
        corpus.evaluated_on = "valid"
    elif corpus.evaluated_on == "valid":
        whole = load_corpus("mosi", options.mosi, dev_share=1e-9).splits
        train = whole["train"]
        train.audio = train.vision = None
        rest = whole["dev"]
        rest.audio = rest.vision = None
        corpus.splits |= {"dev": rest, "train": joined(train, rest)}
    else:
        corpus.splits["valid"] = corpus.splits["dev"]
    corpus.splits["dev"] = corpus.splits["dev"].select(np.arange(min(8, len(corpus.splits["dev"]))))  # only used for the curve
    return corpus


def fine_tune(corpus: Any, lm: str, start: str, size: int, seed: int, folder: Path) -> dict[str, Any]:
    """The scores of one run by split."""
    from finetune.options import MugOptions
    from finetune.training.experiment import Experiment, draw_few
    from finetune.training.trainer import Setting
    from finetune.training.variants import plan
    from pretrain.starter import STARTER

    names: dict[str, str | None] = {"encoder": f"{STARTER}:{lm}", "lm": None} if start == "starter" else {"encoder": None, "lm": lm}
    few = min(size, len(corpus.splits["train"]))
    options = MugOptions(dataset="mosi", data="", output=folder, few=few, seeds=[seed], controls=[], **names)  # type: ignore[arg-type]
    own = replace(corpus, splits=dict(corpus.splits))
    draw_few(own, few, seed)

    splits = [name for name in ("valid", "test") if name in own.splits]
    setting = Setting("", options, plan(options, False, own.modalities), further_splits=splits)
    experiment = Experiment([setting], [seed], own, folder)
    experiment.run()
    return dict(experiment.seed_folder(setting, seed).results("none")["splits"])


def without_labels(corpus: Any, lm: str) -> dict[str, dict[str, Any]]:
    """The scores of what needs no label of the corpus, by split: the starter, VADER's compound, a constant (of train's labels)."""
    import numpy as np
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    from finetune.metrics import score
    from finetune.prediction.sentiment_model import SentimentModel

    analyzer, starter = SentimentIntensityAnalyzer(), SentimentModel.starter(lm)
    found: dict[str, dict[str, Any]] = {"starter": {}, "vader": {}, "constant": {}}
    for name in ("valid", "test"):
        split = corpus.splits.get(name)
        if split is None:
            continue
        predictions = {
            "starter": starter.score_texts(split.text),
            "vader": np.array([3 * analyzer.polarity_scores(text)["compound"] for text in split.text], np.float32),
            "constant": np.full(len(split), np.median(corpus.splits["train"].label), np.float32),
        }
        for row, values in predictions.items():
            found[row][name] = {**score(values, split.label, "mosi"), "n": len(split)}
    return found


def starter_interval(corpus: Any, lm: str) -> dict[str, Any]:
    """The interval of a starter: from the rated texts held out in its training, with its coverage on `valid`."""
    from finetune.options import INTERVAL_LEVEL
    from finetune.prediction.intervals import clipped_residuals, conformal_half_width, coverage_of
    from finetune.prediction.sentiment_model import SentimentModel
    from lexicons.rated import load_rated
    from pretrain.holdout import hold_out
    from pretrain.starter import starter_options

    starter, options, rated = SentimentModel.starter(lm), starter_options(lm), load_rated()
    held = hold_out([""] * len(rated.texts), rated.groups, options.valid_share, options.seed).valid
    limits = starter.recipe.label_range
    residuals = clipped_residuals(starter.score_texts([rated.texts[place] for place in held]), rated.scores[held], limits)
    half_width = conformal_half_width(residuals, INTERVAL_LEVEL)
    assert half_width is not None
    split = corpus.splits["valid"]
    coverage = coverage_of(clipped_residuals(starter.score_texts(split.text), split.label, limits), half_width)
    return {
        "level": INTERVAL_LEVEL,
        "half_width": half_width,
        "n": len(held),
        "coverage": round(coverage or 0.0, 4),
        "evaluated": len(split),
    }


def overlap(corpus: Any) -> dict[str, str]:
    """How many utterances of each split share six words in a row with a rated text."""
    from lexicons.rated import load_rated, shared_ngrams

    rated = load_rated()
    counts = {name: int(shared_ngrams(split.text, rated.texts).sum()) for name, split in corpus.splits.items() if name != "dev"}
    return {name: f"{count} of {len(corpus.splits[name]):,}" for name, count in counts.items()}


def cell(values: list[float | None], percent: bool) -> str:
    """Mean and deviation over the seeds."""
    import numpy as np

    known = [value for value in values if value is not None]
    if not known:
        return "–"
    scale, digits = (100, 1) if percent else (1, 2)
    parts = [np.mean(known), *([np.std(known, ddof=1)] if len(known) > 1 else [])]
    return " ± ".join(f"{scale * part:.{digits}f}".removeprefix("" if percent else "0") for part in parts)


def table_of(rows: list[tuple[str, str, list[dict[str, Any]]]], splits: list[str]) -> str:
    """Markdown: labels, start, and for each split MAE, Corr, Acc2 (has0/non0), Acc7."""
    head = "| labels | start | " + " | ".join(f"{split} MAE | Corr | Acc2 has0 / non0 | Acc7" for split in splits) + " |"
    lines = [head, "|---" * (2 + 4 * len(splits)) + "|"]
    for labels, start, runs in rows:
        cells = [labels, start]
        for split in splits:
            scores = [run[split] for run in runs]
            one = {key: cell([entry[key] for entry in scores], key.endswith(("2", "7"))) for key in METRICS}
            cells += [one["MAE"], one["Corr"], f"{one['Has0_acc_2']} / {one['Non0_acc_2']}", one["Mult_acc_7"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(options: FewLabelsOptions) -> None:
    import torch

    from finetune.training.defaults import few_training

    torch.set_num_threads(1)
    corpus = read_corpus(options)
    splits = [name for name in ("valid", "test") if name in corpus.splits]
    total = len(corpus.splits["train"])
    print("rated texts and MOSI share six words in a row in: " + ", ".join(f"{n} ({name})" for name, n in overlap(corpus).items()))
    rows: list[tuple[str, str, list[dict[str, Any]]]] = []
    measured = {}
    for lm in options.lm:
        free = without_labels(corpus, lm)
        if not rows:
            rows += [("all", "constant (median of train)", [free["constant"]]), ("0", "VADER's compound x 3", [free["vader"]])]
        rows.append(("0", f"starter, `{lm}`", [free["starter"]]))
        measured[lm] = {key: free["starter"]["valid"][key] for key in ("n", *METRICS)}
        if options.record:
            measured[lm]["interval"] = starter_interval(corpus, lm)
            print(f"interval of the starter, `{lm}`: {measured[lm]['interval']}")
        for size in options.sizes:
            for start in reversed(options.starts):
                runs = []
                for seed in options.seeds:
                    few = min(size, total)
                    recipe = hashlib.sha256(repr(few_training(few, start == "starter")).encode()).hexdigest()[:6]
                    folder = options.output / lm / f"{'dev-' if options.on_dev else ''}{start}-{few}-{recipe}"
                    runs.append(fine_tune(corpus, lm, start, size, seed, folder))
                name = f"starter, `{lm}`" if start == "starter" else f"plain `{lm}`"
                rows.append((f"{min(size, total):,}", name, runs))
                print(table_of(rows[-1:], splits).splitlines()[-1], flush=True)
    text = table_of(rows, splits)
    print("\n" + text)
    if options.record:
        from finetune.starter import MEASURED
        from pretrain.starter import RECIPE

        known = json.loads(MEASURED.read_text()) if MEASURED.is_file() else {}
        MEASURED.write_text(json.dumps(known | {lm: {"recipe": RECIPE} | scores for lm, scores in measured.items()}, indent=2) + "\n")
    if options.table is not None:
        write_between(options.table, text)


def write_between(file: Path, text: str) -> None:
    """Put the table between its marks."""
    begin, end = "<!-- few-labels -->", "<!-- /few-labels -->"
    content = file.read_text(encoding="utf-8")
    if begin not in content or end not in content:
        raise UserError(f"--table {file}: has no marks {begin} and {end}")
    before, after = content.split(begin)[0], content.split(end)[1]
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    run_command(FewLabelsOptions, main)
