"""What every job does around its work: read the settings, run, and turn the outcome into an exit code.

0: done. 2: usage. 3: the input breaks the contract. 1: anything else.
"""

import io
import logging
import sys
import traceback
from collections.abc import Sequence

from novelsum.diversity.job import measure
from novelsum.errors import InputError, RunError, UsageError, error_of_a_task
from novelsum.pipeline import run
from novelsum.settings import Job, parse, parse_embed, parse_measure
from novelsum.spark import interrupt
from novelsum.spark.progress import clear, log_to_stderr
from novelsum.text.job import embed_text

DONE, FAILED, USAGE, INPUT = 0, 1, 2, 3

logger = logging.getLogger("novelsum")

_INTERRUPTED = "interrupted; the output holds no finished result of this run, and the same command goes on with it"


def main(job: Job, description: str, arguments: Sequence[str] | None = None, program: str = "") -> int:
    """Run the job with the settings of ``arguments`` (default: the command line); return the exit code.

    ``description``: what ``--help`` says of it; ``program``: what was started, if not its script.
    """
    log_to_stderr()
    interrupt.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if job == "measure_diversity":
            measure(parse_measure(description, arguments, program))
        elif job == "embed_text":
            embed_text(parse_embed(description, arguments, program))
        else:
            run(job, parse(job, description, arguments, program))
    except UsageError as error:
        return fail(error, USAGE)
    except InputError as error:
        return fail(error, INPUT)
    except KeyboardInterrupt:
        return fail(_INTERRUPTED, FAILED)
    except Exception as error:
        if interrupt.came():  # Spark turns what the signal raised into errors of its own
            return fail(_INTERRUPTED, FAILED)
        told = error if isinstance(error, RunError) else error_of_a_task(error)
        if told:
            logger.debug("what follows came from", exc_info=True)
            return fail(told, INPUT if isinstance(told, InputError) else FAILED)
        traceback.print_exc()
        return fail(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}", FAILED)
    return DONE


def fail(reason: object, code: int) -> int:
    """Print the reason as one line and return the exit code."""
    clear()  # a terminal shows ^C there
    print("error:", str(reason).replace("\n", "\\n"), file=sys.stderr)
    return code
