"""The fenced blocks of README.md, of the pages in docs/ and of those in projects/, and what their markers say.

A block of ``sh``, ``yaml`` or ``python`` is run. A comment on the line before it says otherwise; it is checked then:

    <!-- needs: gpu -->              a GPU, hub (weights from Hugging Face or LAVIS), data (a data set) or terminal
    <!-- run by: tests/test_x.py --> these tests run it, or what it stands for
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("projects/*/README.md"), *ROOT.glob("examples/*.md")]
)
LANGUAGES = ("sh", "yaml", "python")
OTHERS = ("", "text", "json", "nginx")  # output and files of other programs: not looked at
NEEDS = ("gpu", "hub", "data", "terminal")
_BLOCK = re.compile(
    r"(?:^[ ]*<!--(?P<marker>[^>]*)-->\n)?^[ ]*```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^[ ]*```$",
    re.DOTALL | re.MULTILINE,
)
_MARKER = re.compile(r" (needs|run by): (.+) ")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        needs: of NEEDS, what must be there for it to run.
        run_by: the tests that run it.
    """

    language: str
    text: str
    needs: tuple[str, ...] = ()
    run_by: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        return not self.needs and not self.run_by


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order; ValueError for a comment before one that is no marker."""
    return [_block(found) for found in _BLOCK.finditer(page.read_text())]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def _block(found: re.Match[str]) -> Block:
    text = found["marker"]
    if text is None:
        return Block(found["language"], found["text"])
    marker = _MARKER.fullmatch(text)
    if marker is None:
        raise ValueError(f"<!--{text}--> is none of <!-- needs: ... --> and <!-- run by: ... -->")
    values = tuple(marker[2].split(", "))
    return Block(found["language"], found["text"], **{marker[1].replace(" ", "_"): values})
