"""Comparing runs: the table, both tests, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.compare import CompareOptions, main, read_comparison
from finetune.metrics import mean_and_std, score
from finetune.significance import difference_by_video
from skesl_mug.errors import UserError


def synthetic_run(folder: Path, noise: float, seeds=(1, 2, 3, 4), dataset="mosi", sha="a", videos=20):
    """A finished run whose predictions are the labels plus noise of a known size."""
    labels = np.random.default_rng(0).uniform(-3, 3, 5 * videos).astype(np.float32)
    names = [f"v{place // 5}" for place in range(len(labels))]
    scores, tables = {}, []
    for seed in seeds:
        predictions = labels + np.random.default_rng((seed, round(100 * noise))).normal(0, noise, len(labels))
        scores[seed] = score(predictions, labels, dataset)
        ids = [f"{name}/{place}" for place, name in enumerate(names)]
        tables.append(pd.DataFrame({"seed": seed, "id": ids, "video_id": names, "label": labels, "pred_M": predictions}))
    folder.mkdir()
    pd.concat(tables).to_csv(folder / "predictions.csv", index=False)
    metrics = {**{str(seed): value for seed, value in scores.items()}, **mean_and_std(list(scores.values()))}
    entries = {"dataset": dataset, "evaluated_on": "test", "headline": "copy", "seeds": list(seeds), "metrics": metrics}
    (folder / "results.json").write_text(json.dumps({**entries, "data_sha256": sha, "data": {"made": False}}))
    return folder


def test_a_worse_run_is_marked_and_its_twin_is_not(tmp_path):
    runs = [synthetic_run(tmp_path / "base", 0.3), synthetic_run(tmp_path / "worse", 0.5), synthetic_run(tmp_path / "twin", 0.3)]
    comparison = read_comparison(runs, [], 200, published=True)
    base, worse, twin, published = comparison.rows
    assert worse.differs
    assert not twin.differs
    assert not base.differs
    assert worse.mean - base.mean == pytest.approx(0.2 * np.sqrt(2 / np.pi), abs=0.03)  # mean |normal| is 0.8 of its deviation
    assert worse.cells[-1].endswith("*")
    assert published.published
    assert published.name.endswith("†")
    assert len(comparison.dots()) == 3


def test_runs_with_the_same_name_get_distinct_names(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    runs = [synthetic_run(tmp_path / "first" / "mug", 0.3), synthetic_run(tmp_path / "second" / "mug", 0.4)]
    names = [row.name for row in read_comparison(runs, [], 0, published=False).rows]
    assert names == ["first/mug (copy)", "second/mug (copy)"]
    assert read_comparison([runs[0], runs[0]], [], 0, published=False).rows[0].name == "mug (copy)"


def test_runs_on_other_utterances_get_no_difference(tmp_path):
    runs = [synthetic_run(tmp_path / "one", 0.3), synthetic_run(tmp_path / "other", 0.4, sha="b")]
    table = pd.read_csv(runs[1] / "predictions.csv")
    table.assign(id="else/" + table["id"]).to_csv(runs[1] / "predictions.csv", index=False)
    comparison = read_comparison(runs, [], 50, published=False)
    assert comparison.rows[1].further[1] == ""
    assert any("evaluated on other utterances than the first run" in note for note in comparison.notes)
    assert read_comparison([runs[0], runs[0]], [], 50, published=False).rows[1].further[1].startswith("0.000")


def test_the_files_are_written_and_the_table_is_complete(tmp_path, capsys):
    runs = [synthetic_run(tmp_path / "with_a_name", 0.3), synthetic_run(tmp_path / "b", 0.4, seeds=(1, 2), sha="b")]
    main(CompareOptions(runs=runs, output=tmp_path / "out", draws=50))
    printed = capsys.readouterr().out
    assert "other seeds than the first" in printed
    assert "other data than the first" in printed
    markdown, latex = ((tmp_path / "out" / f"comparison.{kind}").read_text() for kind in ("md", "tex"))
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000
    widths = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in body}) == 1
    assert r"with\_a\_name" in latex


def test_the_bootstrap_agrees_with_a_plain_one(tmp_path):
    first, second = (
        pd.read_csv(synthetic_run(tmp_path / name, noise, seeds=(1,)) / "predictions.csv") for name, noise in (("a", 0.5), ("b", 0.3))
    )
    second["pred_M"] += np.random.default_rng(9).normal(0, 0.4, len(second))
    low, high = difference_by_video(first, second, 2000)
    errors = (first["pred_M"] - first["label"]).abs() - (second["pred_M"] - second["label"]).abs()
    by_video = errors.groupby(first["video_id"]).mean().to_numpy()  # videos are equally long
    random = np.random.default_rng(3)
    plain = [random.choice(by_video, len(by_video)).mean() for _ in range(2000)]
    assert (low, high) == pytest.approx(tuple(np.percentile(plain, [2.5, 97.5])), abs=0.01)
    assert difference_by_video(first[first["video_id"] == "v0"], second, 100) is None
    assert difference_by_video(None, second, 100) is None


def test_runs_that_are_not_comparable_are_refused(tmp_path):
    run = synthetic_run(tmp_path / "a", 0.3)
    with pytest.raises(UserError, match="is a run on sims"):
        read_comparison([run, synthetic_run(tmp_path / "sims", 0.1, dataset="sims")], [], 0, published=False)
    with pytest.raises(UserError, match="not a finished run"):
        read_comparison([run, tmp_path], [], 0, published=False)
    with pytest.raises(UserError, match="at least two runs"):
        CompareOptions(runs=[run])
    with pytest.raises(UserError, match="one name per run"):
        CompareOptions(runs=[run, run], names=["x"])
    (run / "results.json").write_text('{"validation": {}}')  # of a pretraining run
    with pytest.raises(UserError, match=r"results\.json: not written by fine-tuning"):
        read_comparison([run, run], [], 0, published=False)
    (run / "results.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_comparison([run, run], [], 0, published=False)
