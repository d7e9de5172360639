"""The blocks of code in Markdown files."""

from __future__ import annotations

import re
from typing import NamedTuple

from helpers.paths import README


class Block(NamedTuple):
    """A fenced block of a Markdown file."""

    section: str
    line: int
    language: str
    code: str
    skip: str | None


def read_blocks(text: str) -> list[Block]:
    """Finds the fenced blocks, the section of each, and `<!-- skip-test: why -->`."""
    blocks: list[Block] = []
    section, skip = "", None
    language: str | None = None
    start, indent, code = 0, 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r"\s*```+\s*([\w-]*)", line)
        if language is not None:
            if fence and not fence[1]:
                blocks.append(Block(section, start, language, "\n".join(code), skip))
                language, skip = None, None
            else:
                code.append(line[indent:])
        elif fence:
            language, start, code = fence[1], number, []
            indent = len(line) - len(line.lstrip())
        elif heading := re.match(r"#+\s+(.*)", line):
            section, skip = heading[1], None
        elif comment := re.match(r"\s*<!--\s*skip-test:\s*(.*?)\s*-->", line):
            skip = comment[1]
        elif line.strip():
            # The comment stands right before its block.
            skip = None
    if language is not None:
        raise ValueError(f"line {start}: a block without an end")
    return blocks


def command_lines(code: str) -> list[str]:
    """Splits a shell block into commands: continued lines joined, no comments."""
    joined = re.sub(r"\\\n\s*", "", code)
    lines = (re.sub(r"^\s*\$ ", "", line).strip() for line in joined.split("\n"))
    commands = []
    for line in lines:
        if line and not line.startswith("#"):
            commands += re.split(r"\s*(?:&&|\|\||;|\|)\s*", line)
    return [command for command in commands if command]


README_BLOCKS = (
    read_blocks(README.read_text(encoding="utf-8")) if README.exists() else []
)
