"""Fine-tuning from Python: `finetune(corpus, lm=..., output=...)` does what `skesl-mug finetune` does and returns its results."""

import contextlib
import io
import os
import time
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.options import MugOptions, TrainOptions
from finetune.training.folder import CHECKPOINTS, check_output, check_places, claim_output, timed_session
from finetune.training.variants import Variant, humanise, model_name, plan, variant_name
from skesl_mug.console import make_options, say_loading
from skesl_mug.errors import UserError
from skesl_mug.files import read_json
from skesl_mug.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from finetune.corpora import LabelledCorpus
    from finetune.model.encoders import EncoderSource
    from finetune.prediction.sentiment_model import SentimentModel

READING_OPTIONS = ("case", "dev_share", "label_range", "synthetic", "text_bert", "cache")


def finetune(
    corpus: "LabelledCorpus | str | Path",
    *,
    output: str | Path,
    dataset: str | None = None,
    lm: str | Path | None = None,
    encoder: str | Path | None = None,
    labels: str | None = None,
    seeds: Sequence[int] = (1111, 1112, 1113),
    **options: Any,
) -> "FinetuneResult":
    """Fine-tune on a labelled corpus with MUG's three stages, with every control, and write the run's folder.

    Called again with the same arguments it resumes, or returns the finished run's result.

    Args:
        corpus: what `load_corpus` returned, or what it takes (a pickle, the folder of an utterance dataset, or a URL).
        output: folder of the run.
        dataset: mosi, mosei, sims, simsv2 or custom; needed with a path.
        lm: a plain language model by hub name or folder, if there is no encoder.
        encoder: a SKESL pretraining run, a model folder or a hub name, or "starter".
        labels: the generator of unimodal labels; None: mucn-crossfit, or none with the option `few`.
        seeds: one complete training each.
        **options: every other option of the command, with underscores; groups as dicts: `training={"batch_size": 16}`.

    Raises:
        UserError: an option or an input is not valid, as the command would report it.
    """
    import torch
    from threadpoolctl import threadpool_limits
    from transformers.utils import logging

    from finetune.corpora import LabelledCorpus

    values: dict[str, Any] = {"output": output, "lm": lm, "encoder": encoder, "labels": labels, "seeds": list(seeds), **options}
    given = corpus if isinstance(corpus, LabelledCorpus) else None
    if given is not None:
        late = [name for name in READING_OPTIONS if options.get(name) is not None]
        if late:
            raise UserError(f"{late[0]}: the corpus is already read; pass it to load_corpus instead")
        if dataset not in (None, given.dataset):
            raise UserError(f"dataset {dataset}: the corpus was read as {given.dataset}; pass it to load_corpus instead")
        values |= {"data": given.source, "dataset": given.dataset, "synthetic": given.synthetic}
    elif dataset is None:
        raise UserError("dataset: required with a path; choose mosi, mosei, sims, simsv2 or custom")
    else:
        values |= {"data": corpus, "dataset": dataset}
    shown = {**values, "output": str(output), "lm": lm and str(lm), "encoder": encoder and str(encoder)}
    call = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None and name not in ("data", "synthetic"))
    made = make_options(MugOptions, values)
    threads, bars = torch.get_num_threads(), logging.is_progress_bar_enabled()
    try:
        with threadpool_limits(None):  # the caller's own threads are restored at the end
            return run(made, f"skesl_mug.finetune({str(values['data'])!r}, {call})", given)
    finally:
        torch.set_num_threads(threads)
        if bars:
            logging.enable_progress_bar()


class FinetuneResult:
    """What a fine-tuning run found, read from its folder; `print(result)` shows the table.

    Attributes:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @cached_property
    def results(self) -> dict[str, Any]:
        """All of `results.json`.

        Raises:
            UserError: the folder holds no finished run.
        """
        path = self.folder / "results.json"
        if not path.is_file():
            raise UserError(f"{self.folder}: does not hold a finished run (results.json is missing)")
        return dict(read_json(path))

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Metrics of the headline model on the reported split: "mean", "std" (population) and one entry per seed."""
        return dict(self.results["metrics"])

    @property
    def controls(self) -> dict[str, dict[str, Any]]:
        """The other rows of the table by name: "mean" and "std" each, and "paired" (t-test over seeds) from three seeds on."""
        return dict(self.results["controls"])

    @property
    def unimodal_labels(self) -> dict[str, dict[str, Any]]:
        """How the learned labels compare with the known ones and with copying y, by modality."""
        return dict(self.results["unimodal_labels"])

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / "report.html"

    @cached_property
    def model(self) -> "SentimentModel":
        """The first seed's headline model (with `average_seeds` the mean of all seeds' models), loaded when first used."""
        from finetune.prediction.sentiment_model import SentimentModel

        return SentimentModel.from_pretrained(self.folder)

    def table(self) -> "pd.DataFrame":
        """The result and its controls: a row per model, for each metric its mean and `METRIC std` over the seeds.

        With the option `average_seeds` the second row has the metrics of the mean of the seeds' predictions, without a std.
        """
        import pandas as pd

        rows = {}
        for name, entry in self._entries().items():
            std = entry.get("std") or {}
            rows[name] = {
                column: value for key, mean in entry["mean"].items() for column, value in ((key, mean), (f"{key} std", std.get(key)))
            }
        return pd.DataFrame.from_dict(rows, orient="index").astype(float)

    def _entries(self) -> dict[str, dict[str, Any]]:
        controls = {humanise(name): entry for name, entry in self.controls.items()}
        averaged = self.results.get("seeds_averaged")
        return {model_name(self.results["headline"]): self.metrics, **({averaged["name"]: averaged} if averaged else {}), **controls}

    def __str__(self) -> str:
        from finetune.report.run_results import RunResults
        from finetune.report.tables import columns_for, difference_of, figures, result_lines

        run = RunResults(self.folder)
        several = len(run.seeds) > 1  # the spread of one seed is unknown, not 0; a constant has none
        columns = columns_for(self.metrics["mean"])
        compared = {humanise(name): difference_of(run, row) for name, row in self.controls.items()}
        differences = {name: f"{cell.main} {cell.small}".strip() for name, cell in compared.items()}
        rows = [
            (name, figures(entry, columns, several and name != humanise("constant")), (differences.get(name, ""),))
            for name, entry in self._entries().items()
        ]
        return result_lines("", columns, rows, ("Δ MAE",))

    def __repr__(self) -> str:
        if not (self.folder / "results.json").is_file():
            return f"FinetuneResult({str(self.folder)!r})"
        return f"FinetuneResult({str(self.folder)!r}), {self.results['dataset']} {self.results['evaluated_on']}\n{self}"


def run(options: MugOptions, command: str, corpus: "LabelledCorpus | None" = None) -> FinetuneResult:
    """Train, evaluate and write the run's folder; under `accelerate launch` the processes share the batches of each seed.

    Args:
        options: of the run.
        command: how to repeat it, for the report.
        corpus: already read; None: read it from `options.data`.

    Raises:
        UserError: an input is not valid, or the folder belongs to another run. Processes other than the first exit instead.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and options.workers > 1:
        raise UserError(f"--workers {options.workers}: under accelerate launch the processes share each seed; leave it out")
    if processes == 1 or os.environ.get("RANK") == "0":
        check_output(options)
        check_places(options, data=corpus is None)
        say_loading("transformers")
        _run(options, command, corpus)
    else:
        try:  # the first process alone prints and reports errors
            with contextlib.redirect_stdout(io.StringIO()):
                _run(options, command, corpus)
        except UserError as error:
            raise SystemExit(2) from error
    return FinetuneResult(options.output)


def _run(options: MugOptions, command: str, corpus: "LabelledCorpus | None") -> None:
    """One process's part of the run."""
    began = time.perf_counter()
    from transformers.utils import logging

    from finetune.report.sections import write_report
    from finetune.training import results
    from finetune.training.defaults import training_line
    from finetune.training.experiment import Experiment, open_corpus, set_threads
    from finetune.training.processes import Team
    from finetune.training.trainer import Setting, open_source

    if not options.debug:
        logging.disable_progress_bar()  # of writing shards or loading weights, between our own bars
    team = Team()
    set_threads(options)
    corpus = open_corpus(options, corpus)
    source = open_source(options)
    for note in source.checked_notes(source.load(corpus.audio_width, corpus.vision_width, options.seeds[0])[1], corpus.info):
        print(f"encoder: {note}")
    variants = plan_variants(options, corpus, source)
    with contextlib.ExitStack() as held:
        team.on_main(partial(claim_output, options, corpus, source, held))
        print_corpus(options, corpus)
        print(training_line(options))
        names = ", ".join(variant_name(variant.name, options.labels) for variant in variants)
        print(f"{counted(len(options.seeds), 'seed')} x {counted(len(variants), 'model')}: {names}")
        with timed_session(options.output, began, team.is_main) as session:
            setting = Setting("", options, variants, keep_model=True, permuted="permuted" in options.controls)
            session.worked = Experiment([setting], options.seeds, corpus, options.output / CHECKPOINTS).run()
        if not team.is_main:
            return
        if not session.worked:
            print("all models of this run are already trained: writing its table and report again")
        results.gather(options, corpus, source, variants, command)
        print("drawing the report …")
        write_report(options.output)


def print_corpus(options: TrainOptions, corpus: "LabelledCorpus") -> None:
    """What was read, what is reported on, and what the data checks found."""
    sizes = ", ".join(f"{name} {len(split)}" for name, split in corpus.splits.items())
    low, high = corpus.label_range
    print(f"{options.dataset}: {sizes}; labels from {low:g} to {high:g}; reported on {corpus.evaluated_on}")
    if corpus.evaluated_on_note:
        print(corpus.evaluated_on_note)
    for finding in corpus.findings:
        print(f"{finding.severity}: {finding.where}: {f'{finding.count:,} ' if finding.count > 1 else ''}{finding.what}")


def plan_variants(options: MugOptions, corpus: "LabelledCorpus", source: "EncoderSource") -> list[Variant]:
    """The models of each seed; what does not apply to this corpus or encoder is left out, with a line that says so."""
    check_generators(options, corpus)
    if "copy" in options.compare_labels and options.training.unimodal_weighting == "tanh":
        print("labels copy left out: --training.unimodal-weighting tanh weighs copied labels with tanh 0 = 0")
    plain = source.without_pretraining() if not corpus.text_width else None
    if "no-pretraining" in options.controls and plain is None:
        reason = "the run does not name its language model" if options.encoder else "the encoder is not pretrained"
        reason = "without transcripts the encoder is not used" if corpus.text_width else reason
        print(f"control no-pretraining left out: {reason}")
    if corpus.modalities == ("text",):
        print("controls text-only and permuted left out: the corpus has neither audio nor vision")
    return plan(options, plain is not None, corpus.modalities)


def check_generators(options: MugOptions, corpus: "LabelledCorpus") -> None:
    """Check, before anything is trained, that the corpus has what the label generators need.

    Raises:
        UserError: `human` without unimodal labels, or anchors of an absent modality.
    """
    from finetune.labels import CROSSFITTED
    from finetune.modalities import HUMAN_LABELS

    train, chosen = corpus.splits["train"], {options.labels, *options.compare_labels}
    if "human" in chosen and all(getattr(train, name) is None for name in HUMAN_LABELS.values()):
        raise UserError("--labels human: this corpus has no unimodal labels (label_T, label_A, label_V); choose another generator")
    asked = [name for name in options.generators.crossfit.anchors if name in HUMAN_LABELS and name not in corpus.modalities]
    if asked:
        raise UserError(f"--generators.crossfit.anchors {asked[0]}: this corpus has no {asked[0]}; it has {', '.join(corpus.modalities)}")
    by_video = options.generators.crossfit.folds_by == "video"
    if by_video and len(set(train.video_ids)) < 2 and chosen & CROSSFITTED:
        print("note: by their ids, all utterances of train are of one video: cross-fitting takes its folds by utterance")
