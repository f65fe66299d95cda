"""The two mistakes a user can make, each with the exit code a scheduler sees.

Both messages are one sentence that names the file, column, id or key at fault and what to do about it.
"""


class UsageError(Exception):
    """A setting is unknown or has a bad value, or the output may not be written: exit code 2."""


class InputError(Exception):
    """The input breaks the contract: exit code 3."""


class RunError(Exception):
    """Something a run needs is missing or full; the same command goes on once that is mended. Exit code 1."""
