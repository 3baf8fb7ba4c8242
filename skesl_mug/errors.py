"""User-fixable errors."""


class UserError(Exception):
    """An error that the user can fix: its text names the file or option and the fix.

    The commands print it as one line on stderr and exit with status 2; `--debug` shows the stack trace.
    """


class DivergedError(UserError):
    """Training whose loss or error is no longer finite."""


class DamagedError(UserError):
    """A file of the toolkit that cannot be read any more."""
