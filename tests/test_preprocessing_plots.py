"""Bins and ticks at round numbers."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preprocessing.plots import bins_between, bins_from_zero, bins_of_counts, histogram, round_step


@pytest.mark.parametrize(("span", "step"), [(6.0, 1.0), (2.0, 0.5), (4.0, 1.0), (0.3, 0.05), (100.0, 20.0)])
def test_steps_are_round(span: float, step: float) -> None:
    assert round_step(span, 6) == pytest.approx(step)


def test_zero_is_in_the_middle_of_a_bin() -> None:
    bins = bins_between(-3, 3)
    place = np.digitize(0.0, bins.edges) - 1
    assert bins.edges[place] + bins.edges[place + 1] == pytest.approx(0.0)
    assert bins.ticks == (-3, -2, -1, 0, 1, 2, 3)


def test_counts_have_their_own_bins() -> None:
    bins = bins_of_counts([3, 7, 7])
    assert bins.edges == tuple(place - 0.5 for place in range(9))
    assert len(bins_of_counts([500]).edges) <= 25


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=20))
@example([1.0000000002289441e-05])
@example([3.0000000000001])
def test_every_length_is_in_a_bin(values: list[float]) -> None:
    bins = bins_from_zero(values)
    assert np.histogram(values, bins=bins.edges)[0].sum() == len(values)
    assert len(bins.ticks) <= 7


def test_a_single_value_is_drawn() -> None:
    assert histogram([2.0], bins_from_zero([2.0])).startswith(b"\x89PNG")
