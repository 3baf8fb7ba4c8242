"""The report of a synthetic run folder: all parts, missing parts, the findings, and that the page loads nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from synthetic_run import MODALITIES, make_run

from finetune.report import pictures
from finetune.report.sections import write_report
from skesl_mug.errors import UserError


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
    """Rendering takes most of the time; `full` (created before this) and the test of reproducibility do it for real."""
    monkeypatch.setattr(pictures, "png", lambda figure: b"no pixels")


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    run = make_run(tmp_path_factory.mktemp("full") / "run")
    write_report(run)
    return run


def test_the_page_is_complete_and_loads_nothing(full):
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


def test_synthetic_data_are_announced_at_the_top(full):
    page = (full / "report.html").read_text(encoding="utf-8")
    assert page.index('class="banner"') < page.index("<h2>")
    assert "Synthetic data:" in plain(page)
    assert "> **Synthetic data:**" in (full / "report.md").read_text(encoding="utf-8")


def test_real_data_have_no_banner(tmp_path):
    run = make_run(tmp_path / "run")
    change_results(run, lambda results: results["data"].update(made=False))
    assert "Synthetic data" not in plain(page_of(run))


def test_files_linked_in_the_markdown_exist(full):
    markdown = (full / "report.md").read_text(encoding="utf-8")
    names = re.findall(r"\]\(([^)]+)\)", markdown)
    assert len(names) >= 6
    assert all((full / name).is_file() for name in names)


def test_transcripts_are_escaped_and_the_masked_word_is_marked(full):
    page = (full / "report.html").read_text(encoding="utf-8")
    assert "<i>awful</i>" not in page
    assert "&lt;i&gt;awful&lt;/i&gt;" in page
    assert re.search(r'<span class="mask" title="masked in pretraining, intensity \+2.70">wonderful</span>', page)
    assert re.search(r'<span class="lexicon" title="intensity −1.90">ruined</span>', page)
    assert "没有图片" in page


def test_the_verdict_reports_what_is_better_and_what_is_not(full):
    text = plain((full / "report.html").read_text(encoding="utf-8"))
    assert re.search(r"It is better than always predicting the training median \(MAE [\d.]+\), text only", text)
    assert re.search(r"There is no clear difference from the model without pretraining \(MAE [\d.]+; detectable: 0\.\d{3}\)", text)
    assert "the smallest true difference that these tests find with 80 % power" in text
    assert "Audio and vision were used" in text
    assert (
        "unimodal labels are closer to the known ones than copies of y for text and audio; farther from the known ones "
        "than copies of y for vision (margin 0.015 MAE)" in text
    )
    assert "no clear difference from no pretraining" in text


def test_a_bad_result_is_reported_plainly(tmp_path):
    run = make_run(tmp_path / "run", gain=-0.15, av_used=False)

    def spoil(results: dict) -> None:
        for row in results["unimodal_labels"].values():
            row["MAE"] = row["copy_MAE"] + 0.1
        for row in results["alignment"].values():
            row["after"]["retrieval_at_1"] = 0.0

    change_results(run, spoil)
    text = plain(page_of(run))
    assert re.search(r"It is worse than [^.]*text only \(MAE [\d.]+\)", text)
    assert "Audio and vision were not used" in text
    assert "unimodal labels are farther from the known ones than copies of y for text, audio and vision (margin 0.015 MAE)" in text
    assert "Stage 1 did not align the spaces" in text
    assert "worse than text only" in text


def test_one_seed_does_not_support_comparisons(tmp_path):
    text = plain(page_of(make_run(tmp_path / "run", seeds=[1111])))
    assert "one seed, so its spread is unknown" in text
    assert "With one seed, no difference could have been shown" in text
    assert "It is better than" not in text
    assert "This is from one seed, so its spread is unknown." in text
    assert "±" not in text


def test_the_learning_curve_of_a_single_epoch_is_visible() -> None:
    history = pd.DataFrame({"seed": 1, "stage": [1, 3], "epoch": 1, "variant": "copy", "dev_MAE": 0.5, "train_loss": 0.5})
    again = pd.concat([history, history.assign(epoch=2)])
    assert pictures._marker(pictures._mean_of_all_seeds(history[history["stage"] == 1], "dev_MAE")) == "o"
    assert pictures._marker(pictures._mean_of_all_seeds(again[again["stage"] == 1], "dev_MAE")) == ""


def test_a_run_with_results_only_has_a_report(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    mean = {"MAE": 0.8, "Corr": None, "Has0_acc_2": 0.7, "Non0_acc_2": None, "Has0_F1_score": 0.7, "Non0_F1_score": None}
    results = {"dataset": "custom", "seeds": [1], "headline": "none", "metrics": {"1": mean, "mean": mean, "std": {}}, "pretraining": None}
    (run / "results.json").write_text(json.dumps(results))
    page = page_of(run)
    assert Sources(page).open == []
    text = plain(page)
    assert "Not shown: training curves (the run has no history.csv)" in text
    assert "Not shown: example utterances (the run has no examples/examples.json)" in text
    assert "The model without unimodal tasks reaches MAE 0.800" in text
    assert "70.00 / –" in text


@pytest.mark.parametrize(
    "absent", ["history.csv", "clouds.npz", "unimodal_labels.csv", "predictions.csv", "examples/examples.json", "examples/0.jpg"]
)
def test_any_file_may_be_missing(tmp_path, absent):
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
    assert "cannot be measured" in text
    assert "MAE of copies" not in text
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
    with pytest.raises(UserError, match=r"no results\.json"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json: is damaged"):
        write_report(tmp_path)


def test_few_samples_do_not_support_comparisons(tmp_path):
    run = make_run(tmp_path / "run")

    def few(results):
        results["data"]["counts"]["test"] = 9

    assert "better than text only" in plain(page_of(run))
    change_results(run, few)
    page = plain(page_of(run))
    assert "With 9 samples, no difference could have been shown" in page
    assert "With only 9 samples, this is weak evidence" in page
    assert "better than text only" not in page


def test_closed_modalities_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    results["gates"] = {name: {"gate": gate, "gain": 0.1, "error": 0.01} for name, gate in (("text", 1.0), ("audio", 0.0), ("vision", 0.5))}
    (folder / "results.json").write_text(json.dumps(results))
    text = write_report(folder).with_suffix(".md").read_text()
    assert "without gain on held-out utterances of train: audio." in text
    assert "| Vision | 50 % | +0.1000 ± 0.0100 |" in text
