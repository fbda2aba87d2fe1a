"""Check before you start: the machine, and what a run will cost."""

from __future__ import annotations

import argparse
import json
from functools import partial

from lavis_evlgen.commands.help import AddParser, Commands
from lavis_evlgen.commands.output import quiet


def add_commands(commands: Commands) -> None:
    """Add the commands of this heading, each with what it runs as ``run``."""
    add_parser = partial(commands.add_parser, group="check")
    for add in (_add_doctor, _add_cost):
        add(add_parser)


def _add_doctor(add_parser: AddParser) -> None:
    command = add_parser(
        "doctor",
        examples=["evlgen doctor", "evlgen doctor --cfg-path project.yaml"],
        help="check this machine and installation, and say what to mend",
    )
    command.add_argument("--cfg-path", metavar="FILE", help="also what this yaml of a run needs")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--no-train", action="store_true", help="leave out the small training")
    command.add_argument("--part", help=argparse.SUPPRESS)  # how it starts its own processes
    command.set_defaults(run=doctor, registers=False)


def doctor(args: argparse.Namespace) -> int:
    """Check machine and installation; 1 where something will fail."""
    from lavis_evlgen.doctor import parts, report

    if args.part:
        parts.work(args.part, args.cfg_path, not args.no_train)
        return 0
    return report.doctor(args.cfg_path, args.json, not args.no_train)


def _add_cost(add_parser: AddParser) -> None:
    command = add_parser(
        "cost",
        examples=["evlgen cost --cfg-path project.yaml --gpus 1"],
        help="count what a yaml's model and training cost, without weights or data",
    )
    command.add_argument("--cfg-path", required=True, metavar="FILE", help="yaml of a run")
    command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="override the yaml")
    command.add_argument("--text-length", type=int, metavar="N", help="tokens of a text (default: max_txt_len)")
    command.add_argument(
        "--device-flops", type=float, metavar="X", help="operations a second of one GPU (default: 312e12, an A100)"
    )
    command.add_argument("--utilisation", type=float, metavar="U", help="share of them that is used (default: 0.4)")
    command.add_argument("--gpus", type=int, metavar="N", help="default: 8")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=cost)


def cost(args: argparse.Namespace) -> int:
    """Print what a configuration's model and training cost."""
    quiet()
    from lavis_evlgen.cost.estimate import Assumptions, estimate_file
    from lavis_evlgen.cost.text import as_text

    given = {name: getattr(args, name) for name in ("text_length", "device_flops", "utilisation", "gpus")}
    assumptions = Assumptions(**{name: value for name, value in given.items() if value is not None})
    costs = estimate_file(args.cfg_path, args.options, assumptions)
    print(json.dumps(costs) if args.json else as_text(costs))
    return 0
