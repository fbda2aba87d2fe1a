"""Lines of a shell block: whether the command exists and takes these arguments, and running it in this process."""

from __future__ import annotations

import argparse
import glob
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Sequence

from pages import ROOT
from workplace import tiny_training

from lavis_evlgen import cli, launch
from lavis_evlgen.comparison.plan import read_plan
from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config

PYTHON = ("python", "python3", ".venv/bin/python")
LAUNCHERS = ("lavis_evlgen.train", "lavis_evlgen.evaluate", "lavis/train.py", "lavis/evaluate.py")
# of others: only our files among their arguments are checked
FOREIGN = ("export", "cd", "git", "pip", ".venv/bin/pip", "pytest", "sbatch", "ssh", "curl")


def commands(text: str) -> list[list[str]]:
    """The commands of a block as words, without comments and leading assignments."""
    lines = text.replace("\\\n", " ").splitlines()
    split = (shlex.split(line, comments=True) for line in lines)
    return [_without_assignments(words) for words in split if words]


def check(words: Sequence[str]) -> None:
    """AssertionError (or the parser's SystemExit) for a command, option, target or file that does not exist."""
    program, *rest = words
    if program == "make":
        targets = [word for word in rest if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert targets and all(f"\n{target}:" in makefile for target in targets), words
    elif program in ("torchrun", "srun"):
        check(_launched(rest))
    elif program in PYTHON:
        _check_python(rest)
    elif program == "evlgen":
        _check_command(rest)
    else:
        assert program in FOREIGN, f"{program} is no command that the tests know: {words}"
        missing = [
            word for word in rest if re.match(r"(?:tests|projects|benchmarks)/", word) and not (ROOT / word).exists()
        ]
        assert not missing, missing


def run(words: Sequence[str], tiny: dict) -> None:
    """Run one of our commands here; a training or evaluation with a `tiny` model and two steps."""
    program, *rest = (name for word in words for name in (sorted(glob.glob(word)) or [word]))
    if program == "make":
        raise AssertionError(f"{words}: say by which test it is run")
    if program == "evlgen":
        rest = ["-m", "lavis_evlgen.cli", *rest]
    module, arguments = _module(rest)
    if module == "lavis_evlgen.cli" and arguments[0] in ("train", "evaluate"):
        module, arguments = f"lavis_evlgen.{arguments[0]}", arguments[1:]
    if module in LAUNCHERS:
        args = launch.parse_args(arguments, evaluate=False)
        config = read_config(args.cfg_path, args.options)
        options = [*args.options, *tiny_training(tiny, config.datasets)]
        scores = launch.start(["--cfg-path", args.cfg_path, "--options", *options], evaluate="evaluate" in module)
        assert scores and all("agg_metrics" in split for split in scores.values()), scores
    elif module == "lavis_evlgen.cli":
        assert cli.main(arguments) == 0, arguments
    else:
        _run_module(module, arguments)


def _run_module(module: str, arguments: list[str]) -> None:
    before = sys.argv
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as left:
        assert not left.code, (module, left.code)
    finally:
        sys.argv = before


def _check_python(rest: Sequence[str]) -> None:
    module, arguments = _module(rest)
    if module in LAUNCHERS:
        _check_configuration(launch.parse_args(arguments, evaluate=False), _check_run)
    elif module == "lavis_evlgen.cli":
        _check_command(arguments)
    elif module.endswith(".py"):
        assert (ROOT / module).is_file(), module
    else:
        assert module in FOREIGN or importlib.util.find_spec(module) is not None, module


def _check_command(arguments: Sequence[str]) -> None:
    args = cli.build_parser().parse_args(arguments)
    if getattr(args, "cfg_path", None):
        _check_configuration(args, _check_plan if arguments[0] == "compare" else _check_run)


def _check_configuration(args: argparse.Namespace, checked: Callable[[str, list[str]], None]) -> None:
    path = ROOT / args.cfg_path
    if args.cfg_path.startswith("projects/"):
        assert path.is_file(), path
        checked(str(path), getattr(args, "options", []))


def _check_run(path: str, options: list[str]) -> None:
    check_config(read_config(path, options))


def _check_plan(path: str, options: list[str]) -> None:
    assert read_plan(path, options).arms


def _module(rest: Sequence[str]) -> tuple[str, list[str]]:
    """The module or script that python is to run, with its arguments; below torchrun, what that runs."""
    words = list(rest[1:] if rest[0] == "-m" else rest)
    if words[0] == "torch.distributed.run":
        return _module(_launched(words[1:])[1:])
    return words[0], words[1:]


def _launched(words: Sequence[str]) -> list[str]:
    """What torchrun's or srun's words start, as a command of python."""
    words = list(words)
    while words and words[0].startswith("--"):
        words.pop(0)
    return words if words[0] in (*PYTHON, "torchrun") else ["python", *words]


def _without_assignments(words: list[str]) -> list[str]:
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words
