"""The command ``evlgen``, also ``python -m lavis_evlgen.cli``: what it understands; commands.py is what it does."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lavis_evlgen import commands
from lavis_evlgen.errors import EvlgenError


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when all went well, 1 when some pictures could not be read, 2 for errors a user can mend."""
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else argv
    args, rest = parser.parse_known_args(argv)
    args.argv = argv
    if rest and not hasattr(args, "passes_on"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    try:
        return args.run(args)
    except EvlgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evlgen", description="EVLGen for LAVIS: train it, and put it to use.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, text in (("train", "train a model as a yaml file says"), ("evaluate", "evaluate one without training")):
        launcher = subparsers.add_parser(name, help=f"{text}: {name} --cfg-path FILE.yaml", add_help=False)
        launcher.set_defaults(run=commands.launch, evaluate=name == "evaluate", passes_on=True)

    model = _model_options()
    generation = argparse.ArgumentParser(add_help=False)
    generation.add_argument("images", nargs="+", metavar="IMAGE", help="picture files; clips for a video model")
    generation.add_argument("--num-beams", type=int, default=5, metavar="N", help="beams; 1 is greedy (default: 5)")
    generation.add_argument("--json", action="store_true", help="print one JSON object a picture")

    command = subparsers.add_parser("caption", parents=[model, generation], help="caption pictures or clips")
    command.add_argument("--max-length", type=int, default=30, metavar="N", help="most new tokens (default: 30)")
    command.add_argument("--prompt", metavar="TEXT", help="text that the captions continue, in place of the model's")
    command.add_argument("--num-captions", type=int, default=1, metavar="N", help="captions per picture (default: 1)")
    command.add_argument("--nucleus", action="store_true", help="sample (nucleus) instead of searching with beams")
    command.set_defaults(run=commands.caption)

    command = subparsers.add_parser("answer", parents=[model, generation], help="ask about pictures or clips")
    command.add_argument("--question", required=True, metavar="TEXT")
    command.add_argument("--max-length", type=int, default=10, metavar="N", help="most new tokens (default: 10)")
    command.add_argument(
        "--prompt", default="Question: {} Short answer:", metavar="TEXT", help="how it is asked; {} is the question"
    )
    command.set_defaults(run=commands.answer)

    command = subparsers.add_parser("show", parents=[model], help="draw which patches became one token")
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

    command = subparsers.add_parser("write-shards", help="pack pictures and captions into webdataset shards")
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

    command = subparsers.add_parser("new-project", help="check your own data and write a yaml that trains on it")
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

    command = subparsers.add_parser("demo", help="data, training and report on weights that come with pip packages")
    command.add_argument("--video", action="store_true", help="clips instead of pictures: four ways to join frames")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="everything's folder (default: outputs/demo or outputs/demo_video)"
    )
    command.add_argument("--arms", metavar="A,B", help="with --video, which of the ways (default: all)")
    command.add_argument(
        "--precision", choices=["auto", "fp32", "bf16"], default="auto", help="with --video (default: the faster one)"
    )
    command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="override the yaml")
    command.set_defaults(run=commands.demo)

    command = subparsers.add_parser("compare", help="train several arms by turns and report them side by side")
    command.add_argument("--cfg-path", required=True, metavar="FILE", help="yaml with a section `compare`")
    command.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="override the yaml")
    command.add_argument("--arms", metavar="A,B", help="only these arms (default: all)")
    command.add_argument("--seeds", metavar="N,N", help="in place of the yaml's")
    command.add_argument("--sweep", metavar="KEY=V,V", help="arms of one key's values instead, e.g. tome_r=19,38")
    command.add_argument("--list", action="store_true", help="say what would be trained, and stop")
    command.set_defaults(run=commands.compare)

    command = subparsers.add_parser("cost", help="what a yaml's model and training cost, without weights or data")
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

    command = subparsers.add_parser("watch", help="show a run, or the runs below a folder, live in the terminal")
    command.add_argument("folder", type=Path, metavar="OUTPUT_DIR", help="a run's output folder, or one above several")
    command.add_argument("--once", action="store_true", help="print one frame; exit code 1 if a run is in trouble")
    command.add_argument("--json", action="store_true", help="print one frame as JSON")
    command.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks (default: 2)")
    command.set_defaults(run=commands.watch)

    command = subparsers.add_parser("doctor", help="check this machine and installation, and say what to mend")
    command.add_argument("--cfg-path", metavar="FILE", help="also what this yaml of a run needs")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--no-train", action="store_true", help="leave out the small training")
    command.add_argument("--part", help=argparse.SUPPRESS)  # how it starts its own processes
    command.set_defaults(run=commands.doctor)

    command = subparsers.add_parser("report", help="write report.html and report.json of a run or comparison")
    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="its output folder")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR)")
    command.add_argument("--command", metavar="TEXT", help="how the run was started, to be shown in the report")
    command.set_defaults(run=commands.report)
    return parser


def _model_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", metavar="NAME", help="registered model (default: evlgen, or the checkpoint's own)")
    options.add_argument("--model-type", metavar="TYPE", help="one of its types (default: its usual one)")
    options.add_argument("--checkpoint", metavar="FILE", help="trained weights, in place of the model type's")
    options.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    return options


if __name__ == "__main__":
    sys.exit(main())
