"""What can be told to a user in one sentence, each kind with the exit code a scheduler sees.

The sentence names the file, column, id or key at fault and what to do about it.
"""

import builtins
import errno
import os
import re

import pyarrow as pa


class UsageError(Exception):
    """A setting is unknown or has a bad value, or the output may not be written: exit code 2."""


class InputError(Exception):
    """The input breaks the contract: exit code 3."""


class RunError(Exception):
    """Something a run needs is missing or full; the same command goes on once that is mended. Exit code 1."""


class DamageError(RunError):
    """A file came whole and is not as it was written: what it belongs to is made anew.

    ``reason``: what is wrong with its contents.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


_OURS: dict[str, type[InputError | RunError]] = {kind.__name__: kind for kind in (InputError, RunError, DamageError)}
_OF_THE_SYSTEM = "|".join(
    [name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, OSError)]
    + [r"pyarrow\.lib\.Arrow\w+"]
)


def first_line(error: BaseException) -> str:
    """What an error says, without what follows on other lines."""
    return str(error).split("\n")[0].rstrip(". ")


def unwritable(what: str, error: Exception) -> UsageError | RunError:
    """The error of a folder that cannot be written: it cannot be one, is not this user's, or storage fails just now."""
    is_named_wrongly = isinstance(error, FileNotFoundError | NotADirectoryError | FileExistsError | PermissionError)
    if is_named_wrongly or getattr(error, "errno", None) == errno.EROFS:
        return UsageError(f"{what}: {first_line(error)}")
    return RunError(f"{what}: {first_line(error)}; run again to go on once that is mended")


def error_of_a_task(error: BaseException) -> InputError | RunError | None:
    """The error of ours that a task raised, as Spark passes it on within its own error; None if it is another.

    A full disk is one of ours, whichever part of Spark came upon it, and so is what the system or a store said, to a
    task or to the driver.
    """
    found = re.search(rf"novelsum\.errors\.({'|'.join(_OURS)}): (.+)", str(error))
    if found:
        return _OURS[found.group(1)](found.group(2))
    if os.strerror(errno.ENOSPC) in str(error):
        return RunError(
            "a disk of the driver or of an executor is full; free some of it where --output, --work-dir or "
            "spark.local.dir (SPARK_LOCAL_DIRS) lies, and run again to go on"
        )
    said = re.search(rf"^(?:{_OF_THE_SYSTEM}): (.+)", str(error), re.MULTILINE)
    if said or isinstance(error, OSError | pa.ArrowException):
        return RunError(f"{said.group(1) if said else first_line(error)}; run again to go on once that is mended")
    return None
