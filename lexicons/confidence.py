"""How well the raters of a lexicon agreed on its entries."""

from importlib.util import find_spec
from pathlib import Path

from lexicons.lexicon import normalise
from skesl_mug.errors import UserError


def vader_deviations() -> dict[str, float]:
    """Standard deviation of the ten ratings behind each entry of VADER, on its scale of -4 to 4, by normalised word or phrase.

    Raises:
        UserError: VADER's package is not installed.
    """
    spec = find_spec("vaderSentiment")
    if spec is None or spec.origin is None:
        raise UserError("VADER's package is not installed; `pip install vaderSentiment`")
    deviations: dict[str, float] = {}
    for line in Path(spec.origin).with_name("vader_lexicon.txt").read_text(encoding="utf-8").splitlines():
        cells = line.split("\t")
        if len(cells) >= 3:
            deviations.setdefault(normalise(cells[0]), float(cells[2]))
    return deviations
