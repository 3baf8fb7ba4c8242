"""Numbers and names in the sentences that people read."""

import unicodedata


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: 1 clip, 2 clips, 1,200 clips.

    Args:
        number: how many.
        noun: the thing, one of it.
        plural: several of it, where that is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def a_kind(value: object) -> str:
    """What a value is, with its article: a list, an int, a numpy array."""
    arrays = any(base.__name__ == "ndarray" for base in type(value).__mro__)
    name = "numpy array" if arrays else type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, a real minus, and no sign where it rounds to 0: +0.4, −1.0, 0.0."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def printable(name: str) -> str:
    """A file's name as text: control characters and bytes that are not UTF-8 become escapes such as `\\n` and `\\xff`."""
    if name.isprintable():
        return name
    return "".join(_escaped(letter) if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in name)


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else repr(letter)[1:-1]


def shortened(name: str, most: int = 180) -> str:
    """A name of at most `most` bytes in UTF-8, so that an extension and a suffix can follow (file systems allow 255)."""
    return name.encode()[:most].decode(errors="ignore") if len(name.encode()) > most else name
