"""The command ``evlgen``, also ``python -m lavis_evlgen.cli``: train, evaluate, caption, answer, show, report."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_evlgen.errors import ConfigError, DataError, EvlgenError

if TYPE_CHECKING:
    from torch import Tensor

Processor = Callable[[Any], "Tensor"]  # a PIL picture to [3, H, W]


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when all went well, 1 when some pictures could not be read, 2 for errors a user can mend."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, text in (("train", "train a model as a yaml file says"), ("evaluate", "evaluate one without training")):
        launcher = commands.add_parser(name, help=f"{text}: {name} --cfg-path FILE.yaml", add_help=False)
        launcher.set_defaults(run=launch, evaluate=name == "evaluate", passes_on=True)

    model = _model_options()
    generation = argparse.ArgumentParser(add_help=False)
    generation.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    generation.add_argument("--num-beams", type=int, default=5, metavar="N", help="beams; 1 is greedy (default: 5)")
    generation.add_argument("--json", action="store_true", help="print one JSON object a picture")

    command = commands.add_parser("caption", parents=[model, generation], help="caption pictures")
    command.add_argument("--max-length", type=int, default=30, metavar="N", help="most new tokens (default: 30)")
    command.add_argument("--prompt", metavar="TEXT", help="text that the captions continue, in place of the model's")
    command.add_argument("--num-captions", type=int, default=1, metavar="N", help="captions per picture (default: 1)")
    command.add_argument("--nucleus", action="store_true", help="sample (nucleus) instead of searching with beams")
    command.set_defaults(run=caption)

    command = commands.add_parser("answer", parents=[model, generation], help="answer a question about pictures")
    command.add_argument("--question", required=True, metavar="TEXT")
    command.add_argument("--max-length", type=int, default=10, metavar="N", help="most new tokens (default: 10)")
    command.add_argument(
        "--prompt", default="Question: {} Short answer:", metavar="TEXT", help="how it is asked; {} is the question"
    )
    command.set_defaults(run=answer)

    command = commands.add_parser("show", parents=[model], help="draw which patches became one token")
    command.add_argument("image", metavar="IMAGE")
    command.add_argument("--out", type=Path, default=Path("token_map.png"), metavar="FILE", help="default: %(default)s")
    command.add_argument("--layers", action="store_true", help="one picture for each layer of the connector")
    command.set_defaults(run=show)

    command = commands.add_parser("report", help="write report.html and report.json of a finished run")
    command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the run's output folder")
    command.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR)")
    command.add_argument("--command", metavar="TEXT", help="how the run was started, to be shown in the report")
    command.set_defaults(run=report)
    return parser


def _model_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", metavar="NAME", help="registered model (default: evlgen, or the checkpoint's own)")
    options.add_argument("--model-type", metavar="TYPE", help="one of its types (default: its usual one)")
    options.add_argument("--checkpoint", metavar="FILE", help="trained weights, in place of the model type's")
    options.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    return options


def launch(args: argparse.Namespace) -> int:
    """Train or evaluate; the arguments are those of ``lavis_evlgen.train``."""
    from lavis_evlgen import launch as launcher

    return launcher.main(args.rest, evaluate=args.evaluate)


def caption(args: argparse.Namespace) -> int:
    """Print ``path: caption`` for every picture."""

    def describe(model: Any, image: Tensor) -> list[str]:
        samples = {"image": image} if args.prompt is None else {"image": image, "prompt": args.prompt}
        return model.generate(
            samples,
            use_nucleus_sampling=args.nucleus,
            num_beams=args.num_beams,
            max_length=args.max_length,
            num_captions=args.num_captions,
        )

    return _for_each_picture(args, "captions", describe)


def answer(args: argparse.Namespace) -> int:
    """Print ``path: answer`` for every picture."""
    if "{}" not in args.prompt:
        raise ConfigError(f"--prompt {args.prompt!r} has no {{}} where the question goes")

    def describe(model: Any, image: Tensor) -> list[str]:
        samples = {"image": image, "text_input": [args.question]}
        return model.predict_answers(samples, num_beams=args.num_beams, max_len=args.max_length, prompt=args.prompt)

    return _for_each_picture(args, "answers", describe)


def show(args: argparse.Namespace) -> int:
    """Draw the merged tokens over a picture, of the last layer or of every one."""
    from lavis_evlgen.datasets.bad_samples import BadSample, read_picture
    from lavis_evlgen.reports.token_map import draw_token_map, in_a_row, source_maps

    picture = read_picture(args.image)
    if isinstance(picture, BadSample):
        raise DataError(str(picture))
    model, process, device = load(args)
    maps = source_maps(model, process(picture)[None].to(device), by_layer=args.layers)
    shape = model.vision.grid, model.vision.num_prefix_tokens
    drawn = [draw_token_map(picture, tokens, *shape) for (tokens,) in maps]
    if args.layers:
        drawn = [in_a_row(drawn, [f"layer {n}: {int(m.max()) + 1} tokens" for n, m in enumerate(maps, start=1)])]
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        drawn[0].save(args.out)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out {args.out}: cannot be written ({error}); name a file such as map.png") from error
    print(args.out)
    return 0


def report(args: argparse.Namespace) -> int:
    """Write the report of a run and print its main figures."""
    _quiet()
    from lavis_evlgen.reports.demo import write_report

    found = write_report(args.run_dir, args.out, args.command)
    for name in ("named_right", "named_right_unseen", "exact_match", "cider", "held_out_loss", "shuffled_loss"):
        if found[name] is not None:
            print(f"{name}: {found[name]:.3f}")
    print((args.out or args.run_dir) / "report.html")
    return 0


def load(args: argparse.Namespace) -> tuple[Any, Processor, Any]:
    """The model that the options name, its picture processor, and its device."""
    _quiet()
    import torch

    from lavis_evlgen.loading import load_model_and_preprocess
    from lavis_evlgen.runners.distributed import usable_device

    try:
        device = usable_device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"--device {args.device}: torch knows no such device; use cpu, cuda or cuda:N") from error
    if args.checkpoint and not args.model:
        model, process = _from_checkpoint(args.checkpoint)
        model = model.float() if device.type == "cpu" else model
        return model.to(device).eval(), process, device
    weights = {"pretrained": args.checkpoint, "load_finetuned": False} if args.checkpoint else {}
    model, processors, _ = load_model_and_preprocess(args.model or "evlgen", args.model_type, device=device, **weights)
    return model, processors["eval"], device


def _from_checkpoint(path: str) -> tuple[Any, Processor]:
    """Model and picture processor by the configuration that our checkpoints carry."""
    from lavis.common.registry import registry
    from omegaconf import OmegaConf

    from lavis_evlgen.models.checkpoints import read_file

    config = OmegaConf.create(read_file(path, "--checkpoint").get("config") or {})
    if "model" not in config:
        raise ConfigError(f"--checkpoint {path} does not say of which model it is: add --model and --model-type")
    config.model.merge_with({"load_pretrained": False, "load_finetuned": False})
    model = registry.get_model_class(config.model.arch).from_config(config.model)
    model.load_checkpoint(path)
    used = [data.vis_processor for data in config.get("datasets", {}).values() if data.get("vis_processor")]
    processor = (used or [config.preprocess.vis_processor])[0].eval
    return model, registry.get_processor_class(processor.name).from_config(processor)


def _for_each_picture(args: argparse.Namespace, key: str, describe: Callable[[Any, Tensor], list[str]]) -> int:
    """Print what `describe` says of each picture; a picture that cannot be read is told and the others go on."""
    from lavis_evlgen.datasets.bad_samples import BadSample, read_picture

    model, process, device = load(args)
    unreadable = 0
    for path in args.images:
        picture = read_picture(path)
        if isinstance(picture, BadSample):
            unreadable += 1
            result: dict[str, Any] = {"error": picture.reason}
            lines = [f"error: {picture.reason}"]
        else:
            lines = describe(model, process(picture)[None].to(device))
            result = {key: lines}
        if args.json:
            lines = []
            print(json.dumps({"image": path, **result}, ensure_ascii=False), flush=True)
        for line in lines:
            print(f"{path}: {line}", flush=True)
    return 1 if unreadable else 0


def _quiet() -> None:
    """Leave out the warnings of the libraries below, which no user of these commands can act on."""
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
