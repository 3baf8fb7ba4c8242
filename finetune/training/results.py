"""From the pieces of all seeds to the files that the report reads: results.json, csv tables, clouds, examples."""

import importlib.metadata
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from finetune.corpora import LabelledCorpus
from finetune.labels.anchors import mean_anchors
from finetune.metrics import mean_and_std, score
from finetune.modalities import HUMAN_LABELS, LETTERS, MODALITIES
from finetune.model.encoders import EncoderSource
from finetune.options import MugOptions
from finetune.significance import bootstrap_by_video, paired_over_seeds, paired_over_videos
from finetune.training.calibration import interval_from, interval_of, score_intervals
from finetune.training.epochs import stored_choice
from finetune.training.folder import CHECKPOINTS, MARGINS, first_margins, seconds_of_sessions
from finetune.training.gates import mean_gates
from finetune.training.pieces import Pieces, write_arrays
from finetune.training.trainer import PERMUTATIONS
from finetune.training.variants import Variant
from skesl_mug.files import read_json, write_json
from skesl_mug.memory import peak_memory_mb
from skesl_mug.wording import signed

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scikit-learn")
"""Packages whose versions results.json holds."""
MOVED = 0.05
"""A label counts as moved if it differs from y by more than this share of the largest label."""
APART = 0.3
"""Known unimodal label and y count as disagreeing from this share of the largest label on."""


def gather(options: MugOptions, corpus: LabelledCorpus, source: EncoderSource, variants: list[Variant], command: str) -> None:
    """Write results.json and the files beside it."""
    from finetune.prediction.model_folder import write_card
    from finetune.prediction.recipe import recipe_of, write_clips
    from finetune.prediction.seed_average import averaged_of, write_members
    from finetune.training.examples import write_examples
    from preprocessing.store import UtteranceDataset

    pieces = Pieces(options.output / CHECKPOINTS, options.seeds, variants)
    choices = {variant.start: stored_choice(pieces.folder, variant.start) for variant in variants}
    seconds = seconds_of_sessions(options.output)
    quality = unimodal_label_quality(pieces, corpus)
    pretraining = source.pretraining_results()
    entries: dict[str, Any] = {
        "dataset": options.dataset,
        "title": options.title,
        "data": corpus.describe(),
        "evaluated_on": corpus.evaluated_on,
        "evaluated_on_note": corpus.evaluated_on_note,
        "headline": options.labels,
        "seeds": options.seeds,
        "metrics": metrics_of(pieces),
        "seeds_averaged": averaged_of(pieces.predictions, corpus, options.labels) if options.average_seeds else None,
        "unimodal_head_metrics": head_metrics_of(pieces),
        "interval": bootstrap_interval(pieces, corpus, options),
        "score_interval": score_intervals(pieces, corpus, options),
        "controls": controls_of(pieces, corpus, options),
        "unimodal_labels": quality.get(options.labels, {}),
        "unimodal_labels_by_generator": quality,
        "alignment": alignment_of(pieces),
        "anchors": next(filter(None, (mean_anchors(pieces.column(v.name, "facts"), corpus.scale.size) for v in variants)), {}),
        "gates": mean_gates(pieces.column(pieces.variants[0].name, "facts")),
        "margins": {name: getattr(options, name) for name in MARGINS},
        "margins_at_first": first_margins(options.output),
        "audio_vision_use": audio_vision_use(pieces, corpus, options, first_margins(options.output)["av_margin"]),
        "preprocessing": preprocessing_of(corpus),
        "pretraining": pretraining,
        "steps": steps_of(pieces, corpus, pretraining, seconds),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "data_sha256": corpus.sha256,
        "epochs": {start.name: asdict(choice) for start, choice in choices.items() if choice is not None},
        "seconds": {**pieces.stage_seconds, "whole run": seconds},
        "peak_memory_mb": round(max(pieces.peak_memory_mb, peak_memory_mb()), 1),
        "command": command,
    }
    write_tables(options.output, pieces, corpus)
    write_curves(options.output, pieces)
    has_clips = corpus.info is not None
    write_examples(options.output, UtteranceDataset(corpus.local) if has_clips else None)
    keep_model(options, source)
    recipe = recipe_of(options, corpus, entries)
    if has_clips:
        write_clips(options.output / "model", {name: split.ids for name, split in corpus.splits.items()})
    members = {}
    if options.average_seeds:
        for seed in options.seeds:
            own = replace(recipe, interval=interval_from(entries["score_interval"], seed))
            members[f"seed-{seed}"] = (pieces.seed_folder(seed).path / "model", own)
        recipe = recipe.averaging(list(members), interval_of(pieces, corpus, options, options.seeds))
    write_members(options.output / "model", recipe, members)
    write_json(options.output / "results.json", entries)
    write_card(options.output / "model", options.output)


def keep_model(options: MugOptions, source: EncoderSource) -> None:
    """Write `model/`: the first seed's headline model with its tokenizer, chosen by position and not by result."""
    target = options.output / "model"
    shutil.copytree(options.output / CHECKPOINTS / f"seed-{options.seeds[0]}" / "model", target, dirs_exist_ok=True)
    source.tokenizer().save_pretrained(target)


def metrics_of(pieces: Pieces) -> dict[str, Any]:
    """The headline's metrics per seed, with mean and population standard deviation."""
    values = pieces.column(pieces.variants[0].name, "metrics")
    return {**{str(seed): value for seed, value in zip(pieces.seeds, values, strict=True)}, **mean_and_std(values)}


def controls_of(pieces: Pieces, corpus: LabelledCorpus, options: MugOptions) -> dict[str, Any]:
    """Every other row of the table: trained controls, the constant, the permuted test, further label generators.

    `paired` and `over_videos` test the row's MAE minus the headline's over seeds and over the videos of the evaluated split.
    """
    controls: dict[str, Any] = {}
    evaluated = corpus.splits[corpus.evaluated_on]
    headline = pieces.variants[0].name
    own = [score["MAE"] for score in pieces.column(headline, "metrics")]
    own_errors = errors_of(pieces, headline, evaluated.label)

    def add(row: str, scores: list[Any], errors: np.ndarray | None, note: str = "") -> None:
        controls[row] = {**mean_and_std(scores), **({"note": note} if note else {})}
        maes = [score["MAE"] for score in scores]
        tests = {
            "paired": paired_over_seeds(maes if len(maes) > 1 else maes * len(own), own),
            "over_videos": None if errors is None else paired_over_videos(errors, own_errors, evaluated.video_ids),
        }
        controls[row] |= {name: found for name, found in tests.items() if found is not None}

    if "constant" in options.controls:
        median = float(np.median(corpus.splits["train"].label))
        values = score(np.full(len(evaluated), median, np.float32), evaluated.label, corpus.dataset)
        note = f"always the training median, {median:g}".replace("-", "−")
        add("constant", [values], np.abs(median - evaluated.label), note)
    for variant in pieces.variants[1:]:
        add(variant.row, pieces.column(variant.name, "metrics"), errors_of(pieces, variant.name, evaluated.label))
    if permuted := pieces.permuted(options):
        note = f"the trained model with audio and vision of other samples; mean over {PERMUTATIONS} permutations"
        add("permuted_audio_vision", list(permuted), None, note)
    return controls


def errors_of(pieces: Pieces, variant: str, labels: np.ndarray) -> np.ndarray:
    """Absolute error of each evaluated utterance [N], mean over the seeds."""
    predictions = [pieces.arrays(seed, f"{variant}_predictions")["pred_M"] for seed in pieces.seeds]
    return np.asarray(np.mean([np.abs(guess - labels) for guess in predictions], axis=0))


def bootstrap_interval(pieces: Pieces, corpus: LabelledCorpus, options: MugOptions) -> dict[str, tuple[float, float]]:
    """95 % intervals of the headline's metrics: bootstrap over the videos of the evaluated split and over the seeds."""
    split = corpus.splits[corpus.evaluated_on]
    return bootstrap_by_video(pieces.predictions, split.label, split.video_ids, corpus.dataset, options.bootstrap)


def use_in_words(difference: float, margin: float) -> str:
    """What permuted MAE minus own MAE says about audio and vision: used, without effect, or misleading."""
    return "were used" if difference >= margin else "were harmful" if difference <= -margin else "were not used"


def audio_vision_use(pieces: Pieces, corpus: LabelledCorpus, options: MugOptions, first_margin: float) -> dict[str, Any] | None:
    """Whether the headline model uses audio and vision: MAE with permuted ones against a margin set in the config.

    Args:
        pieces: the finished pieces.
        corpus: the labelled corpus.
        options: of this session.
        first_margin: the margin of the run's first session; the sentence says if it was changed after results could be seen.
    """
    permuted = pieces.permuted(options)
    if not permuted or len(corpus.splits[corpus.evaluated_on]) < 2:  # a single utterance has nothing to be permuted with
        return None
    scale = corpus.scale.size
    margin = options.av_margin * scale
    own = float(np.mean([value["MAE"] for value in pieces.column(pieces.variants[0].name, "metrics")]))
    other = float(np.mean([value["MAE"] for value in permuted]))
    origin = "set beforehand" if options.av_margin == first_margin else f"changed from {first_margin * scale:.3f} after the run started"
    return {
        "margin": round(margin, 4),
        "MAE": round(own, 4),
        "permuted_MAE": round(other, 4),
        "difference": round(other - own, 4),
        "used": other - own >= margin,
        "sentence": f"Audio and vision {use_in_words(other - own, margin)}: with those of other utterances the MAE changes "
        f"from {own:.3f} to {other:.3f} ({signed(other - own, 3)}; the margin {origin} is {margin:.3f}).",
    }


def unimodal_label_quality(pieces: Pieces, corpus: LabelledCorpus) -> dict[str, dict[str, dict[str, Any]]]:
    """By generator and modality, mean over the seeds on the training split: MAE and Corr to the known labels, the same for copying y,
    and how far the labels moved. MAE and Corr are omitted if no unimodal label is known."""
    train = corpus.splits["train"]
    scale = corpus.scale.size
    quality: dict[str, dict[str, dict[str, Any]]] = {}
    for variant in pieces.variants:
        if variant.generator == "none" or not variant.start.pretrained:
            continue
        per_seed = [pieces.arrays(seed, f"{variant.name}_labels") for seed in pieces.seeds]
        for name in (m for m in MODALITIES if m in per_seed[0]):
            known = getattr(train, HUMAN_LABELS[name])
            rows = [_label_quality(arrays[name], train.label.astype(np.float64), known, scale) for arrays in per_seed]
            quality.setdefault(variant.name, {})[name] = {key: _rounded_mean([row[key] for row in rows]) for key in rows[0]}
    return quality


def _label_quality(learned: np.ndarray, y: np.ndarray, known: np.ndarray | None, scale: float) -> dict[str, float]:
    change = np.abs(learned - y)
    quality = {
        "moved": float((change > MOVED * scale).mean()),
        "mean_change": float(change.mean()),
        "flips": float((learned * y < 0).mean()),
    }
    rows = ~np.isnan(known) if known is not None else np.zeros(len(y), bool)
    if known is not None and rows.any():
        truth = known[rows].astype(np.float64)
        quality |= {
            "MAE": float(np.abs(learned[rows] - truth).mean()),
            "Corr": _correlation(learned[rows], truth),
            "copy_MAE": float(np.abs(y[rows] - truth).mean()),
            "copy_Corr": _correlation(y[rows], truth),
        }
        apart = np.abs(truth - y[rows]) > APART * scale
        towards = (learned[rows] - y[rows]) * np.sign(truth - y[rows]) > 1e-6 * scale  # float32 noise is not a move
        quality["right_way"] = float(towards[apart].mean()) if apart.any() else float("nan")
    return quality


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if first.std() < 1e-9 or second.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _rounded_mean(values: list[float]) -> float | None:
    mean = float(np.mean(values))
    return None if np.isnan(mean) else round(mean, 4)


def head_metrics_of(pieces: Pieces) -> dict[str, Any]:
    """Metrics of the headline's unimodal heads over the seeds, and the label they were compared with."""
    per_seed = pieces.column(pieces.variants[0].name, "unimodal_heads")
    heads = {}
    for name in (name for name in per_seed[0] if all(name in seed for seed in per_seed)):
        values = [{key: value for key, value in seed[name].items() if key != "against"} for seed in per_seed]
        heads[name] = {**mean_and_std(values), "against": per_seed[0][name]["against"]}
    return heads


def alignment_of(pieces: Pieces) -> dict[str, Any]:
    """Cloud distances before and after stage 1, mean over the seeds."""
    paths = [pieces.seed_folder(seed).piece("alignment") for seed in pieces.seeds]
    per_seed = [read_json(path) for path in paths if path.is_file()]
    if not per_seed:
        return {}
    distances: dict[str, Any] = {}
    for name, moments in per_seed[0].items():
        for moment, values in moments.items():
            means = {key: round(float(np.mean([seed[name][moment][key] for seed in per_seed])), 4) for key in values}
            distances.setdefault(name, {})[moment] = means
    return distances


def preprocessing_of(corpus: LabelledCorpus) -> dict[str, Any] | None:
    """How the clips were preprocessed, from the dataset's own record; None for a pickle, which has none."""
    if corpus.info is None:
        return None
    info = corpus.info
    return {
        "word_error_rate": (info.asr or {}).get("word_error_rate"),
        "face_rate": info.counts.get("mean_face_rate"),
        "kept": info.counts.get("kept"),
        "skipped": info.counts.get("skipped", {}),
        "asr": info.asr,
    }


def steps_of(pieces: Pieces, corpus: LabelledCorpus, pretraining: dict[str, Any] | None, seconds: float) -> list[dict[str, Any]]:
    """Seconds and peak memory of each step; those before fine-tuning are from their own records."""
    steps: list[dict[str, Any]] = []

    def add(name: str, spent: float | None, memory: float | None) -> None:
        steps.append({"name": name, "seconds": spent, "peak_memory_mb": memory})

    if corpus.info is not None:
        add("preprocessing of the labelled clips", corpus.info.seconds.get("total"), corpus.info.peak_memory_mb)
    if pretraining is not None:
        add("SKESL pretraining", pretraining.get("seconds", {}).get("total"), pretraining.get("peak_memory_mb"))
    for stage, spent in pieces.stage_seconds.items():
        add(f"{stage} of the headline model, all seeds", spent, None)
    add("fine-tuning in total, with all controls", round(seconds, 1), round(pieces.peak_memory_mb, 1))
    return steps


def write_tables(run: Path, pieces: Pieces, corpus: LabelledCorpus) -> None:
    """Write history.csv, unimodal_labels.csv, predictions.csv and clouds.npz (of the first seed)."""
    history = [
        {"variant": variant, "seed": seed, **epoch} for (variant, seed), result in pieces.results.items() for epoch in result["history"]
    ]
    pd.DataFrame(history).to_csv(run / "history.csv", index=False)
    _write_labels(run, pieces, corpus)
    _write_predictions(run, pieces, corpus)
    clouds = pieces.arrays(pieces.seeds[0], "clouds")
    if clouds:
        write_arrays(run / "clouds.npz", clouds)


def write_curves(run: Path, pieces: Pieces) -> None:
    """Write `logs/`: learning curves for TensorBoard, one per variant and seed; epochs of stage 3 follow those of stage 1."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(run / "logs", ignore_errors=True)
    for (variant, seed), result in pieces.results.items():
        with SummaryWriter(str(run / "logs" / f"{variant}-{seed}")) as writer:
            for step, epoch in enumerate(result["history"], start=1):
                writer.add_scalar(f"stage {epoch['stage']}/train loss", epoch["train_loss"], step)
                if epoch["dev_MAE"] is not None:
                    writer.add_scalar(f"stage {epoch['stage']}/dev MAE", epoch["dev_MAE"], step)


def _write_labels(run: Path, pieces: Pieces, corpus: LabelledCorpus) -> None:
    train = corpus.splits["train"]
    parts = []
    for variant in pieces.variants:
        if variant.generator == "none" or not variant.start.pretrained:
            continue
        for seed in pieces.seeds:
            for name, learned in pieces.arrays(seed, f"{variant.name}_labels").items():
                known = getattr(train, HUMAN_LABELS[name])
                columns = {"generator": variant.name, "seed": seed, "modality": name, "id": train.ids, "y": train.label, "learned": learned}
                parts.append(pd.DataFrame({**columns, "known": known if known is not None else np.nan}))
    if parts:
        pd.concat(parts).to_csv(run / "unimodal_labels.csv", index=False, float_format="%.5g")


def _write_predictions(run: Path, pieces: Pieces, corpus: LabelledCorpus) -> None:
    split = corpus.splits[corpus.evaluated_on]
    parts = []
    for seed in pieces.seeds:
        predicted = pieces.arrays(seed, f"{pieces.variants[0].name}_predictions")
        columns: dict[str, Any] = {"seed": seed, "id": split.ids, "video_id": split.video_ids, "text": split.text, "label": split.label}
        for name in MODALITIES:
            known = getattr(split, HUMAN_LABELS[name])
            columns[HUMAN_LABELS[name]] = known if known is not None else np.nan
        columns |= {f"pred_{letter}": predicted.get(f"pred_{letter}", np.nan) for letter in LETTERS.values()}
        parts.append(pd.DataFrame(columns))
    pd.concat(parts).to_csv(run / "predictions.csv", index=False, float_format="%.5g")
