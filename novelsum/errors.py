"""What can be told to a user in one sentence, each kind with the exit code a scheduler sees.

The sentence names the file, column, id or key at fault and what to do about it.
"""

import errno
import os
import re


class UsageError(Exception):
    """A setting is unknown or has a bad value, or the output may not be written: exit code 2."""


class InputError(Exception):
    """The input breaks the contract: exit code 3."""


class RunError(Exception):
    """Something a run needs is missing or full; the same command goes on once that is mended. Exit code 1."""


def error_of_a_task(error: BaseException) -> InputError | RunError | None:
    """The error of ours that a task raised, as Spark passes it on within its own error; None if it is another.

    A full disk is one of ours, whichever part of Spark came upon it.
    """
    found = re.search(r"novelsum\.errors\.(InputError|RunError): (.+)", str(error))
    if found:
        return InputError(found.group(2)) if found.group(1) == "InputError" else RunError(found.group(2))
    if os.strerror(errno.ENOSPC) in str(error):
        return RunError(
            "a disk of the driver or of an executor is full; free some of it where --output, --work-dir or "
            "spark.local.dir (SPARK_LOCAL_DIRS) lies, and run again to go on"
        )
    return None
