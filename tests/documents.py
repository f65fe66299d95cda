"""What the pages, the comments of conf/ and the help of jobs tell people to type, taken from their own text."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conftest import ROOT

from novelsum.console import COMMANDS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TRANSLATED = ROOT / "README.zh-CN.md"
"""The README in Chinese: what it tells people to type is what the README does, and is run from there."""
FILES = [path for path in sorted((ROOT / "conf").iterdir()) if path.suffix != ".py" and path.is_file()]

SHOWN = (
    "v(x)     = Σ_{x_j ∈ S}",
    "Density factors σ, K = 2:",
    "jobs/          one short file a command",
)
"""How blocks begin that nobody types: a formula, what a command prints, the folders of the code."""

SUBMIT = ("--properties-file", "--py-files", "--archives", "--files", "--master", "--deploy-mode", "--conf")
"""The options of spark-submit and spark-class that documents may use; each has a value."""


@dataclass(frozen=True)
class Block:
    """A piece of a document that is set apart: ``commands`` to type, or what is shown, or a program."""

    document: str
    text: str
    language: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether nothing in it is typed."""
        return self.text.startswith(SHOWN)

    @property
    def commands(self) -> list[str]:
        """Each on one line, its comment left out."""
        lines = re.sub(r" *\\\n *", " ", self.text).splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        return [stripped for line in typed if (stripped := re.sub(r"(^|\s+)# .*", "", line).strip())]

    @property
    def shown(self) -> list[str]:
        """Lines that the command of the block is to print."""
        lines = self.text.splitlines()
        return [line for line in lines if not line.startswith("$ ")] if self.text.startswith("$ ") else []


@dataclass(frozen=True)
class Command:
    """A command, understood. ``program``: a job, ``make``, a class that spark-class runs, or ``shell`` and the like.

    ``options`` are those of spark-submit or spark-class, ``arguments`` what the program gets.
    """

    text: str
    program: str
    arguments: list[str]
    options: dict[str, str] = field(default_factory=dict)
    is_submitted: bool = False

    @property
    def shipped(self) -> dict[str, str]:
        """Files that lie where the driver runs in cluster mode, by the names they have there."""
        return {Path(name).name: name for name in self.options.get("--files", "").split(",") if name}


def blocks() -> list[Block]:
    """All that documents set apart, in their order."""
    found = [block for path in PAGES for block in of_page(path, path.read_text())]
    for command in COMMANDS.values():
        found += of_page(ROOT / "jobs" / f"{command.job}.py", command.help())
    return found + [block for path in FILES for block in _of_comments(path)]


def of_page(path: Path, text: str) -> Iterator[Block]:
    """Blocks between fences, and those indented by four spaces after an empty line."""
    name = path.relative_to(ROOT).as_posix()
    parts = re.split(r"^```(\w*)\n(.*?)^```\n", f"{text}\n", flags=re.DOTALL | re.MULTILINE)
    for number in range(0, len(parts), 3):
        for indented in re.findall(r"(?<=\n\n)(?: {4}.*\n(?:\n(?= {4}))?)+", parts[number]):
            yield Block(name, textwrap.dedent(indented))
        if number + 2 < len(parts):
            yield Block(name, parts[number + 2], parts[number + 1])


def _of_comments(path: Path) -> Iterator[Block]:
    """Lines of comments that three spaces set apart; of a systemd unit what it starts, too."""
    name, text = path.relative_to(ROOT).as_posix(), path.read_text()
    for lines in re.findall(r"^(?:# {3,}\S.*\n)+", text, flags=re.MULTILINE):
        yield Block(name, re.sub(r"^# {3}", "", lines, flags=re.MULTILINE))
    for started in re.findall(r"^ExecStart=(.*)$", text, flags=re.MULTILINE):
        yield Block(name, started.replace("%%", "%"))


def understood(text: str) -> Command:
    """A command by the rules of this file; ValueError for one that no rule covers, and so no test runs."""
    words = shlex.split(re.sub(r"\$\(date [^)]*\)", "2026-11-23", text))
    while words and re.match(r"[A-Za-z_]+=", words[0]):
        words.pop(0)
    if not words or words[0] in ("for", "done"):
        return Command(text, "shell", words)
    if words[:2] == ["/bin/sh", "-c"] and words[2].startswith("exec "):
        return understood(words[2].removeprefix("exec "))
    program, arguments = words[0].rsplit("/", 1)[-1], words[1:]
    if program in ("make", "export", "systemctl", "three_nights.sh"):
        return Command(text, program, arguments)
    if program == "novelsum" and arguments[0] in COMMANDS:
        return Command(text, COMMANDS[arguments[0]].job, arguments[1:])
    if program == "python" and re.fullmatch(r"jobs/\w+\.py", arguments[0]):
        return Command(text, Path(arguments[0]).stem, arguments[1:])
    if program in ("spark-submit", "spark-class"):
        options, rest = {}, list(arguments)
        started = rest.pop(0) if program == "spark-class" else ""
        while rest and rest[0] in SUBMIT:
            options[rest[0]] = rest[1]
            rest = rest[2:]
        if started.startswith("org.apache.spark.deploy."):
            return Command(text, started, rest, options)
        if rest and re.fullmatch(r"(local:///opt/novelsum/)?jobs/\w+\.py", rest[0]):
            return Command(text, Path(rest[0]).stem, rest[1:], options, is_submitted=True)
    raise ValueError(f"no rule of tests/documents.py covers the command {text!r}; add one, and what is to run it")
