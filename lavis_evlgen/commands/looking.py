"""Look at runs and results."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from lavis_evlgen.commands.help import AddParser, Commands
from lavis_evlgen.commands.output import quiet, tell
from lavis_evlgen.errors import ConfigError


def add_commands(commands: Commands) -> None:
    """Add the commands of this heading, each with what it runs as ``run``."""
    add_parser = partial(commands.add_parser, group="look")
    for add in (_add_watch, _add_report):
        add(add_parser)


def _add_watch(add_parser: AddParser) -> None:
    command = add_parser(
        "watch",
        examples=["evlgen watch outputs", "evlgen watch outputs/demo --once"],
        help="show a run, or the runs below a folder, live in the terminal",
    )
    command.add_argument("folder", type=Path, metavar="OUTPUT_DIR", help="a run's output folder, or one above several")
    command.add_argument("--once", action="store_true", help="print one frame; exit code 1 if a run is in trouble")
    command.add_argument("--json", action="store_true", help="print one frame as JSON")
    command.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks (default: 2)")
    command.set_defaults(run=watch, registers=False)


def watch(args: argparse.Namespace) -> int:
    """Show the runs of a folder."""
    from lavis_evlgen.watch.command import watch as watch_folder

    if not args.every > 0:
        raise ConfigError(f"--every {args.every:g}: the seconds between two looks must be more than 0")
    return watch_folder(args.folder.expanduser(), once=args.once, as_json=args.json, every=args.every)


def _add_report(add_parser: AddParser) -> None:
    command = add_parser(
        "report",
        examples=["evlgen report outputs/demo"],
        help="write report.html and report.json of a run or comparison",
    )
    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="its output folder")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR)")
    command.add_argument("--command", metavar="TEXT", help="how the run was started, to be shown in the report")
    command.set_defaults(run=report)


def report(args: argparse.Namespace) -> int:
    """Write the report of a run, or of a comparison of runs, and print its main figures."""
    quiet()
    from lavis_evlgen.reports.arms import holds_arms
    from lavis_evlgen.reports.comparison.file import holds_comparison
    from lavis_evlgen.reports.comparison.report import write_comparison_report
    from lavis_evlgen.reports.run_report import write_report
    from lavis_evlgen.reports.video_demo import write_video_report

    if holds_comparison(args.run_dir):
        write_comparison_report(args.run_dir, args.out, args.command)
    else:
        write = write_video_report if holds_arms(args.run_dir) else write_report
        write(args.run_dir, args.out, args.command)
    tell(args.out or args.run_dir)
    return 0
