"""The map of where learned labels help: its corpora, its stacked networks, its table."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import label_map
from benchmarks.label_map import MapOptions, corpus, main, train


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_map, "TEST", 60)
    monkeypatch.setattr(label_map, "BATCHES", 40)


def test_noise_and_contradiction_change_only_what_they_name() -> None:
    calm, noisy, contradicted = (corpus(share, noise, 32, 1) for share, noise in ((0.0, 0.0), (0.0, 0.5), (1.0, 0.0)))
    np.testing.assert_array_equal(calm["x"], noisy["x"])
    np.testing.assert_array_equal(calm["labels"]["true"], noisy["labels"]["true"])
    np.testing.assert_array_equal(calm["y"][-60:], noisy["y"][-60:])  # test labels have no noise
    assert np.abs(calm["y"][:32] - noisy["y"][:32]).mean() > 0.2
    assert np.ptp(contradicted["labels"]["true"], axis=0).mean() > 2 * np.ptp(calm["labels"]["true"], axis=0).mean()
    assert (np.sign(contradicted["labels"]["true"]).sum(0) != 3 * np.sign(contradicted["y"][:32])).mean() > 0.8


def test_a_corpus_does_not_change_the_results_of_those_trained_beside_it() -> None:
    one, other = corpus(0.25, 0.0, 32, 1), corpus(0.25, 0.25, 32, 2)
    alone, together = train([one], [1]), train([other, one], [2, 1])
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-4)
    assert len(set(alone[0].round(5))) > 1  # the label source matters


def test_the_map_is_written(tmp_path: Path) -> None:
    main(MapOptions(output=tmp_path, contradiction=[0.5], noise=[0.25], sizes=[32], seeds=[1, 2, 3]))
    table = (tmp_path / "map.md").read_text(encoding="utf-8")
    assert table.splitlines()[2].startswith("| 32 | 0.5 | 0.25 | 0.")
    assert (tmp_path / "map.png").stat().st_size > 5000
