"""Fenced blocks of README and docs/, and the number of them that tests run: `python -m helpers.doc_pages`.

A comment in the line above a block says how it is tested:

    <!-- not run: needs SLURM -->       not run, for this reason; every block without such a comment is run
    <!-- all runs -->                   its grid is trained completely (otherwise at most two runs of it)
    <!-- output -->                     a text block: printed by the last command of the shell block before it
    <!-- output of: labbench ls -->     a text block: printed by this command
    <!-- exact output -->               the same, and every character of it
    <!-- exit status 2 -->              the exit status of the last command, or of `labbench run` for a grid
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EMPTY_FOLDER = "<!-- starts in an empty folder -->"
"""Mark of pages whose blocks need no database."""

LANGUAGES = ("bash", "python", "toml", "sql", "json", "yaml", "text")
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<comment>[^\n]+?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """Fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    comment: str = ""
    """How the block is tested, without the marks of a comment."""

    @property
    def not_run(self) -> str:
        """Reason why the block is not run, empty if it is."""
        return self.comment.partition("not run: ")[2]

    @property
    def exit_status(self) -> int:
        """Exit status of the block's last command."""
        return int(self.comment.partition("exit status ")[2] or 0)

    @property
    def file_name(self) -> str:
        """Name of the file that a first line `# train.py` or `# grid.toml` gives the block, else empty."""
        named = re.match(r"# ([\w./]+\.\w+)\n", self.text)
        return named[1] if named else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text[: match.start("indent")].count("\n") + 1,
            match["language"],
            textwrap.dedent(match["text"]),
            match["comment"] or "",
        )
        for match in _BLOCK.finditer(text)
    ]


def blocks(*languages: str, pages: Iterable[Path] = PAGES) -> list[Block]:
    """Return the fenced blocks of these pages, all or those in some languages."""
    return [block for page in pages for block in read_blocks(page) if block.language in (languages or LANGUAGES)]


def missing_words(shown: str, printed: str) -> set[str]:
    """Return the parts of an example of output that a program did not print, apart from numbers and keys of runs.

    These are words, and lines without numbers such as the titles of a table. A plural after a number may be a singular.
    """
    words = [word for word in re.findall(r"[A-Za-z_][\w/]*", shown) if not re.fullmatch(r"[a-z0-9]{8}", word)]
    counted = re.findall(r"\d ([a-z]+s)\b", shown)
    missing = {word for word in words if (word[:-1] if word in counted else word) not in printed}
    titles = {" ".join(line.split()) for line in shown.splitlines() if not re.search(r"\d|\.\.\.", line)}
    return missing | {title for title in titles if title not in " ".join(printed.split())}


def main() -> None:
    """Print the number of blocks by language, run and not run, and the reasons."""
    tested, untested = Counter(), Counter()
    for block in blocks():
        (untested if block.not_run else tested)[block.language] += 1
    for language in LANGUAGES:
        print(f"{language:8} {tested[language]:4} run {untested[language]:4} not run")
    print(f"{'all':8} {tested.total():4} run {untested.total():4} not run, of {len(PAGES)} pages")
    for block in blocks():
        if block.not_run:
            print(f"    {block}: {block.not_run}")


if __name__ == "__main__":
    main()
