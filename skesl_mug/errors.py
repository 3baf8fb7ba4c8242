"""The one error that every room raises for a fault its user can mend."""


class UserError(Exception):
    """A fault in the input, with the file or flag it lies in and how to mend it.

    The entry points print its text as one line on stderr and end with status 2; a stack trace appears with `--debug` alone.
    """


class DivergedError(UserError):
    """Training whose loss or error is no longer finite."""
