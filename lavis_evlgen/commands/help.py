"""What ``evlgen --help`` shows: the commands under headings, in the order of their use, with examples."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

HEADINGS = {
    "try": "Try it",
    "train": "Train on your own pictures",
    "look": "Look at runs and results",
    "check": "Check before you start",
    "more": "More",
}

_Subparsers = argparse._SubParsersAction  # has no public name; it is what add_subparsers returns


class CommandParser(argparse.ArgumentParser):
    """One command, whose help starts with what it does and examples of it."""

    def __init__(self, *args: Any, what: str = "", examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.what, self.examples = what, tuple(examples)

    def format_help(self) -> str:
        shown = "".join(f"  {example}\n" for example in self.examples)
        return f"{self.what[:1].upper()}{self.what[1:]}.\n\n{shown}{shown and chr(10)}{super().format_help()}"


AddParser = Callable[..., CommandParser]
""":meth:`Commands.add_parser` with its heading given."""


class Commands:
    """The commands of a program, by the heading under which its help shows them."""

    def __init__(self, subparsers: _Subparsers[CommandParser]) -> None:
        self._subparsers = subparsers
        self._headings: dict[str, str] = {}

    def add_parser(
        self, name: str, *, help: str, group: str = "more", examples: Sequence[str] = (), **options: Any
    ) -> CommandParser:
        """A new command.

        Args:
            help: what it does, in a few words that begin with a verb.
            group: a key of HEADINGS.
            examples: whole command lines.
            options: those of `argparse.ArgumentParser`.
        """
        self._headings[name] = HEADINGS[group]
        return self._subparsers.add_parser(name, help=help, what=help, examples=examples, **options)

    def __iter__(self):
        return iter(self._subparsers.choices.items())

    def listed(self) -> str:
        """One line a command, below its heading."""
        width = max(map(len, self._headings)) + 2
        blocks = []
        for heading in HEADINGS.values():
            lines = [f"  {name:<{width}}{command.what}" for name, command in self if self._headings[name] == heading]
            if lines:
                blocks.append("\n".join([f"{heading}:", *lines]))
        return "\n\n".join(blocks)


class ProgramParser(argparse.ArgumentParser):
    """The program itself: ``what`` it is, its commands, ``examples`` and ``more`` lines below them."""

    def __init__(self, *, what: str, examples: Sequence[str], more: str, **options: Any) -> None:
        super().__init__(**options)
        self.what, self.examples, self.more = what, tuple(examples), more
        self.commands = Commands(self.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser))

    def format_help(self) -> str:
        examples = "\n".join(["Examples:", *(f"  {example}" for example in self.examples)])
        usage = f"{self.format_usage()}       {self.prog} COMMAND --help"
        return "\n\n".join([self.what, usage, self.commands.listed(), examples, self.more]) + "\n"
