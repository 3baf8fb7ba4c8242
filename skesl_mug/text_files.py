"""Reading text files of unknown encoding: UTF-8, UTF-16, GBK, Big5, Shift-JIS, EUC-KR, Windows-1252 and its relatives.

Texts may be a single short row, so each candidate is judged by how likely its characters are (`character_models.py`). All candidates read
the same bytes, so the costs of the decoded texts (-log2 of their probabilities) are comparable.
"""

import io
import multiprocessing
import re
import sys
from collections.abc import Collection
from pathlib import Path

from skesl_mug.character_models import KNOWN_AS, MODELS, OTHERS, SHORT_UTF_8, UNICODE, Model
from skesl_mug.errors import UserError
from skesl_mug.wording import counted

PACKED = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed",
    b"PAR1": "a parquet file",
}
FEW_DAMAGED = 0.1  # damaged characters per intact non-ASCII character up to which a text counts as UTF-8
FEW_NULS = 0.1  # share of characters up to which NULs are removed; above, a file is not text
SAMPLE = 1 << 14  # bytes of lines with non-ASCII characters that are judged
NAMED = 40.0  # bits in favour of an encoding in which a known name occurs
CLEAR = 5.0  # bits by which another encoding has to be better than UTF-8
FEW_LETTERS = 3  # non-ASCII letters up to which bytes may be valid UTF-8 by chance
MANY_NAMED = 20  # known names after which no more are counted


def read_text(
    path: Path, *, place: str | None = None, needed: str = "choose a text file", names: Collection[str] = ()
) -> tuple[str, list[str]]:
    """The text of a file and notes for the user: a guessed encoding, damaged characters, removed NULs with their lines.

    Args:
        path: the file.
        place: how messages name it; default: its path.
        needed: advice on what to choose instead of a file that is not text.
        names: names that may occur in it, such as those of a corpus's files: an encoding in which they occur is preferred.

    Raises:
        UserError: the file cannot be read or is not text.
    """
    place = place or str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror or error})") from error
    for mark, what in PACKED.items():
        if content.startswith(mark):
            raise UserError(f"{place}: is {what}; save or unpack it as a csv file (UTF-8)")
    encoding = guess_encoding(content, names)
    text = content.decode(encoding, errors="replace").removeprefix("\ufeff")
    notes = []
    if encoding != "utf-8":
        known_as = f" ({KNOWN_AS[encoding]})" if encoding in KNOWN_AS else ""
        notes.append(f"read as {encoding}{known_as}, because it is not UTF-8; if characters look wrong, save it as UTF-8")
    damaged = text.count("\ufffd")
    if damaged:
        notes.append(f"{counted(damaged, 'damaged character')} in {'UTF-8' if encoding == 'utf-8' else encoding} text")
    nuls = text.count("\0")
    if nuls > max(1, FEW_NULS * len(text)) or damaged > len(text) / 2:
        raise UserError(f"{place}: is not a text file; {needed}")
    if nuls:
        lines = [number for number, line in enumerate(io.StringIO(text, newline=None), 1) if "\0" in line]
        shown = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines[:5]))}{', …' if len(lines) > 5 else ''}"
        notes.append(f"{shown}: {counted(nuls, 'NUL character')} (\\x00) removed; the file may be damaged")
    return text.replace("\0", "").rstrip("\x1a"), notes  # Ctrl-Z: the end of a file of DOS


def print_notes(path: Path, notes: Collection[str]) -> None:
    """Print notes on a file to stderr, each once in a command: not in worker processes, nor when the file is read again."""
    for note in notes:
        if multiprocessing.parent_process() is None and (path, note) not in _PRINTED:
            _PRINTED.add((path, note))
            print(f"note: {path.name}: {note}", file=sys.stderr)


_PRINTED: set[tuple[Path, str]] = set()


def guess_encoding(content: bytes, names: Collection[str] = ()) -> str:
    """The most plausible encoding of a text, as a codec of Python; see `read_text` for `names`."""
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\0\0", "utf-32"), (b"\xfe\xff", "utf-16"), (b"\xff\xfe", "utf-16")):
        if content.startswith(mark):
            return encoding
    if content.isascii() and b"\0" not in content:
        return "utf-8"
    if b"\0" in content:
        wide = content[: SAMPLE + len(content) % 2]
        best = min(("utf-8", "utf-16-le", "utf-16-be"), key=lambda encoding: UNICODE.cost(_decoded(wide, encoding)))
        if best != "utf-8" or content.isascii():
            return best
    local = {name for name in names if not name.isascii()}
    repaired = _decoded(content, "utf-8")
    damaged = repaired.count("\ufffd")
    intact = len(repaired) - len(repaired.encode("ascii", errors="ignore")) - damaged
    if damaged <= FEW_DAMAGED * intact and (damaged or (intact > FEW_LETTERS and (not local or _named(repaired, local)))):
        return "utf-8"
    sample = _lines_to_judge(content)
    costs = {encoding: _cost(_decoded(sample, encoding), model, local) for encoding, model in MODELS.items()}
    best = min(costs, key=costs.__getitem__)
    if not damaged:
        text = _decoded(sample, "utf-8")
        known = SHORT_UTF_8 if intact <= FEW_LETTERS and max(text) < "\u0800" else UNICODE
        return "utf-8" if _cost(text, known, local) < costs[best] + CLEAR else best
    high = sum(byte > 127 for byte in sample)
    undefined = MODELS[best].bits("\ufffd") * _decoded(sample, best).count("\ufffd") if best == "cp1252" else 0.0
    implausible = costs[best] - MODELS[best].prior - undefined - 5 * (len(sample) - high) > MODELS[best].unlikely * high
    return _other(sample, best) if implausible and high > FEW_LETTERS else best


def _decoded(content: bytes, encoding: str) -> str:
    return content.decode(encoding, errors="replace")


def _lines_to_judge(content: bytes) -> bytes:
    """Lines with bytes above 127, up to `SAMPLE` bytes of them."""
    kept, size = [], 0
    for line in re.finditer(rb"[^\n]*[\x80-\xff][^\n]*\n?", content):
        kept.append(line[0][:SAMPLE])
        size += len(kept[-1])
        if size >= SAMPLE:
            break
    return b"".join(kept)


def _other(sample: bytes, best: str) -> str:
    """The guess of charset-normalizer for an encoding that is not among the candidates; `best` if it has none."""
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=list(OTHERS)).best()
    return best if found is None else found.encoding


def _named(text: str, names: Collection[str]) -> int:
    """How many of some names are a cell of a text, or its last part after a slash, with or without a suffix."""
    cells = {cell.strip() for cell in re.split(r"[,;\t|\r\n\"/\\]", text)}
    return len(names & (cells | {cell.rpartition(".")[0] for cell in cells})) if isinstance(names, (set, frozenset)) else 0


def _cost(text: str, model: Model, names: Collection[str]) -> float:
    return model.cost(text) - NAMED * min(MANY_NAMED, _named(text, names))
