"""Try it: captions, answers and token maps of pictures, a page in the browser, the demos."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from lavis_evlgen.asking import ANSWER_LENGTH, CAPTION_LENGTH, NUM_BEAMS, QUESTION_PROMPT, check_question_prompt
from lavis_evlgen.commands.files import for_each_file
from lavis_evlgen.commands.help import AddParser, Commands
from lavis_evlgen.commands.output import quiet, tell
from lavis_evlgen.errors import DataError


def add_commands(commands: Commands) -> None:
    """Add the commands of this heading, each with what it runs as ``run``."""
    add_parser = partial(commands.add_parser, group="try")
    for add in (_add_caption, _add_answer, _add_show, _add_serve, _add_demo):
        add(add_parser)


def _add_caption(add_parser: AddParser) -> None:
    command = add_parser(
        "caption",
        examples=["evlgen caption dog.jpg", "evlgen caption --num-captions 3 --json dog.jpg cat.jpg"],
        parents=[_model_options(), _generation_options()],
        help="caption pictures or clips",
    )
    command.add_argument(
        "--max-length", type=int, default=CAPTION_LENGTH, metavar="N", help="most new tokens (default: %(default)s)"
    )
    command.add_argument("--prompt", metavar="TEXT", help="text that the captions continue, in place of the model's")
    command.add_argument("--num-captions", type=int, default=1, metavar="N", help="captions per picture (default: 1)")
    command.add_argument("--nucleus", action="store_true", help="sample (nucleus) instead of searching with beams")
    command.set_defaults(run=caption)


def caption(args: argparse.Namespace) -> int:
    """Print ``path: caption`` for every picture."""

    def describe(model: Any, samples: dict[str, Any]) -> list[str]:
        return model.generate(
            samples if args.prompt is None else {**samples, "prompt": args.prompt},
            use_nucleus_sampling=args.nucleus,
            num_beams=args.num_beams,
            max_length=args.max_length,
            num_captions=args.num_captions,
        )

    return for_each_file(args, "captions", describe)


def _add_answer(add_parser: AddParser) -> None:
    command = add_parser(
        "answer",
        examples=["evlgen answer --question 'what is it?' dog.jpg"],
        parents=[_model_options(), _generation_options()],
        help="ask about pictures or clips",
    )
    command.add_argument("--question", required=True, metavar="TEXT")
    command.add_argument(
        "--max-length", type=int, default=ANSWER_LENGTH, metavar="N", help="most new tokens (default: %(default)s)"
    )
    _add_question_prompt(command)
    command.set_defaults(run=answer)


def answer(args: argparse.Namespace) -> int:
    """Print ``path: answer`` for every picture."""
    check_question_prompt(args.prompt)

    def describe(model: Any, samples: dict[str, Any]) -> list[str]:
        samples = {**samples, "text_input": [args.question]}
        prompt = args.prompt or getattr(model, "question_prompt", None) or QUESTION_PROMPT
        return model.predict_answers(samples, num_beams=args.num_beams, max_len=args.max_length, prompt=prompt)

    return for_each_file(args, "answers", describe)


def _add_show(add_parser: AddParser) -> None:
    command = add_parser(
        "show",
        examples=["evlgen show dog.jpg --layers", "evlgen show dog.jpg --out token_map.html"],
        parents=[_model_options()],
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
    command.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    """Draw which patches became one token; with --json print it in numbers."""
    from lavis_evlgen.datasets.bad_samples import BadSample
    from lavis_evlgen.datasets.clip_errors import unreadable
    from lavis_evlgen.loading import load_by_options
    from lavis_evlgen.reports.tokens import output, states
    from lavis_evlgen.reports.tokens.start import start_weights

    out = args.out or Path("token_map.png" if len(args.images) == 1 else "token_maps")
    output.check_out(out, len(args.images))
    reasons = [unreadable(Path(path)) for path in args.images]
    if all(reasons):
        raise DataError(f"{args.images[0]}: {reasons[0]}")
    quiet()
    start = start_weights(args.model, args.model_type, args.checkpoint) if args.before else None
    model, process, _ = load_by_options(args.model, args.model_type, args.checkpoint, args.device)
    read = [states.read(model, process, path) for path in args.images]
    bad = [each for each in read if isinstance(each, BadSample)]
    shown = [each for each in read if not isinstance(each, BadSample)]
    if not shown:
        raise DataError(str(bad[0]))
    states.add_maps(model, shown, start.weights if start else None)
    facts = {
        "model": " ".join(filter(None, [type(model).__name__, args.model_type])),
        "weights": args.checkpoint or "those that the model type names",
        **({"before training": start.text} if start else {}),
    }
    files = output.write(out, shown, facts, args.layers, args.tokens)
    if args.json:
        results = [each.figures() for each in shown] + [{"image": each.path, "error": each.reason} for each in bad]
        lines = [json.dumps(each, ensure_ascii=False) for each in results]
    else:
        lines = [*map(str, files), *(f"{each.path}: error: {each.reason}" for each in bad)]
    print(*lines, sep="\n")
    return 1 if bad else 0


def _add_serve(add_parser: AddParser) -> None:
    command = add_parser(
        "serve",
        examples=["evlgen serve", "evlgen serve --checkpoint outputs/mine/model.pth --beside demo"],
        parents=[_model_options()],
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
    command.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer under this name too, such as a reverse proxy's; may be repeated",
    )
    command.add_argument("--port", type=int, default=7860, metavar="N", help="default: %(default)s; 0 takes a free one")
    command.add_argument("--max-mb", type=float, default=20, metavar="X", help="largest upload (default: %(default)s)")
    command.add_argument("--max-seconds", type=float, default=60, metavar="S", help="of a clip (default: %(default)s)")
    command.set_defaults(run=serve)


def serve(args: argparse.Namespace) -> int:
    """Show a page in the browser until interrupted."""
    quiet()
    from lavis_evlgen.page.command import serve as serve_page

    return serve_page(args)


def _add_demo(add_parser: AddParser) -> None:
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
    command.set_defaults(run=demo)


def demo(args: argparse.Namespace) -> int:
    """Run a demo, or go on with it, and print its main figures."""
    quiet()
    from lavis_evlgen import demos

    out = args.out or Path("outputs", "demo_video" if args.video else "demo")
    if args.video:
        arms = args.arms.split(",") if args.arms else tuple(demos.ARMS)
        demos.video_demo(out, arms, args.precision, args.options)
    else:
        demos.picture_demo(out, args.options)
    tell(out)
    return 0


def _model_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", metavar="NAME", help="registered model (default: evlgen, or the checkpoint's own)")
    options.add_argument("--model-type", metavar="TYPE", help="one of its types (default: its usual one)")
    options.add_argument("--checkpoint", metavar="PATH", help="a checkpoint or a model's folder, in place of a type")
    options.add_argument("--device", metavar="DEVICE", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    return options


def _generation_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("images", nargs="+", metavar="IMAGE", help="picture files; clips for a video model")
    options.add_argument(
        "--num-beams", type=int, default=NUM_BEAMS, metavar="N", help="beams; 1 is greedy (default: %(default)s)"
    )
    options.add_argument("--json", action="store_true", help="print one JSON object a picture")
    return options


def _add_question_prompt(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--prompt", metavar="TEXT", help="how it is asked, {} being the question (default: as in the model's training)"
    )
