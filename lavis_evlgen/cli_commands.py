"""The commands of ``evlgen`` and their options, by the heading of the help under which they stand."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from lavis_evlgen import commands
from lavis_evlgen.asking import ANSWER_LENGTH, CAPTION_LENGTH, NUM_BEAMS
from lavis_evlgen.cli_help import Commands
from lavis_evlgen.launch_options import add_launch_options


def add_commands(subparsers: Commands) -> None:
    """Add all commands, each with what it runs as ``run``."""
    _add_try_commands(subparsers)
    _add_train_commands(subparsers)
    _add_look_commands(subparsers)
    _add_check_commands(subparsers)


def _add_try_commands(subparsers: Commands) -> None:
    add_parser = partial(subparsers.add_parser, group="try")
    model = _model_options()
    generation = argparse.ArgumentParser(add_help=False)
    generation.add_argument("images", nargs="+", metavar="IMAGE", help="picture files; clips for a video model")
    generation.add_argument(
        "--num-beams", type=int, default=NUM_BEAMS, metavar="N", help="beams; 1 is greedy (default: %(default)s)"
    )
    generation.add_argument("--json", action="store_true", help="print one JSON object a picture")

    command = add_parser(
        "caption",
        examples=["evlgen caption dog.jpg", "evlgen caption --num-captions 3 --json dog.jpg cat.jpg"],
        parents=[model, generation],
        help="caption pictures or clips",
    )
    command.add_argument(
        "--max-length", type=int, default=CAPTION_LENGTH, metavar="N", help="most new tokens (default: %(default)s)"
    )
    command.add_argument("--prompt", metavar="TEXT", help="text that the captions continue, in place of the model's")
    command.add_argument("--num-captions", type=int, default=1, metavar="N", help="captions per picture (default: 1)")
    command.add_argument("--nucleus", action="store_true", help="sample (nucleus) instead of searching with beams")
    command.set_defaults(run=commands.caption)

    command = add_parser(
        "answer",
        examples=["evlgen answer --question 'what is it?' dog.jpg"],
        parents=[model, generation],
        help="ask about pictures or clips",
    )
    command.add_argument("--question", required=True, metavar="TEXT")
    command.add_argument(
        "--max-length", type=int, default=ANSWER_LENGTH, metavar="N", help="most new tokens (default: %(default)s)"
    )
    _add_question_prompt(command)
    command.set_defaults(run=commands.answer)

    command = add_parser(
        "show",
        examples=["evlgen show dog.jpg --layers", "evlgen show dog.jpg --out token_map.html"],
        parents=[model],
        help="draw which patches became one token",
    )
    command.add_argument("images", nargs="+", metavar="FILE", help="pictures or clips")
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="a picture (.png), a page (.html; every layer and token is there), or a folder for both and the figures "
        "(default: token_map.png, of several files the folder token_maps)",
    )
    command.add_argument("--layers", action="store_true", help="in pictures: every layer of the connector")
    command.add_argument("--tokens", action="store_true", help="in pictures: each final token alone, the rest dimmed")
    command.add_argument("--before", action="store_true", help="also with the weights that training started from")
    command.add_argument("--json", action="store_true", help="print the figures, one JSON object a file")
    command.set_defaults(run=commands.show)

    command = add_parser(
        "serve",
        examples=["evlgen serve", "evlgen serve --checkpoint outputs/mine/model.pth --beside demo"],
        parents=[model],
        help="show a page in the browser: captions, answers, token maps, two models side by side",
    )
    command.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="FILE_OR_TYPE",
        help="another model to compare with: a checkpoint, a type of --model, or MODEL:TYPE; may be repeated",
    )
    _add_question_prompt(command)
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: the whole network (default: %(default)s)"
    )
    command.add_argument("--port", type=int, default=7860, metavar="N", help="default: %(default)s; 0 takes a free one")
    command.add_argument("--max-mb", type=float, default=20, metavar="X", help="largest upload (default: %(default)s)")
    command.add_argument("--max-seconds", type=float, default=60, metavar="S", help="of a clip (default: %(default)s)")
    command.set_defaults(run=commands.serve)

    command = add_parser(
        "demo",
        examples=["evlgen demo", "evlgen demo --video --arms mean,concat"],
        help="draw pictures, train on them, evaluate and report, with weights that come in pip packages",
    )
    command.add_argument("--video", action="store_true", help="clips instead of pictures: five ways to join frames")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="everything's folder (default: outputs/demo or outputs/demo_video)"
    )
    command.add_argument("--arms", metavar="A,B", help="with --video, which of the ways (default: all)")
    command.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="with --video (default: the faster one)"
    )
    command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="override the yaml")
    command.set_defaults(run=commands.demo)


def _add_train_commands(subparsers: Commands) -> None:
    add_parser = partial(subparsers.add_parser, group="train")
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
    command.set_defaults(run=commands.new_project)

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
        launcher.set_defaults(run=commands.launch, evaluate=name == "evaluate")

    command = add_parser(
        "projects",
        examples=["evlgen projects", "evlgen projects evlgen/pretrain_opt2.7b --out pretrain.yaml"],
        help="list the papers' and demos' configurations, or copy one to change it",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="the one to copy (default: list all)")
    command.add_argument("--out", type=Path, metavar="FILE", help="where to (default: projects/NAME.yaml)")
    command.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    command.set_defaults(run=commands.projects, registers=False)

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
    command.set_defaults(run=commands.write_shards)

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
    command.set_defaults(run=commands.compare)

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
    command.set_defaults(run=commands.export)


def _add_look_commands(subparsers: Commands) -> None:
    add_parser = partial(subparsers.add_parser, group="look")
    command = add_parser(
        "watch",
        examples=["evlgen watch outputs", "evlgen watch outputs/demo --once"],
        help="show a run, or the runs below a folder, live in the terminal",
    )
    command.add_argument("folder", type=Path, metavar="OUTPUT_DIR", help="a run's output folder, or one above several")
    command.add_argument("--once", action="store_true", help="print one frame; exit code 1 if a run is in trouble")
    command.add_argument("--json", action="store_true", help="print one frame as JSON")
    command.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks (default: 2)")
    command.set_defaults(run=commands.watch, registers=False)

    command = add_parser(
        "report",
        examples=["evlgen report outputs/demo"],
        help="write report.html and report.json of a run or comparison",
    )
    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="its output folder")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR)")
    command.add_argument("--command", metavar="TEXT", help="how the run was started, to be shown in the report")
    command.set_defaults(run=commands.report)


def _add_check_commands(subparsers: Commands) -> None:
    add_parser = partial(subparsers.add_parser, group="check")
    command = add_parser(
        "doctor",
        examples=["evlgen doctor", "evlgen doctor --cfg-path project.yaml"],
        help="check this machine and installation, and say what to mend",
    )
    command.add_argument("--cfg-path", metavar="FILE", help="also what this yaml of a run needs")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--no-train", action="store_true", help="leave out the small training")
    command.add_argument("--part", help=argparse.SUPPRESS)  # how it starts its own processes
    command.set_defaults(run=commands.doctor, registers=False)

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
    command.set_defaults(run=commands.cost)


def _add_question_prompt(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--prompt", metavar="TEXT", help="how it is asked, {} being the question (default: as in the model's training)"
    )


def _model_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", metavar="NAME", help="registered model (default: evlgen, or the checkpoint's own)")
    options.add_argument("--model-type", metavar="TYPE", help="one of its types (default: its usual one)")
    options.add_argument("--checkpoint", metavar="PATH", help="a checkpoint or a model's folder, in place of a type")
    options.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    return options
