"""What ``make docs`` makes of the pages: settings from their rules, rooms from their test, figures of benchmarks.

A page says where a part goes:

    <!-- made by make docs: settings curate -->
    <!-- end -->

As a program it writes all parts into their pages; tests fail where a page differs from what it would write.
"""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]

from results import BENCHMARKS, FOLDER, Benchmark, Result, Table  # noqa: E402

from novelsum import settings  # noqa: E402
from novelsum.console import COMMANDS  # noqa: E402

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
_PART = re.compile(r"(?<=<!-- made by make docs: )([a-z_ -]+?)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def made(text: str) -> str:
    """The text of a page with all its parts made anew."""
    return _PART.sub(lambda found: f"{found[1]}{found[2]}\n{part(found[1])}\n\n", text)


def part(name: str) -> str:
    """A part by its name, a kind and perhaps what it is of."""
    kind, _, of = name.partition(" ")
    parts: dict[str, Callable[[str], str]] = {
        "settings": settings_of,
        "jobs": lambda _: jobs(),
        "rooms": lambda _: rooms(),
        "costs": costs,
        "benchmarks": lambda _: benchmarks(),
    }
    return parts[kind](of)


# --- settings ---------------------------------------------------------------------------------------------


def settings_of(job: Any) -> str:
    """Tables of the settings of a job, by how often they are needed, as ``--help`` has them."""
    tables = []
    for group in get_args(settings.Group):
        fields = [field for field in settings.fields_of(job) if settings.rules_of(field).group == group]
        rows = [_setting(field, job) for field in fields]
        if group == "common" and job not in settings.EXPLAINING:
            rows.append(["`--config`", "read settings from this TOML file; flags win over it", ""])
        if rows:
            tables.append(f"**{group.capitalize()}**\n\n" + _table(["flag", "meaning", "default"], rows))
    return "\n\n".join(tables)


def _setting(field: dataclasses.Field[Any], job: Any) -> list[str]:
    """Flag, meaning and default of a setting, in Markdown."""
    told = settings.meaning(field, job)
    if isinstance(field.default, tuple) and field.default:
        told += "; several make a grid"
    by_itself = re.compile(r" \(default: ((?:[^()]|\([^()]*\))*)\)")
    default = "; ".join(map(_markdown, by_itself.findall(told))) or _default(field.default)
    return [f"`{settings.flag(field)}`", _markdown(by_itself.sub("", told)), default]


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in (None, "", ()) or value is dataclasses.MISSING:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(_default, value))
    if isinstance(value, int | float):
        return "" if isinstance(value, int) and value == 0 else f"{value:g}" if value < 1e5 else f"{value:,}"
    return f"`{value}`"


def _markdown(told: str) -> str:
    """A help text with what is typed between backquotes, and nothing that Markdown would take for its own."""
    typed = re.compile(
        r"'([^' ]+)'"  # values
        r"|((?<![\w-])--[a-z][a-z-]*)"  # flags
        r"|(<output>/[\w/]+|/v1/[a-z]+|\b[A-Z]+=[A-Z:]+|\b[a-z]+=:?\d[\d:]*%?|local\[\*,4\]|OPENAI_API_KEY|\w+\.(?:html|json)\b)"
        r"|(?<![\w.])(\.[a-z]+(?:\.[a-z]+)?\b)"  # ends of names
        r"|(?<= )(\*)(?= )"
    )
    quoted = typed.sub(lambda found: f"`{next(filter(None, found.groups()))}`", told)
    parts = re.split(r"(`[^`]*`)", quoted)
    return "".join(part if part.startswith("`") else re.sub(r"([<*_|])", r"\\\1", part) for part in parts)


def jobs() -> str:
    """All jobs, each with its command and its page."""
    rows = [
        [f"[`{command.job}.py`]({command.job}.md)", f"`novelsum {name}`", command.does]
        for name, command in COMMANDS.items()
    ]
    return _table(["job", "command", "does"], rows)


def rooms() -> str:
    """Which rooms of the package may import from which, and its kernels, as tests/test_rooms.py holds them to it."""
    from test_rooms import KERNELS, KNOWS

    names = list(KNOWS)
    rows = [[f"`{room}`", ", ".join(f"`{one}`" for one in names if one in knows)] for room, knows in KNOWS.items()]
    kernels = ", ".join(f"`{kernel}`" for kernel in KERNELS)
    return _table(["room", "may know"], rows) + f"\n\n*Kernels*, which know neither Spark nor files: {kernels}."


# --- figures ----------------------------------------------------------------------------------------------

_WORDS = {
    "": ["embeddings", "picks", "time", "of it density", "of it selection", "memory", "s", "GiB"],
    "zh": ["向量", "选出", "总时间", "其中密度", "其中选择", "内存", "秒", "GiB"],
}
_KINDS_ZH = {"shipped prompts": "自带样例", "real texts": "真实文本", "generated": "生成数据"}


def costs(language: str) -> str:
    """What curate costs, from file to report, in English or ``zh``."""
    if not (FOLDER / "curate.json").exists():
        return _not_measured("bench-curate")
    result = Result.read(FOLDER / "curate.json")
    *columns, seconds, gib = _WORDS[language]
    rows = []
    for values in result.tables[0].rows:
        row = dict(zip(result.tables[0].columns, values, strict=True))
        kind = _KINDS_ZH[row["embeddings"]] if language == "zh" else row["embeddings"]
        spent = [f"{row[name]:.1f}" for name in ("seconds", "of them density", "of them selection")]
        rows.append(
            [
                f"{row['candidates']:,} × {row['dimension']:,} ({kind})",
                f"{row['picks']:,}",
                *(f"{one} {seconds}" for one in spent),
                f"{row['peak memory, GiB']:.1f} {gib}",
            ]
        )
    return _table(columns, rows)


def benchmarks() -> str:
    """All benchmarks with what they have kept, in their order."""
    return "\n\n".join(_benchmark(name, one) for name, one in BENCHMARKS.items())


def _benchmark(name: str, one: Benchmark) -> str:
    path = FOLDER / f"{name}.json"
    parts = [f"## {one.title}", one.does]
    if not path.exists():
        return "\n\n".join([*parts, _not_measured(one.target)])
    result = Result.read(path)
    machine, versions = result.machine, ", ".join(f"{name} {value}" for name, value in result.versions.items())
    load = f"load {result.load[0]:g} before and {result.load[1]:g} after" if result.load else "load not noted"
    parts.append(
        f"`{result.command}`, {result.date}, {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gib']} GiB, {load}; {versions}."
    )
    for table in result.tables:
        parts += [table.title] if table.title else []
        parts.append(_figures(table))
    return "\n\n".join(parts)


def _not_measured(target: str) -> str:
    return f"Not measured yet: `make {target}`."


def _figures(table: Table) -> str:
    return _table(table.columns, [[_figure(value) for value in row] for row in table.rows])


def _figure(value: Any) -> str:
    """A number with three digits or all those before the point."""
    if isinstance(value, float):
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else 2
        return f"{value:,.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("|  |", "| |").replace("|  |", "| |")


if __name__ == "__main__":
    for path in PAGES:
        text = path.read_text()
        if text != made(text):
            path.write_text(made(text))
            print(path.relative_to(ROOT))
