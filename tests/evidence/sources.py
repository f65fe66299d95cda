"""Where the texts of the corpora come from: Debian and PyPI packages, opened into a folder, never installed.

Each source yields records: a unique ``id``, its ``text``, its ``group``. Nothing of them is part of this repository.
"""

import ast
import gzip
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCUMENTED = (
    "celery==5.4.0",
    "dask==2025.1.0",
    "django==5.1.4",
    "mne==1.9.0",
    "networkx==3.4.2",
    "nltk==3.9.1",
    "scrapy==2.12.0",
    "sphinx==8.1.3",
    "sympy==1.13.3",
    "twisted==24.11.0",
)
"""PyPI packages whose docstrings are read."""


class Record(NamedTuple):
    """One text as its source has it."""

    id: str
    text: str
    group: str


def wordnet(folder: Path) -> Iterator[Record]:
    """Glosses of WordNet 3.0; the group is the part of speech with the topic of its lexicographer file: noun.animal."""
    opened = _debian(folder, "wordnet-base")
    for part in ("noun", "verb", "adj", "adv"):
        for line in (opened / f"usr/share/wordnet/data.{part}").read_text(encoding="latin-1").splitlines():
            if not line.startswith(" "):
                fields, _, gloss = line.partition(" | ")
                place, file = fields.split()[:2]
                yield Record(f"{part}:{place}", gloss, _LEXNAMES[int(file)])


def fortunes(folder: Path) -> Iterator[Record]:
    """Sayings of fortune, without the offensive ones; the group is their file."""
    opened = _debian(folder, "fortunes", "fortunes-min", "fortunes-bofh-excuses")
    for file in sorted((opened / "usr/share/games/fortunes").iterdir()):
        if not file.suffix and file.stem not in ("ascii-art",):
            for number, text in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n%\n")):
                yield Record(f"{file.stem}:{number}", text, file.stem)


def manual(folder: Path) -> Iterator[Record]:
    """Paragraphs of the manual pages of Linux and of man-db; the group is the section of the manual."""
    opened = _debian(folder, "manpages", "manpages-dev", "man-db")
    for file in sorted((opened / "usr/share/man").glob("man[1-8]/*.gz")):
        if not file.is_symlink():
            name = file.name.removesuffix(".gz")
            source = gzip.decompress(file.read_bytes()).decode("utf-8", errors="replace")
            for number, text in enumerate(_paragraphs(source)):
                yield Record(f"{name}:{number}", text, f"section {file.parent.name[3:]}")


def debian(folder: Path) -> Iterator[Record]:
    """Descriptions of Debian's packages, the short and the long one; the group is the section of the archive.

    The lists of packages are read by apt, into a folder of their own: those of this machine need not have the texts.
    """
    lists = folder / "apt"
    where = ("-o", f"Dir::State::lists={lists}", "-o", "Acquire::Languages=en")
    if not list(lists.glob("*Translation-en*")):
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        _run("the descriptions of Debian's packages cannot be had", "apt-get", *where, "update")
    cache = ("-o", f"Dir::Cache={folder / 'apt-cache'}")
    (folder / "apt-cache").mkdir(exist_ok=True)
    asked = ("apt-cache", *where, *cache)
    sections: dict[str, str] = {}
    for entry in _run("apt-cache fails", *asked, "dumpavail").split("\n\n"):
        of_package = dict(re.findall(r"^(Package|Section): (.*)$", entry, flags=re.MULTILINE))
        if "Section" in of_package:
            sections[of_package["Package"]] = of_package["Section"].split("/")[-1]
    for entry in _translations(lists):
        name = re.search(r"^Package: (.*)$", entry, flags=re.MULTILINE)
        found = re.search(r"^Description-en: (.*(?:\n .*)*)", entry, flags=re.MULTILINE)
        if name and found and name[1] in sections:
            short, *long = found[1].split("\n")
            text = "\n".join([short + ".", *("" if line.strip() == "." else line for line in long)])
            yield Record(name[1], _first_paragraphs(text), sections[name[1]])


def docstrings(folder: Path) -> Iterator[Record]:
    """Docstrings of Python packages, their first two paragraphs; the group is the package."""
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    for pinned in DOCUMENTED:
        package, _, version = pinned.partition("==")
        if not list(wheels.glob(f"{package}-{version}-*.whl")):
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps")
            at = ("--only-binary=:all:", "--dest", str(wheels), pinned)
            _run(f"the package {pinned} cannot be had from PyPI", *pip, *at)
        (wheel,) = [file for file in wheels.iterdir() if file.name.lower().startswith(f"{package}-{version}-")]
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".py") and "/tests/" not in name and "/test/" not in name:
                    for place, text in _documented(archive.read(name)):
                        yield Record(f"{name}:{place}", _first_paragraphs(text), package)


# --- packages ---------------------------------------------------------------------------------------------


def _debian(folder: Path, *packages: str) -> Path:
    """The folder where these Debian packages lie opened."""
    debs, opened = folder / "debs", folder / "debs" / "opened"
    opened.mkdir(parents=True, exist_ok=True)
    for package in packages:
        if not list(debs.glob(f"{package}_*.deb")):
            problem = f"the Debian package {package} cannot be had, which 'apt-get update' as root may help"
            _run(problem, "apt-get", "download", package, cwd=debs)
        done = debs / f"{package}.opened"
        if not done.exists():
            (file,) = debs.glob(f"{package}_*.deb")
            _run(f"{file} cannot be opened", "dpkg-deb", "-x", str(file), str(opened))
            done.touch()
    return opened


def _translations(lists: Path) -> Iterator[str]:
    """Entries of apt's lists of descriptions, compressed or not."""
    helper = "/usr/lib/apt/apt-helper"
    for file in sorted(lists.glob("*Translation-en*")):
        yield from _run(f"{file} cannot be read", helper, "cat-file", str(file)).split("\n\n")


def _run(problem: str, *command: str, cwd: Path | None = None) -> str:
    """What a command prints; exits with one sentence where it fails."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise SystemExit(f"error: {problem}: there is no {command[0]} on this machine") from None
    if done.returncode:
        raise SystemExit(f"error: {problem}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return done.stdout


# --- texts ------------------------------------------------------------------------------------------------


def _first_paragraphs(text: str, most: int = 2) -> str:
    return "\n".join([part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()][:most])


def _documented(source: bytes) -> Iterator[tuple[str, str]]:
    """The docstrings of a module's functions and classes, by name and line."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{node.name}:{node.lineno}", text


def _paragraphs(source: str) -> Iterator[str]:
    """Paragraphs of running text of a manual page; no code, no tables, no pages that only name another."""
    words: list[str] = []
    section, skipped = "", ""
    for line in [*source.splitlines(), ".PP"]:
        macro = line.split()[0] if line.startswith((".", "'")) and line.split() else ""
        if skipped:
            skipped = "" if macro == skipped else skipped
            continue
        if macro in _SKIPPED_UNTIL:
            skipped = _SKIPPED_UNTIL[macro]
            continue
        if macro in (".SH", ".SS", ".PP", ".P", ".LP", ".TP", ".TQ", ".IP", ".HP", ".sp", ".br") or not line.strip():
            text = _plain(" ".join(words))
            if section in _PROSE and text.count(" ") >= 4:
                yield text
            words = []
            if macro == ".SH":
                section = line[3:].strip().strip('"')
        elif macro in (".B", ".I", ".R", ".SM", ".SB"):
            words.append(" ".join(_arguments(line)))
        elif macro in (".BR", ".RB", ".IR", ".RI", ".BI", ".IB"):
            words.append("".join(_arguments(line)))
        elif not macro:
            words.append(line)


_SKIPPED_UNTIL = {".EX": ".EE", ".nf": ".fi", ".TS": ".TE", ".de": ".."}
_PROSE = ("NAME", "DESCRIPTION", "RETURN VALUE", "NOTES", "BUGS", "VERSIONS", "OPTIONS", "FILES", "CAVEATS", "EXAMPLES")
_ESCAPES = (
    (r"\\f(\(..|\[[^]]*\]|.)|\\s[-+]?\d|\\[&|^:%/,!cep]|\\\".*$", ""),
    (r"\\-", "-"),
    (r"\\\((?:aq|cq|oq)|\\\[(?:aq|cq|oq)\]", "'"),
    (r"\\\((?:dq|lq|rq)|\\\[(?:dq|lq|rq)\]", '"'),
    (r"\\\((?:em|en|mi)|\\\[(?:em|en|mi)\]", "-"),
    (r"\\\(ha|\\\[ha\]", "^"),
    (r"\\\(ti|\\\[ti\]", "~"),
    (r"\\\(co|\\\[co\]", "(c)"),
    (r"\\[ ~0]", " "),
    (r"\\\(..|\\\[[^]]*\]|\\\*\S|\\.", ""),
)


def _plain(text: str) -> str:
    for pattern, by in _ESCAPES:
        text = re.sub(pattern, by, text)
    return " ".join(text.split())


def _arguments(line: str) -> list[str]:
    """The arguments of a macro, quoted or not."""
    return [quoted or plain for quoted, plain in re.findall(r'"((?:[^"]|"")*)"|(\S+)', line.split(None, 1)[-1])]


_LEXNAMES = [
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute"),
    *("noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant"),
    *("noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication"),
    *("verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl"),
]
"""WordNet's lexicographer files in the order of their numbers."""
