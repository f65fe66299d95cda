"""What can be told to a user in one sentence, each kind with the exit code a scheduler sees.

The sentence names the file, column, id or key at fault and what to do about it.
"""

import re


class UsageError(Exception):
    """A setting is unknown or has a bad value, or the output may not be written: exit code 2."""


class InputError(Exception):
    """The input breaks the contract: exit code 3."""


class RunError(Exception):
    """Something a run needs is missing or full; the same command goes on once that is mended. Exit code 1."""


def error_of_a_task(error: BaseException) -> InputError | RunError | None:
    """The error of ours that a task raised, as Spark passes it on within its own error; None if it is another."""
    found = re.search(r"novelsum\.errors\.(InputError|RunError): (.+)", str(error))
    if not found:
        return None
    return InputError(found.group(2)) if found.group(1) == "InputError" else RunError(found.group(2))
