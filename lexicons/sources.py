"""Lexicons by name (those of pip packages) or from any file of words and numbers, scaled."""

from pathlib import Path

from lexicons.entries import FILE_TYPES, is_valence_file, read_entries
from lexicons.lexicon import Lexicon, build_lexicon
from lexicons.packages import PACKAGED
from skesl_mug.errors import UserError


def load_lexicon(
    name: str | Path, scale_to: float | None = 3.0, raw_range: tuple[float, float] | None = None, language: str = "en"
) -> Lexicon:
    """Load a lexicon by name (one of `PACKAGED`) or from a file, scaled to [-scale_to, scale_to] (None: the source's own numbers).

    A file holds words and numbers: two TAB-separated (.tsv, .txt) or comma-separated (.csv) columns, or a mapping (.yaml, .json).
    `raw_range` is the span of a file's scale, by default symmetric and as wide as its largest number; `language` is that of a file.
    cntext's form of Chinese EmoBank (a `Dictionary` of words with a `valence`) is known: Chinese, 1 to 9.

    Raises:
        UserError: the name is not known, or the file cannot be read.
    """
    if str(name) in PACKAGED:
        return _load_packaged(str(name), scale_to)
    path = Path(name)
    if path.suffix.lower() not in FILE_TYPES:
        raise UserError(
            f"--lexicon {name}: is not known; give {', '.join(PACKAGED)}, or a file ({', '.join(FILE_TYPES)}) of words and numbers"
        )
    raw = read_entries(path)
    if is_valence_file(path):
        raw_range, language = raw_range or (1.0, 9.0), "zh"
    widest = max((abs(value) for value in raw.values()), default=0.0)
    span = raw_range or (-widest, widest)
    if not span[0] < span[1]:
        raise UserError(f"{path}: the range of its numbers is empty ({span[0]:g} to {span[1]:g}); give words with numbers other than 0")
    return build_lexicon(
        raw,
        name=path.stem,
        language=language,
        raw_range=span,
        scale_to=scale_to,
        source=path.name,
        licence="as given by its authors",
    )


def _load_packaged(name: str, scale_to: float | None) -> Lexicon:
    packaged = PACKAGED[name]
    path = packaged.path(name)
    try:
        raw = packaged.read(path)
    except (OSError, ValueError, LookupError) as error:
        raise UserError(f"--lexicon {name}: {path.name} of {packaged.source} cannot be read ({error}); install it again") from error
    return build_lexicon(
        raw,
        name=name,
        language=packaged.language,
        raw_range=packaged.range,
        scale_to=scale_to,
        source=packaged.source,
        licence=packaged.licence,
    )
