"""The commands: ``novelsum curate`` and the like, each the same as its script in jobs/, and what ``--help`` says.

What a command needs is imported when it is known which it is.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from novelsum import __version__
from novelsum.errors import InputError, UsageError
from novelsum.settings import Job

USAGE, INPUT = 2, 3


@dataclass(frozen=True)
class Command:
    """A job as a command. ``does``: a line; ``example``: what to type, with names of commands for what starts them.

    ``python``: the environment that has what it needs.
    """

    job: Job
    does: str
    example: str
    python: str = ".venv"

    def help(self, start: str = "{python}/bin/python jobs/{job}.py") -> str:
        """The text of ``--help``; ``start`` starts a command of that ``name`` and ``job``."""
        starts = {name: start.format(name=name, **vars(command)) for name, command in COMMANDS.items()}
        example = "\n".join(f"    {line}" for line in self.example.format(**starts).splitlines())
        return f"{self.does}\n\nFor example:\n\n{example}\n"


COMMANDS = {
    "curate": Command(
        "curate",
        "Select a diverse subset of embeddings, or of texts that are embedded: density factors, then NovelSelect.",
        "{curate} --input /data/night --output /curated/share --budget 5%",
    ),
    "embed": Command(
        "embed_text",
        "Embed texts: JSON lines, JSON arrays or Parquet, plain or chats, become Parquet with embeddings.",
        "{embed} --input tests/data/chats.jsonl --model .venv-embed/all-MiniLM-L6-v2 --output out/embedded",
        python=".venv-embed",
    ),
    "density": Command(
        "estimate_density",
        "Estimate the density factor of every sample: Parquet embeddings in, id and density out.",
        "{density} --input /data/night --output /density/night",
    ),
    "select": Command(
        "select_subset",
        "Select a diverse subset by NovelSelect, with density factors that were estimated before.",
        "{density} --input /data/night --output /density/before\n"
        "{select} --input /data/night --density /density/before \\\n"
        "    --output /curated/selected --budget 10000",
    ),
    "measure": Command(
        "measure_diversity",
        "Measure how diverse data sets of Parquet embeddings are: NovelSum, over a grid of settings.",
        "{measure} --input /data/a --input /data/b \\\n    --reference /data/pool --output out/measured",
    ),
    "explain": Command(
        "explain_novelty",
        "Select from a small table of distances and print every round with all its numbers. Needs no Spark.",
        "{explain} --distances docs/worked-example.csv \\\n"
        "    --neighbors 2 --proximity-power 1 --density-power 1 --first x1 --budget 3",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else "--help"
    if name == "--version":
        print(f"novelsum {__version__}")
        return 0
    if name in ("--help", "-h", "help"):
        print(_overview())
        return 0 if given else USAGE
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"error: novelsum has no command {name!r}; {hint}", file=sys.stderr)
        return USAGE
    command = COMMANDS[name]
    return _run(command, command.help("novelsum {name}"), given[1:], f"novelsum {name}")


def job(name: Job) -> int:
    """Run the job of that name with the arguments of its script; return the exit code."""
    (command,) = (command for command in COMMANDS.values() if command.job == name)
    return _run(command, command.help(), sys.argv[1:], f"{name}.py")


def _run(command: Command, text: str, arguments: Sequence[str], program: str) -> int:
    if command.job == "explain_novelty":
        return _explain(text, arguments, program)
    from novelsum.command import main as run

    return run(command.job, text, arguments, program)


def _overview() -> str:
    lines = [f"  {name:9} {command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: novelsum COMMAND [settings]",
            "",
            *lines,
            "",
            "novelsum COMMAND --help shows the settings of a command, novelsum --version the version.",
        ]
    )


def _explain(text: str, arguments: Sequence[str], program: str) -> int:
    """The worked example, which needs neither Spark nor files of its own."""
    import json

    from novelsum.explain import as_text, explain, read_distances
    from novelsum.settings import parse_explain

    try:
        given = parse_explain(text, arguments, program)
        labels, distances = read_distances(given.distances)
        explanation = explain(
            labels,
            distances,
            formula=given.formula,
            neighbors=given.neighbors,
            proximity_power=given.proximity_power,
            density_power=given.density_power,
            first=labels[0] if given.first is None else given.first,
            budget=len(labels) if given.budget is None else given.budget,
        )
    except (UsageError, InputError) as error:
        print("error:", error, file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else INPUT
    print(json.dumps(explanation.as_data(), indent=1, ensure_ascii=False) if given.json else as_text(explanation))
    return 0
