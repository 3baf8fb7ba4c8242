"""A synthetic run folder as `run_mug.py` writes it; its metrics are computed from random labels and noise."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from finetune.metrics import mean_and_std, score
from finetune.significance import paired_over_seeds

SEEDS = [1111, 1112, 1113]
MODALITIES = {"text": "T", "audio": "A", "vision": "V"}

RECORD = {
    "steps": [
        {"name": name, "seconds": 61.5, "peak_memory_mb": 812.0}
        for name in ("sample corpus", "preprocessing", "pretraining", "fine-tuning")
    ],
    "preprocessing": {
        "word_error_rate": {"value": 0.083, "utterances": 400},
        "face_rate": 0.991,
        "kept": 598,
        "skipped": {"no speech": 1, "no face": 1},
    },
    "pretraining": {
        "validation": {"MAE": 0.61, "Corr": 0.55, "n": 40, "split_by": "speaker"},
        "controls": {
            "constant": {"MAE": 0.9},
            "text_only": {"MAE": 0.66, "Corr": 0.5},
            "shuffled_audio_vision": {"MAE": 0.67, "Corr": 0.49},
        },
        "history": [{"epoch": n, "step": n, "train_loss": 1 / n + 0.4, "valid_MAE": 0.6 + 0.5 / n} for n in range(1, 9)],
        "sentence": "Audio and vision were used: without them the MAE rises by 0.05.",
    },
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "data_sha256": "ab" * 32,
    "seconds": {"stage 1": 12.0},
    "peak_memory_mb": 900.5,
    "command": "python finetune/run_mug.py --dataset custom --data utterances --output run",
}


def make_run(folder: Path, *, seeds=SEEDS, dataset="mosi", gain=0.25, av_used=True, examples=True) -> Path:
    """A run folder as `run_mug.py` writes it; its metrics are computed from random labels and noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    count, scale = 150, 1.0 if dataset.startswith("sims") else 3.0
    label = np.clip(rng.normal(0, 0.5, count), -1, 1) * scale
    known = {name: np.clip(label + rng.normal(0, 0.3 * scale, count), -scale, scale) for name in MODALITIES}

    def scores(noise: float, seed: int) -> dict:
        made = label * 0.8 + np.random.default_rng(seed).normal(0, noise * scale, count)
        return score(made, label, dataset)

    def entry(noise: float) -> dict:
        values = [scores(noise, seed + round(1000 * noise)) for seed in seeds]
        paired = paired_over_seeds([value["MAE"] for value in values], [scores(0.3, seed)["MAE"] for seed in seeds])
        return {**mean_and_std(values), **({} if paired is None else {"paired": paired})}

    metrics = {str(seed): scores(0.3, seed) for seed in seeds}
    constant = mean_and_std([score(np.zeros(count), label, dataset)])
    tested = paired_over_seeds([constant["mean"]["MAE"]] * len(seeds), [metrics[str(seed)]["MAE"] for seed in seeds])
    controls = {
        "constant": {**constant, **({} if tested is None else {"paired": tested}), "note": "always the training median, 0"},
        "text_only": entry(0.3 + gain),
        "no_pretraining": entry(0.302),
        "no_unimodal_tasks": entry(0.34),
        "permuted_audio_vision": entry(0.45 if av_used else 0.3),
        "labels_copy": entry(0.33),
        "labels_mucn_meta": entry(0.33),
        "labels_human": entry(0.29),
        "some_new_control": entry(0.4),
    }
    quality = {
        name: {"MAE": 0.30 * scale, "Corr": 0.76, "copy_MAE": 0.34 * scale, "copy_Corr": 0.71, "moved": 0.62, "mean_change": 0.2}
        for name in MODALITIES
    }
    quality["vision"] |= {"MAE": 0.36 * scale}
    generators = {"mucn-crossfit": quality, "mucn-meta": quality, "copy": quality}
    alignment = {
        name: {
            "before": {"centroid_distance": 1.2, "retrieval_at_1": 0.011, "chance": 1 / count},
            "after": {"centroid_distance": 0.21, "retrieval_at_1": 0.38, "chance": 1 / count},
        }
        for name in MODALITIES
    }
    heads = {name: {**entry(0.5), "against": f"label_{letter}"} for name, letter in MODALITIES.items()}
    results = {
        **_about(dataset, scale, count, av_used),
        "seeds": list(seeds),
        "metrics": {**metrics, **mean_and_std(list(metrics.values()))},
        "unimodal_head_metrics": heads,
        "controls": controls,
        "unimodal_labels": quality,
        "unimodal_labels_by_generator": generators,
        "alignment": alignment,
        **RECORD,
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    _write_tables(folder, rng, list(seeds), label, known, scale)
    if examples:
        _write_examples(folder, scale)
    return folder


def _about(dataset: str, scale: float, count: int, av_used: bool) -> dict:
    return {
        "dataset": dataset,
        "title": "Sample corpus, end to end",
        "data": {
            "name": "sample corpus",
            "source": "utterances",
            "made": True,
            "how": "a grammar's sentences, a synthetic voice, one warped face",
            "label_range": [-scale, scale],
            "modalities": ["text", "audio", "vision"],
            "counts": {"train": 200, "dev": 50, "test": count},
            "findings": [{"severity": "note", "where": "train, valid/id", "what": "videos that lie in both splits", "count": 59}],
        },
        "evaluated_on": "test",
        "evaluated_on_note": None,
        "headline": "mucn-crossfit",
        "audio_vision_use": {
            "margin": 0.02,
            "MAE": 0.4,
            "permuted_MAE": 0.5,
            "difference": 0.1,
            "used": av_used,
            "sentence": f"Audio and vision were {'' if av_used else 'not '}used: with other people's the MAE goes from 0.400 to 0.500.",
        },
    }


def _write_tables(folder: Path, rng: np.random.Generator, seeds: list[int], label: np.ndarray, known: dict, scale: float) -> None:
    history = [
        {
            "variant": variant,
            "seed": seed,
            "stage": stage,
            "epoch": epoch,
            "train_loss": 1 / epoch + offset,
            "dev_MAE": 0.5 + offset + 0.4 / epoch + wave,
        }
        for variant, offset in (("mucn-crossfit", 0.0), ("copy", 0.05), ("no_unimodal_tasks", 0.1), ("text_only", 0.2))
        for seed in seeds
        for stage in (1, 3)
        for epoch in range(1, 13)
        for wave in (float(rng.normal(0, 0.01)),)
    ]
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    arrays = {"label": label}
    base = rng.normal(size=(len(label), 16))
    for place, name in enumerate(MODALITIES):
        shift = np.eye(16)[place] * 4
        arrays[f"before_{name}_unimodal"] = rng.normal(size=base.shape) + shift
        arrays[f"before_{name}_projected"] = rng.normal(size=base.shape) - shift
        arrays[f"after_{name}_unimodal"] = base + 0.3 * rng.normal(size=base.shape)
        arrays[f"after_{name}_projected"] = base + 0.3 * rng.normal(size=base.shape)
    np.savez(folder / "clouds.npz", **arrays)
    ids = [f"video{n // 5}/{n}" for n in range(len(label))]
    rows = [
        pd.DataFrame(
            {
                "generator": generator,
                "seed": seed,
                "modality": name,
                "id": ids,
                "y": label,
                "learned": 0.6 * label + 0.4 * known[name],
                "known": known[name],
            }
        )
        for generator in ("mucn-crossfit", "copy")
        for seed in seeds
        for name in MODALITIES
    ]
    pd.concat(rows).to_csv(folder / "unimodal_labels.csv", index=False)
    table = {"id": ids, "video_id": [i.split("/")[0] for i in ids], "text": "a text", "label": label}
    table |= {f"label_{letter}": known[name] for name, letter in MODALITIES.items()}
    table |= {f"pred_{letter}": np.clip(label + rng.normal(0, 0.3 * scale, len(label)), -scale, scale) for letter in "MTAV"}
    pd.concat([pd.DataFrame({"seed": seed, **table}) for seed in seeds]).to_csv(folder / "predictions.csv", index=False)


def _write_examples(folder: Path, scale: float) -> None:
    (folder / "examples").mkdir(exist_ok=True)
    pixels = np.zeros((180, 180, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(180)[:, None], np.arange(180)[None]
    cv2.imwrite(str(folder / "examples" / "0.jpg"), pixels)
    text = "the battery is wonderful but <i>awful</i> service ruined it"
    start = text.index("wonderful")
    entry = {
        "id": "video0/0",
        "text": text,
        "words": [{"text": "ruined", "start_char": text.index("ruined"), "end_char": text.index("ruined") + 6, "intensity": -1.9}],
        "mask": {"start_char": start, "end_char": start + 9, "intensity": 2.7},
        "label": {"M": 0.3 * scale, "T": 0.5 * scale, "A": None, "V": -0.8 * scale},
        "predicted": {"M": 0.2 * scale, "T": 0.6 * scale, "A": -0.1 * scale, "V": -0.5 * scale},
        "frame": "0.jpg",
    }
    bare = {
        "id": "video1/3",
        "text": "没有图片",
        "words": [],
        "mask": None,
        "frame": None,
        "label": {"M": 0.1},
        "predicted": {"M": -2 * scale},
    }
    (folder / "examples" / "examples.json").write_text(json.dumps([entry] * 3 + [bare]), encoding="utf-8")
