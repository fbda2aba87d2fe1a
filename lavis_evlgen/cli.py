"""The program ``evlgen``, also ``python -m lavis_evlgen.cli``; its commands are in the folder commands/."""

from __future__ import annotations

import sys

from lavis_evlgen import __version__
from lavis_evlgen.commands import checking, looking, training, trying
from lavis_evlgen.commands.help import ProgramParser
from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.registration import register_all

EXAMPLES = (
    "evlgen caption dog.jpg",
    "evlgen new-project --data my.jsonl --images pictures --out project.yaml",
    "evlgen train --cfg-path project.yaml",
)


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when all went well, 1 when some pictures could not be read, 2 for errors a user can mend."""
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        parser.print_help()
        return 2
    args = parser.parse_args(argv)
    args.argv = argv
    try:
        if args.registers:
            register_all()
        return args.run(args)
    except EvlgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build_parser() -> ProgramParser:
    parser = ProgramParser(
        prog="evlgen",
        what="EVLGen for LAVIS: models that caption pictures and clips and answer questions about them.",
        examples=EXAMPLES,
        more="python -m lavis_evlgen.cli is the same as evlgen. README.md and docs/ of the sources say more.",
    )
    parser.set_defaults(registers=True)  # False: a command that must start, or can, where LAVIS or torch does not
    parser.add_argument("--version", action="version", version=f"evlgen {__version__}")
    for heading in (trying, training, looking, checking):
        heading.add_commands(parser.commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
