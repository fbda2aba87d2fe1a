"""The page command_line.md, written from the parsers of the commands when the site is built."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from lavis_evlgen.commands.help import CommandParser

PAGE = "command_line.md"
INTRODUCTION = """# Command line

`python -m lavis_evlgen.cli COMMAND`, or `evlgen COMMAND` where the package is installed. This page is written from the
commands' own parsers; `COMMAND --help` prints the same. A command ends with 0 when all went well, with 1 when some
pictures could not be read or a check found something, and with 2 for an error that you can mend, which it says in one
line.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, PAGE, content=command_line_page()))
    return files


def command_line_page() -> str:
    """Every command with its options, as Markdown."""
    from lavis_evlgen.cli import build_parser

    commands = dict(build_parser().commands)
    rows = (f"| [`{name}`](#{name}) | {_cell(command.what)} |" for name, command in commands.items())
    sections = (_section(name, command) for name, command in commands.items())
    return "\n".join([INTRODUCTION, "| command | |", "|---|---|", *rows, *sections])


def _section(name: str, command: CommandParser) -> str:
    examples = ["```", *command.examples, "```\n"] if command.examples else []
    options = [f"| {names} | {meaning} |" for names, meaning in _options(command)]
    what = f"{command.what[:1].upper()}{command.what[1:]}.\n"
    return "\n".join([f"\n## {name}\n", what, *examples, "| | |", "|---|---|", *options])


def _options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Name and meaning of every argument that is not hidden."""
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        value = "" if action.nargs == 0 else formatter._format_args(action, action.dest.upper())
        names = [" ".join(filter(None, (name, value))) for name in action.option_strings] or [value]
        meaning = _cell(formatter._expand_help(action) if action.help else "")
        needed = " (needed)" if action.option_strings and action.required else ""
        yield ", ".join(f"`{each}`" for each in names), meaning + needed


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
