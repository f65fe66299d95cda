"""Errors of the system: told in one sentence, and apart from those of the user."""

import pyarrow as pa
import pytest

from novelsum.errors import RunError, UsageError, error_of_a_task, unwritable


def test_an_output_that_is_named_wrongly_is_told_apart_from_storage_that_fails():
    """Exit 2 is for the user, exit 1 for the next try."""
    for error in (PermissionError(13, "Permission denied"), NotADirectoryError(20, "Not a directory"), OSError(30, "")):
        assert isinstance(unwritable("--output x cannot be written", error), UsageError)
    for error in (OSError(5, "Input/output error"), OSError("AWS Error SLOW_DOWN"), OSError(116, "Stale file handle")):
        assert isinstance(unwritable("--output x cannot be written", error), RunError)


def test_what_the_system_says_to_a_task_or_the_driver_is_one_sentence(spark):
    """Whoever in a task came upon it; anything else is no error of the system's."""

    def fail(number: int) -> None:
        raise (OSError(5, "Input/output error", "/data/x"), pa.ArrowInvalid("not a float\nat all"), KeyError("x"))[
            number
        ]

    told = []
    for number in range(3):
        with pytest.raises(Exception, match="Traceback") as raised:
            spark.parallelize([number], 1).foreach(fail)
        told.append(error_of_a_task(raised.value))
    assert str(told[0]) == "[Errno 5] Input/output error: '/data/x'; run again to go on once that is mended"
    assert str(told[1]) == "not a float; run again to go on once that is mended"
    assert told[2] is None
    assert str(error_of_a_task(PermissionError(13, "Permission denied", "/y"))).startswith(
        "[Errno 13] Permission denied"
    )
    assert error_of_a_task(KeyError("x")) is None
