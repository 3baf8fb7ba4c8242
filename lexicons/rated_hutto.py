"""The sentences that Hutto and Gilbert had rated (VADER, ICWSM 2014): read from the archive of the pip package that carries them.

23,703 snippets of film reviews, product reviews, New York Times editorials and tweets, each rated by some 20 people from -4 to 4
(https://doi.org/10.1609/icwsm.v8i1.14550, section 4). Nothing is unpacked to disk and none of the package's code is run here.
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

from lexicons.rated_texts import RatedTexts, join_groups
from skesl_mug.errors import UserError
from skesl_mug.pip_files import hash_of

REQUIREMENT = "vaderSentiment==2.5"  # later versions leave the rated sentences out
SHA256 = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
REFERENCE = "Hutto and Gilbert 2014, rated sentences (vaderSentiment 2.5)"
INNER_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
CORPORA = {"movie": "movieReviewSnippets", "amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets", "tweet": "tweets"}
DOCUMENTS = ("amazon", "nyt")  # their ids are `document_sentence`; the others' are of single snippets
SCALE = 3 / 4  # ratings of -4 to 4 on the scale of MOSI's labels
SAME_MEAN = 1e-3  # means are printed with 9 or more digits


def read_hutto(path: Path) -> RatedTexts:
    """The rated sentences in vaderSentiment 2.5's source archive: 23,703 of them in the published file.

    A spread is NaN where the listed ratings are not those behind the mean: in the published file 199 tweets, among them variants of one
    tweet, which have the mean of another round of rating.

    Raises:
        UserError: the archive is damaged or another one.
    """
    try:
        texts, scores, spreads, groups, notes = _read_archive(path)
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--rated {path}: is not the source archive of vaderSentiment 2.5, or damaged ({reason}); "
            "leave the file away to have it fetched, or give a csv file of texts and scores"
        ) from error
    return RatedTexts(
        name=REFERENCE,
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
        for corpus, file in CORPORA.items():
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
                notes.append(f"{corpus}: {twice:,} sentences and {twice_rated:,} ratings of an id that was there before are left out")
            if unknown:
                notes.append(
                    f"{corpus}: spread unknown for {unknown:,} of {len(sentences):,} texts, whose listed ratings have another mean"
                )
    return texts, scores, spreads, groups, notes


def _member(archive: tarfile.TarFile, ending: str) -> bytes:
    """A file of an archive, by the end of its path, in memory."""
    for member in archive:
        if member.isfile() and f"/{member.name}".endswith(f"/{ending}"):
            file = archive.extractfile(member)
            if file is not None:
                return file.read()
    raise LookupError(f"it holds no {ending}")


def _rows(content: bytes) -> list[list[str]]:
    lines = io.StringIO(content.decode("utf-8-sig"), newline="")
    return [row for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if row]


def _by_id(rows: list[list[str]]) -> tuple[dict[str, list[str]], int]:
    """Rows by their first column, and how many of an id that was there before are left out."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row[0].strip(), row[1:])
    return found, len(rows) - len(found)


def _unescape(text: str) -> str:
    """Text without HTML's entities; some were escaped twice (`&amp;amp;`)."""
    plain = html.unescape(text)
    return plain if plain == text else _unescape(plain)


def _spread(score: float, row: list[str] | None) -> float:
    """Standard deviation of the single ratings where their mean is the text's, else NaN; `row`: mean, standard deviation, ratings."""
    if row is None or abs(float(row[0]) - score) > SAME_MEAN:
        return math.nan
    return float(row[1]) if row[1].strip() else statistics.pstdev(json.loads(row[2]))
