"""What the commands of the command line do; each takes its parsed arguments and gives an exit code."""

from __future__ import annotations

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

from lavis_evlgen.asking import QUESTION_PROMPT, check_question_prompt
from lavis_evlgen.cli_models import for_each_file, load, quiet
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.json_text import read_json
from lavis_evlgen.runners.placement import Placement


def launch(args: argparse.Namespace) -> int:
    """Train or evaluate; the arguments are those of ``lavis_evlgen.train``."""
    from lavis_evlgen import launch as launcher

    if Placement.from_environment().world_size > 1:
        launcher.run_and_leave(args.argv[1:], evaluate=args.evaluate)
    return launcher.main(args.argv[1:], evaluate=args.evaluate)


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


def answer(args: argparse.Namespace) -> int:
    """Print ``path: answer`` for every picture."""
    check_question_prompt(args.prompt)

    def describe(model: Any, samples: dict[str, Any]) -> list[str]:
        samples = {**samples, "text_input": [args.question]}
        prompt = args.prompt or getattr(model, "question_prompt", None) or QUESTION_PROMPT
        return model.predict_answers(samples, num_beams=args.num_beams, max_len=args.max_length, prompt=prompt)

    return for_each_file(args, "answers", describe)


def show(args: argparse.Namespace) -> int:
    """Draw which patches became one token; with --json print it in numbers."""
    from lavis_evlgen.datasets.bad_samples import BadSample
    from lavis_evlgen.datasets.clip_errors import unreadable
    from lavis_evlgen.reports.tokens import output, states
    from lavis_evlgen.reports.tokens.start import start_weights

    out = args.out or Path("token_map.png" if len(args.images) == 1 else "token_maps")
    output.check_out(out, len(args.images))
    reasons = [unreadable(Path(path)) for path in args.images]
    if all(reasons):
        raise DataError(f"{args.images[0]}: {reasons[0]}")
    quiet()
    start = start_weights(args.model, args.model_type, args.checkpoint) if args.before else None
    model, process, _ = load(args)
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


def serve(args: argparse.Namespace) -> int:
    """Show a page in the browser until interrupted."""
    quiet()
    from lavis_evlgen.page.command import serve as serve_page

    return serve_page(args)


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
    return _tell(out)


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
    return _tell(plan.out)


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


def watch(args: argparse.Namespace) -> int:
    """Show the runs of a folder."""
    from lavis_evlgen.watch.command import watch as watch_folder

    if not args.every > 0:
        raise ConfigError(f"--every {args.every:g}: the seconds between two looks must be more than 0")
    return watch_folder(args.folder.expanduser(), once=args.once, as_json=args.json, every=args.every)


def doctor(args: argparse.Namespace) -> int:
    """Check machine and installation; 1 where something will fail."""
    from lavis_evlgen.doctor import parts, report

    if args.part:
        parts.work(args.part, args.cfg_path, not args.no_train)
        return 0
    return report.doctor(args.cfg_path, args.json, not args.no_train)


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
    return _tell(args.out or args.run_dir)


def export(args: argparse.Namespace) -> int:
    """Write a run's model as a folder, with a model card."""
    quiet()
    from lavis_evlgen.interchange.export import export as export_run

    print(export_run(args.source, args.out, dtype=args.dtype, license_name=args.license))
    return 0


def _tell(folder: Path) -> int:
    """Print the main figures of a report."""
    found = read_json(folder / "report.json", "write the report again")
    for line in found.get("headlines", []):
        print(line)
    for name, arm in found.get("arms", {}).items():
        for split, scores in arm.get("splits", {}).items():
            values = [f"{key} {scores[key]:.3f}" for key in ("order_accuracy", "exact_match", "cider")]
            print(f"{name}, {split}: {', '.join(values)}")
    names = "accuracy accuracy_unseen named_right named_right_unseen exact_match cider held_out_loss shuffled_loss"
    for name in names.split():
        if found.get(name) is not None:
            print(f"{name}: {found[name]:.3f}")
    print(folder / "report.html")
    return 0
