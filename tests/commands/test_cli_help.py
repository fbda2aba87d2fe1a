"""The command line's help: every command once, under a heading, with examples that its own parser understands."""

import re
import shlex
import subprocess
import sys

import pytest

import lavis_evlgen
from lavis_evlgen import cli
from lavis_evlgen.commands.help import HEADINGS, ProgramParser

COMMANDS = dict(cli.build_parser().commands)


def help_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([*argv, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_groups_every_command(capsys):
    out = help_of(capsys)
    blocks = re.findall(r"^([A-Z].*):\n((?:  [a-z-]+ +[a-z].+\n)+)", out, re.MULTILINE)
    grouped = {heading: re.findall(r"^  ([a-z-]+) ", lines, re.MULTILINE) for heading, lines in blocks}
    listed = [name for heading, names in grouped.items() if heading in HEADINGS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS) and len(set(listed)) == len(listed)
    assert {"caption", "answer", "show", "demo"} <= set(grouped["Try it"])
    assert grouped["Train on your own pictures"][:3] == ["new-project", "train", "evaluate"]
    assert grouped["Look at runs and results"][:2] == ["watch", "report"]
    assert grouped["Check before you start"] == ["doctor", "cost"]
    assert out.startswith("EVLGen for LAVIS: models that caption pictures") and max(map(len, out.splitlines())) <= 120
    assert out.index("Try it") < out.index("Train on") < out.index("Look at") < out.index("Check before")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_starts_with_what_it_does_and_examples(name, capsys):
    what, example, *_ = help_of(capsys, name).split("\n\n")
    assert what == f"{COMMANDS[name].what[0].upper()}{COMMANDS[name].what[1:]}."
    assert example.startswith(f"  evlgen {name}") and COMMANDS[name].examples


def test_every_example_is_understood():
    parser = cli.build_parser()
    examples = [*cli.EXAMPLES, *(example for command in COMMANDS.values() for example in command.examples)]
    assert len(cli.EXAMPLES) == 3 and len(examples) > len(COMMANDS)
    for example in examples:
        program, *argv = shlex.split(example)
        assert program == "evlgen"
        parser.parse_args(argv)


def test_a_command_without_a_heading_is_shown_last():
    parser = ProgramParser(prog="x", what="X.", examples=("x one",), more="More.")
    parser.commands.add_parser("other", help="do something else")
    parser.commands.add_parser("one", group="try", help="do one thing", examples=["x one"])
    assert parser.format_help().split("COMMAND --help\n\n")[1] == (
        "Try it:\n  one    do one thing\n\nMore:\n  other  do something else\n\nExamples:\n  x one\n\nMore.\n"
    )


def test_without_a_command_help_is_shown(capsys):
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("EVLGen for LAVIS: ")


PROGRAM = """
import sys
sys.modules.update(torch=None, lavis=None)  # as if they were not installed
sys.argv = ["evlgen", *sys.argv[1:]]
sys.orig_argv = ["python", *sys.argv]
from lavis_evlgen.cli import main
sys.exit(main())
"""


def started(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM, *argv], capture_output=True, text=True)


def test_version_and_help_need_neither_lavis_nor_torch():
    def said(*argv: str) -> str:
        done = started(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("--version") == f"evlgen {lavis_evlgen.__version__}\n"
    assert said("train", "--help").startswith("Train a model as a yaml file says.\n")
    assert "evlgen/pretrain_opt2.7b " in said("projects")


def test_without_lavis_a_command_says_how_to_install_it():
    done = started("caption", "dog.jpg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: LAVIS is not installed: pip install --no-deps salesforce-lavis==1.0.2 ")
    assert done.stderr.count("\n") == 1


def test_only_the_program_leaves_registering_to_its_commands():
    """Everybody else who imports the package gets its models, or the error."""
    asks = lavis_evlgen._is_program
    assert asks(["python", "-m", "lavis_evlgen.cli", "caption", "dog.jpg"])
    assert asks(["/usr/bin/python3", "/env/bin/evlgen", "doctor"])
    assert not asks(["python", "-m", "lavis_evlgen.train", "--cfg-path", "evlgen"])
    assert not asks(["python", "/home/me/lavis_evlgen", "doctor"])
    assert not asks(["python"])


def test_commands_that_register_nothing():
    parser, given = cli.build_parser(), {"watch": ["outputs"]}
    for name in ("doctor", "watch", "projects"):
        assert not parser.parse_args([name, *given.get(name, [])]).registers
    assert parser.parse_args(["report", "outputs"]).registers
