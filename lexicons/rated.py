"""Sentences that people rated: a source of sentiment knowledge beside lexicons of words.

>>> rated = load_rated()
>>> len(rated), rated.texts[2], round(float(rated.scores[2]), 2)
(23703, 'Effective but too tepid biopic', -0.45)
"""

from pathlib import Path

from lexicons import rated_hutto
from lexicons.rated_tables import read_rated_table
from lexicons.rated_texts import RatedTexts, shared_ngrams
from skesl_mug.errors import UserError
from skesl_mug.pip_files import fetch_sdist

__all__ = ["HUTTO", "HUTTO_SHA256", "RatedTexts", "load_rated", "rated_file", "shared_ngrams"]

HUTTO = "hutto-gilbert"
HUTTO_SHA256 = rated_hutto.SHA256
"""Names the published set: Hutto and Gilbert 2014, 23,703 rated snippets of reviews, editorials and tweets."""


def load_rated(place: str | Path = HUTTO, score_range: tuple[float, float] | None = None) -> RatedTexts:
    """Texts with mean ratings on [-3, 3].

    Args:
        place: `HUTTO`, which is fetched once by pip (2.5 MB); its archive `vaderSentiment-2.5.tar.gz`; or a csv or tsv file with a
            column of texts and one of scores, as `read_rated_table` takes it.
        score_range: lowest and highest score of a file's scale, where its own scores should not say it.

    Raises:
        UserError: the published set cannot be fetched, or the file is missing, has no such columns or too few usable rows.
    """
    if str(place) == HUTTO:
        archive = fetch_sdist(
            rated_hutto.REQUIREMENT,
            rated_hutto.SHA256,
            "rated sentences",
            size="2.5 MB",
            flag="`--rated FILE` of pretrain or starter",
            instead="a csv file of your own (columns text and score)",
        )
        return rated_hutto.read_hutto(archive)
    path = rated_file(place)
    if path.name.endswith((".tar.gz", ".tgz")):
        return rated_hutto.read_hutto(path)
    return read_rated_table(path, score_range)


def rated_file(place: str | Path) -> Path:
    """The file that --rated names.

    Raises:
        UserError: there is none.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        is_folder = "is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"--rated {place}: {is_folder}; give {HUTTO}, or a csv or tsv file with the columns text and score")
    return path
