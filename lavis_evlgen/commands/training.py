"""Train on your own pictures: from their file to a configuration, a run, a comparison, a model's folder."""

from __future__ import annotations

import argparse
import textwrap
from functools import partial
from pathlib import Path

from lavis_evlgen.commands.help import AddParser, Commands
from lavis_evlgen.commands.output import quiet, tell
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.launch_options import add_launch_options
from lavis_evlgen.runners.placement import Placement


def add_commands(commands: Commands) -> None:
    """Add the commands of this heading, each with what it runs as ``run``."""
    add_parser = partial(commands.add_parser, group="train")
    for add in (_add_new_project, _add_launch, _add_projects, _add_write_shards, _add_compare, _add_export):
        add(add_parser)


def _add_new_project(add_parser: AddParser) -> None:
    command = add_parser(
        "new-project",
        examples=["evlgen new-project --data my.jsonl --images pictures --out project.yaml"],
        help="check your own data and write a yaml that trains on it",
    )
    command.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help="json, jsonl or csv with captions, or questions"
    )
    command.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures or clips")
    command.add_argument("--out", type=Path, default=Path("project.yaml"), metavar="FILE", help="default: %(default)s")
    command.add_argument("--val", type=Path, metavar="FILE", help="rows to validate on")
    command.add_argument(
        "--val-share", type=float, default=0.05, metavar="X", help="without --val: share of the pictures (%(default)s)"
    )
    command.add_argument("--vit", metavar="NAME", help="a ViT, by name or folder (default: embedded weights)")
    command.add_argument(
        "--llm", metavar="NAME", help="a language model, by name or folder (default: embedded weights)"
    )
    command.add_argument("--questions", action="store_true", help="the file must hold questions and answers")
    command.add_argument("--device", metavar="DEVICE", help="cpu or cuda (default: a GPU if there is one)")
    command.add_argument("--check-all", action="store_true", help="open every picture, not some thousands")
    command.add_argument("--overwrite", action="store_true", help="replace a yaml that is there")
    command.set_defaults(run=new_project)


def new_project(args: argparse.Namespace) -> int:
    """Write a configuration for somebody's own data, and what was found in it."""
    quiet()
    from lavis_evlgen.new_project import new_project as write_project

    write_project(
        args.data,
        args.images,
        args.out,
        val=args.val,
        val_share=args.val_share,
        vit=args.vit,
        llm=args.llm,
        questions=args.questions,
        device=args.device,
        decode_all=args.check_all,
        overwrite=args.overwrite,
    )
    return 0


def _add_launch(add_parser: AddParser) -> None:
    for name, text in (
        ("train", "train a model as a yaml file says"),
        ("evaluate", "evaluate a model without training"),
    ):
        launcher = add_parser(
            name,
            help=text,
            examples=[f"evlgen {name} --cfg-path project.yaml --options run.num_workers=4"],
        )
        add_launch_options(launcher)
        launcher.set_defaults(run=launch, evaluate=name == "evaluate")


def launch(args: argparse.Namespace) -> int:
    """Train or evaluate; the arguments are those of ``lavis_evlgen.train``."""
    from lavis_evlgen import launch as launcher

    if Placement.from_environment().world_size > 1:
        launcher.run_and_leave(args.argv[1:], evaluate=args.evaluate)
    return launcher.main(args.argv[1:], evaluate=args.evaluate)


def _add_projects(add_parser: AddParser) -> None:
    command = add_parser(
        "projects",
        examples=["evlgen projects", "evlgen projects evlgen/pretrain_opt2.7b --out pretrain.yaml"],
        help="list the papers' and demos' configurations, or copy one to change it",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the one to copy (default: list all)")
    command.add_argument("--out", type=Path, metavar="FILE", help="where to (default: projects/NAME.yaml)")
    command.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    command.set_defaults(run=projects, registers=False)


def projects(args: argparse.Namespace) -> int:
    """List the run configurations that come with the package, or copy one."""
    from lavis_evlgen.shipped_projects import copy_project, project_names

    if args.name:
        print(copy_project(args.name, args.out, args.overwrite))
        return 0
    known = project_names()
    width = max(map(len, known)) + 2
    print(*(f"{name:<{width}}{textwrap.shorten(text, 78, placeholder=' …')}" for name, text in known.items()), sep="\n")
    return 0


def _add_write_shards(add_parser: AddParser) -> None:
    command = add_parser(
        "write-shards",
        examples=["evlgen write-shards --images pictures --data my.jsonl --out shards/{:05d}.tar"],
        help="pack pictures and captions into webdataset shards",
    )
    command.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures")
    command.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="json, jsonl or csv file (default: a .json or .txt beside each picture)",
    )
    command.add_argument("--out", required=True, metavar="PATTERN", help="for example DIR/{:05d}.tar")
    command.add_argument("--size", type=int, default=1000, metavar="N", help="pictures a shard (default: 1000)")
    command.add_argument("--caption-key", default="caption", metavar="KEY", help="of a .json (default: caption)")
    command.add_argument("--shuffle", type=int, metavar="SEED", help="mix the pictures (default: keep their order)")
    command.add_argument("--overwrite", action="store_true", help="replace shards that hold other data")
    command.set_defaults(run=write_shards)


def write_shards(args: argparse.Namespace) -> int:
    """Pack pictures into shards; a repeated call goes on where the last one was killed."""
    from lavis_evlgen.datasets import shard_writer

    images, data = (path and path.expanduser() for path in (args.images, args.data))
    entries = shard_writer.entries_of(images, data, args.caption_key)
    options = {name: getattr(args, name) for name in ("size", "caption_key", "shuffle", "overwrite")}
    written = shard_writer.write_shards(entries, args.out, **options)
    before = f" ({written.kept} of them from before)" if written.kept else ""
    print(f"{written.pictures} pictures in {written.shards} shards{before}: {written.pattern}")
    if written.left_out:
        first = written.left_out[0]
        print(f"{len(written.left_out)} pictures were left out, for example {first['image']}: {first['reason']}")
        print(f"all of them: {written.left_out_path}")
    return 1 if written.left_out else 0


def _add_compare(add_parser: AddParser) -> None:
    command = add_parser(
        "compare",
        examples=[
            "evlgen compare --cfg-path compare.yaml --list",
            "evlgen compare --cfg-path compare.yaml --sweep tome_r=19,38",
        ],
        help="train several arms by turns and report them side by side",
    )
    command.add_argument("--cfg-path", required=True, metavar="FILE", help="yaml with a section `compare`")
    command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="override the yaml")
    command.add_argument("--arms", metavar="A,B", help="only these arms (default: all)")
    command.add_argument("--seeds", metavar="N,N", help="in place of the yaml's")
    command.add_argument("--sweep", metavar="KEY=V,V", help="arms of one key's values instead, e.g. tome_r=19,38")
    command.add_argument("--list", action="store_true", help="say what would be trained, and stop")
    command.set_defaults(run=compare)


def compare(args: argparse.Namespace) -> int:
    """Train the arms of a comparison, or go on with it, and report them side by side."""
    quiet()
    from lavis_evlgen.comparison.compare import compare, describe, progress_shown
    from lavis_evlgen.comparison.plan import read_plan
    from lavis_evlgen.reports.comparison.report import write_comparison_report

    arms = args.arms.split(",") if args.arms else None
    try:
        seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else None
    except ValueError as error:
        raise ConfigError(f"--seeds {args.seeds}: write numbers, for example 42,43") from error
    plan = read_plan(args.cfg_path, args.options, sweep=args.sweep, arms=arms, seeds=seeds)
    if args.list:
        print(describe(plan))
        return 0
    rank = Placement.from_environment().rank
    with progress_shown(rank):
        compare(plan, " ".join(["python -m lavis_evlgen.cli", *args.argv]))
    if rank:
        return 0
    write_comparison_report(plan.out)
    tell(plan.out)
    return 0


def _add_export(add_parser: AddParser) -> None:
    command = add_parser(
        "export",
        examples=["evlgen export outputs/demo --out my-model --dtype fp16"],
        help="write a trained model as a folder that Hugging Face's users know, with a model card",
    )
    command.add_argument(
        "source", type=Path, metavar="RUN_DIR", help="a run's output folder, or one of its checkpoints"
    )
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where to write the model")
    command.add_argument(
        "--dtype", choices=["fp32", "fp16", "bf16"], default="fp32", help="of the weights (default: fp32)"
    )
    command.add_argument("--license", metavar="NAME", help="of the weights, for the model card, e.g. cc-by-4.0")
    command.set_defaults(run=export)


def export(args: argparse.Namespace) -> int:
    """Write a run's model as a folder, with a model card."""
    quiet()
    from lavis_evlgen.interchange.export import export as export_run

    print(export_run(args.source, args.out, dtype=args.dtype, license_name=args.license))
    return 0
