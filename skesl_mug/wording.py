"""Numbers in the sentences that people read."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: 1 clip, 2 clips, 1,200 clips.

    Args:
        number: how many.
        noun: the thing, one of it.
        plural: several of it, where that is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign, a real minus, and no sign where it rounds to 0: +0.4, −1.0, 0.0."""
    text = f"{value:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")
