"""`evlgen compare` as a user calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lavis_evlgen import cli


def test_list_says_what_would_be_trained_and_trains_nothing(comparison, capsys, tmp_path):
    assert cli.main(["compare", "--cfg-path", comparison(), "--list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["plain: as it is, 12 steps", "wide: wide, 12 steps", "    model.width=32"]
    assert said[3] == "two: two, 4 + 12 steps"
    assert not (tmp_path / "tiny").exists()


def test_chosen_arms_are_trained_and_reported(comparison, capsys, tmp_path):
    path = comparison()
    assert cli.main(["compare", "--cfg-path", path, "--arms", "wide,plain", "--seeds", "3"]) == 0
    record = json.loads((tmp_path / "tiny" / "comparison.json").read_text())
    assert [arm["name"] for arm in record["arms"]] == ["wide", "plain"]
    assert record["seeds"] == [3]
    assert "compare --cfg-path" in record["command"]
    assert "report.html" in capsys.readouterr().out
    assert (tmp_path / "tiny" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "narrow"], "--arms: 'narrow' is no arm"),
        (["--seeds", "one"], "--seeds one: write numbers"),
        (["--options", "model.widht=3"], "model.widht is unknown; did you mean 'width'"),
    ],
)
def test_mistakes_are_said_before_any_training(comparison, capsys, options, message, tmp_path):
    assert cli.main(["compare", "--cfg-path", comparison(), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "tiny").glob("*/seed*"))


PROGRAM = """
import sys
sys.path.insert(0, {runners!r})
import tiny_lavis
from lavis_evlgen import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def test_two_processes_take_part_in_every_arm(comparison, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(runners=str(Path(__file__).parent.parent / "runners")))
    command = [str(program), "compare", "--arms", "plain,two", "--cfg-path"]
    calm = ["--options", "model.dropout=0"]
    two = comparison("two", run={"batch_size_train": 2})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *command, two, *calm], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "two" / "comparison.json").read_text())
    assert record["setting"]["world_size"] == 2
    for arm in record["arms"]:
        (run,) = arm["runs"]
        assert run["finished"], arm["name"]
        assert [point["images"] for point in run["curve"]][-1] == 4 * run["final"]["steps"]
    weights = torch.load(tmp_path / "two" / "plain" / "seed1" / "model.pth", weights_only=True)["model"]
    assert all(tensor.isfinite().all() for tensor in weights.values())
