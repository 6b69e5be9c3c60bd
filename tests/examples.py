"""The runnable blocks of the documentation: fenced code under a ``<!-- run: NAME -->`` line.

``python3 -m tests.examples README.md NAME`` prints one, so that CI runs the very command that README shows.
Only the standard library: it runs before anything is installed.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(
    r"<!-- run: (?P<name>[\w-]+) -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FENCE = re.compile(r"^```(?P<language>\w+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        name: what its comment calls it.
        language: of the fence: python, ini, toml or sh.
        text: the code.
    """

    name: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The named blocks of a page, in order.

    Raises:
        ValueError: a block of a language that can run has no name.
    """
    text = page.read_text(encoding="utf-8")
    found = [Block(match["name"], match["language"], match["text"]) for match in _BLOCK.finditer(text)]
    runnable = [match["language"] for match in _FENCE.finditer(text) if match["language"] != "text"]
    if runnable != [block.language for block in found]:
        msg = f"{page}: every fenced block but text needs a <!-- run: NAME --> line above it"
        raise ValueError(msg)
    return found


def block(page: Path, name: str) -> Block:
    """The block of that name.

    Raises:
        KeyError: the page has none.
    """
    return {found.name: found for found in blocks(page)}[name]


if __name__ == "__main__":
    sys.stdout.write(block(Path(sys.argv[1]), sys.argv[2]).text)
