"""The report, written from a made run folder: every part present, parts absent, what the verdict says, and that nothing leaves the page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from finetune.metrics import mean_and_std, score
from finetune.report import pictures, write_report
from lexicons.errors import UserError

SEEDS = [1111, 1112, 1113]
MODALITIES = {"text": "T", "audio": "A", "vision": "V"}


def make_run(folder: Path, *, seeds=SEEDS, dataset="mosi", gain=0.25, av_used=True, examples=True) -> Path:
    """A run folder in the form that `run_mug.py` writes, its figures computed from made labels and noise."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    count, scale = 150, 1.0 if dataset.startswith("sims") else 3.0
    label = np.clip(rng.normal(0, 0.5, count), -1, 1) * scale
    known = {name: np.clip(label + rng.normal(0, 0.3 * scale, count), -scale, scale) for name in MODALITIES}

    def scores(noise: float, seed: int) -> dict:
        made = label * 0.8 + np.random.default_rng(seed).normal(0, noise * scale, count)
        return score(made, label, dataset)

    def entry(noise: float) -> dict:
        return mean_and_std([scores(noise, seed) for seed in seeds])

    metrics = {str(seed): scores(0.3, seed) for seed in seeds}
    controls = {
        "constant": {**mean_and_std([score(np.zeros(count), label, dataset)]), "note": "always the training median, 0"},
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
        "seeds": list(seeds),
        "metrics": {**metrics, **mean_and_std(list(metrics.values()))},
        "unimodal_head_metrics": heads,
        "controls": controls,
        "unimodal_labels": quality,
        "unimodal_labels_by_generator": generators,
        "alignment": alignment,
        "audio_vision_use": {
            "margin": 0.02,
            "MAE": 0.4,
            "permuted_MAE": 0.5,
            "difference": 0.1,
            "used": av_used,
            "sentence": f"Audio and vision were {'' if av_used else 'not '}used: with other people's the MAE goes from 0.400 to 0.500.",
        },
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
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    _write_tables(folder, rng, list(seeds), label, known, scale)
    if examples:
        _write_examples(folder, scale)
    return folder


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


class Sources(HTMLParser):
    """Collects what a page would fetch, and the tags it opens and closes."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, page: str):
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.fetched += [value for key in ("src", "href") if (value := values.get(key)) and not value.startswith(("data:", "#"))]
        assert tag not in ("script", "link", "iframe")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", "", page, flags=re.S))


def change_results(run: Path, change) -> None:
    path = run / "results.json"
    results = json.loads(path.read_text(encoding="utf-8"))
    change(results)
    path.write_text(json.dumps(results), encoding="utf-8")


@pytest.fixture(autouse=True)
def _no_pixels(monkeypatch):
    """Turning figures into pixels takes most of the time; `full` (made before this) and the test of sameness do it for real."""
    monkeypatch.setattr(pictures, "_png", lambda figure: b"no pixels")


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    run = make_run(tmp_path_factory.mktemp("full") / "run")
    write_report(run)
    return run


def test_the_page_is_whole_and_fetches_nothing(full):
    page = (full / "report.html").read_text(encoding="utf-8")
    parsed = Sources(page)
    assert parsed.fetched == []
    assert parsed.open == []
    assert "url(" not in page
    assert "@import" not in page


def test_every_figure_of_the_table_is_that_of_the_results(full):
    results = json.loads((full / "results.json").read_text())
    text = plain((full / "report.html").read_text(encoding="utf-8"))
    markdown = (full / "report.md").read_text(encoding="utf-8")
    for entry in (results["metrics"], *results["controls"].values()):
        mean = entry["mean"]
        for shown in (
            f"{mean['MAE']:.3f}",
            f"{100 * mean['Has0_acc_2']:.2f} / {100 * mean['Non0_acc_2']:.2f}",
            f"{100 * mean['Mult_acc_7']:.2f}",
        ):
            assert shown in text
            assert shown in markdown
    assert "Some new control" in text
    assert f"± {results['metrics']['std']['MAE']:.3f}" in text
    assert "8.3 % over 400 utterances" in text
    assert "99.1 %" in text
    assert "no speech: 1, no face: 1" in text
    assert "videos that lie in both splits" in text
    assert "torch 2.13.0" in text


def test_made_data_are_called_made_at_the_top(full):
    page = (full / "report.html").read_text(encoding="utf-8")
    assert page.index('class="banner"') < page.index("<h2>")
    assert "Made data:" in plain(page)
    assert "> **Made data:**" in (full / "report.md").read_text(encoding="utf-8")


def test_real_data_have_no_banner(tmp_path):
    run = make_run(tmp_path / "run")
    change_results(run, lambda results: results["data"].update(made=False))
    assert "Made data" not in plain(page_of(run))


def test_the_markdown_names_files_that_are_there(full):
    markdown = (full / "report.md").read_text(encoding="utf-8")
    names = re.findall(r"\]\(([^)]+)\)", markdown)
    assert len(names) >= 6
    assert all((full / name).is_file() for name in names)


def test_transcripts_are_escaped_and_the_masked_word_is_marked(full):
    page = (full / "report.html").read_text(encoding="utf-8")
    assert "<i>awful</i>" not in page
    assert "&lt;i&gt;awful&lt;/i&gt;" in page
    assert re.search(r'<span class="mask" title="masked in pretraining, intensity \+2.70">wonderful</span>', page)
    assert re.search(r'<span class="lexicon" title="intensity -1.90">ruined</span>', page)
    assert "没有图片" in page


def test_the_verdict_says_what_is_better_and_what_is_not(full):
    text = plain((full / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"It is better than always predicting the training median \(MAE [\d.]+\), text only", text)
    assert "It is not clearly better or worse than the same without pretraining" in text
    assert "Audio and vision were used" in text
    assert "closer to the known ones than copies of y are (by 0.015 MAE or more) for text and audio, but not for vision" in text
    assert "no clear difference to no pretraining" in text


def test_a_bad_result_is_said_plainly(tmp_path):
    run = make_run(tmp_path / "run", gain=-0.15, av_used=False)

    def spoil(results: dict) -> None:
        for row in results["unimodal_labels"].values():
            row["MAE"] = row["copy_MAE"] + 0.1
        for row in results["alignment"].values():
            row["after"]["retrieval_at_1"] = 0.0

    change_results(run, spoil)
    text = plain(page_of(run))
    assert re.search(r"It is worse than text only \(MAE [\d.]+\) by more than the seeds' spread", text)
    assert "Audio and vision were not used" in text
    assert "no closer to the known ones than copies of y are" in text
    assert "Stage 1 did not align the spaces" in text
    assert "worse than text only" in text


def test_one_seed_claims_nothing(tmp_path):
    text = plain(page_of(make_run(tmp_path / "run", seeds=[1111])))
    assert "one seed, so nothing is known about its spread" in text
    assert "with one seed no difference can be told from chance" in text
    assert "It is better than" not in text
    assert "±" not in text


def test_a_run_with_results_alone_still_has_a_report(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    mean = {"MAE": 0.8, "Corr": None, "Has0_acc_2": 0.7, "Non0_acc_2": None, "Has0_F1_score": 0.7, "Non0_F1_score": None}
    results = {"dataset": "custom", "seeds": [1], "headline": "none", "metrics": {"1": mean, "mean": mean, "std": {}}, "pretraining": None}
    (run / "results.json").write_text(json.dumps(results))
    page = page_of(run)
    assert Sources(page).open == []
    text = plain(page)
    assert "Not shown: the run wrote no history.csv" in text
    assert "Not shown: the run wrote no examples/examples.json" in text
    assert "The model without unimodal tasks reaches MAE 0.800" in text
    assert "70.00 / –" in text


@pytest.mark.parametrize(
    "absent", ["history.csv", "clouds.npz", "unimodal_labels.csv", "predictions.csv", "examples/examples.json", "examples/0.jpg"]
)
def test_any_file_may_be_absent(tmp_path, absent):
    run = make_run(tmp_path / "run")
    (run / absent).unlink()
    assert Sources(page_of(run)).open == []


def test_labels_without_known_truth(tmp_path):
    run = make_run(tmp_path / "run")
    table = pd.read_csv(run / "unimodal_labels.csv")
    table["known"] = np.nan
    table.to_csv(run / "unimodal_labels.csv", index=False)

    def forget(results: dict) -> None:
        rows = {name: {"moved": 0.5, "mean_change": 0.1} for name in MODALITIES}
        results.update(unimodal_labels=rows, unimodal_labels_by_generator={"mucn-crossfit": rows})

    change_results(run, forget)
    text = plain(page_of(run))
    assert "cannot be measured here" in text
    assert "copy's MAE" not in text
    assert "50.0 %" in text


def test_the_same_run_gives_the_same_report(tmp_path, full, monkeypatch):
    monkeypatch.undo()
    assert page_of(make_run(tmp_path / "run")) == (full / "report.html").read_text(encoding="utf-8")


def test_the_pictures_are_pictures(full):
    files = {path.name: cv2.imread(str(path)) for path in (full / "pictures").glob("*.png")}
    assert set(files) == {"results.png", "predictions.png", "curves.png", "clouds.png", "labels.png", "pretraining.png"}
    for picture in files.values():
        assert picture.shape[1] > 1000
        assert len(np.unique(picture)) > 20


def test_no_run_and_a_damaged_one_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no results\.json"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json: is damaged"):
        write_report(tmp_path)
