"""The fault campaign of benchmarks/fault_campaign: its short version, and that it would find what it looks for."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from fault_campaign import cases, damaged_checkpoints
from fault_campaign.command import exit_code, main, try_case
from fault_campaign.comparison import difference
from fault_campaign.runs import Failed, Missed, Run
from fault_campaign.table import Result, table

ROOT = Path(__file__).parents[2]
SHORT = (
    "kill -9 in training",
    "kill -9 in a checkpoint",
    "checkpoint cut off: best",
    "checkpoint bits flipped: several",
    "disk full (tmpfs, ENOSPC)",
    "picture damaged",
    "tar cut off",
    "NaN batches in a row",
    "rank killed",
    "SIGTERM",
)


def campaign(folder: Path, kinds: list[str]) -> None:
    sys.exit(main(["--folder", str(folder), "--count", str(len(kinds)), "--only", *kinds]))


def test_one_fault_of_ten_kinds_each_is_recovered_from(forkserver, tmp_path):
    kinds = [name for name in SHORT if name in cases.KINDS]  # without root there is no tmpfs
    process = forkserver.Process(target=campaign, args=(tmp_path, kinds))
    process.start()
    process.join(1200)
    found = json.loads((tmp_path / "faults.json").read_text())
    assert {case["kind"]: case["error"] for case in found["cases"] if case["where"]} == dict.fromkeys(kinds, "")
    assert process.exitcode == 0


@pytest.mark.slow
def test_two_hundred_faults_are_recovered_from(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks/fault_campaign"), "--folder", str(tmp_path), "--minutes", "60"]
    output = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert output.returncode == 0, output.stdout[-5000:] + output.stderr[-2000:]
    struck = [case for case in json.loads((tmp_path / "faults.json").read_text())["cases"] if case["where"]]
    assert len(struck) >= 190 and {case["kind"] for case in struck} == set(cases.KINDS)


def finished_run(folder: Path, losses: tuple[float, ...] = (2.0, 1.5), weight: float = 0.25) -> Run:
    """What a run of two steps leaves."""
    run = Run(folder, {"run": {"max_iters": 2}})
    run.out.mkdir(parents=True)
    rows = [{"iters": n, "loss": loss, "lr": 0.1, "seconds": n} for n, loss in enumerate(losses, start=1)]
    rows.append({"iters": 2, "split": "val", "agg_metrics": 0.5})
    (run.out / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    torch.save({"model": {"a": torch.tensor([weight])}}, run.out / "model.pth")
    return run


def test_equal_runs_have_no_difference_and_others_have_it_named(tmp_path):
    whole = finished_run(tmp_path / "whole")
    assert difference(finished_run(tmp_path / "same"), whole) == ""
    assert "log.jsonl holds the steps [1]" in difference(finished_run(tmp_path / "short", losses=(2.0,)), whole)
    assert "[1, 2, 3]" in difference(finished_run(tmp_path / "long", losses=(2.0, 1.5, 1.5)), whole)
    last_digit = finished_run(tmp_path / "loss", losses=(2.0, 1.5000000000000002))
    assert difference(last_digit, whole).startswith("step 2 was {'iters': 2, 'loss': 1.5000000000000002")
    last_bit = finished_run(tmp_path / "weight", weight=0.25000003)
    assert difference(last_bit, whole) == "the weights ['a'] of model.pth differ"
    left = finished_run(tmp_path / "left")
    (left.out / "model.pth.7.unfinished").touch()
    assert difference(left, whole) == "model.pth.7.unfinished was left"


def test_a_seed_gives_the_same_list_and_every_kind_its_share():
    planned = cases.plan(200, seed=3)
    assert planned == cases.plan(200, seed=3) and len(planned) == len(set(planned)) == 200
    counts = {name: sum(case.kind == name for case in planned) for name in cases.KINDS}
    assert counts["kill -9 in training"] > counts["rank killed"] > counts["PNG bits flipped"] >= 1
    assert set(cases.KINDS) == {case.kind for case in cases.plan(len(cases.KINDS), seed=0)}
    assert [case.kind for case in cases.plan(2, 0, ["SIGTERM", "SIGUSR1"])] == ["SIGTERM", "SIGUSR1"]
    draws = [cases.Case("SIGTERM", 1, seed).rng(attempt).random() for seed, attempt in ((0, 1), (0, 1), (1, 1), (0, 2))]
    assert draws[0] == draws[1] and len(set(draws)) == 3


def test_a_case_is_tried_until_it_strikes_and_a_failure_keeps_its_folder(tmp_path, monkeypatch):
    tries = []

    def strikes_at_third(place):
        tries.append(place.rng.random())
        place.folder.mkdir(parents=True)
        if len(tries) < 3:
            raise Missed
        return "there"

    def fails(place):
        place.folder.mkdir(parents=True)
        raise Failed("step 3 was lost")

    monkeypatch.setitem(cases.KINDS, "late", cases.Kind("late", 1, (), strikes_at_third))
    monkeypatch.setitem(cases.KINDS, "bad", cases.Kind("bad", 1, (), fails))
    late = try_case(cases.Case("late", 0, 5), tmp_path)
    assert (late.where, late.error, late.attempts) == ("there", "", 3) and len(set(tries)) == 3
    bad = try_case(cases.Case("bad", 4, 5), tmp_path)
    assert (bad.where, bad.error) == ("", "step 3 was lost")
    assert [path.name for path in (tmp_path / "cases").iterdir()] == ["bad_4"]


def test_the_table_counts_what_struck_and_says_how_to_repeat_a_failure():
    results = [
        Result("SIGTERM", 0, 7, 1, 2.0, where="saved and left"),
        Result("SIGTERM", 1, 7, 2, 4.0, error="step 3 was lost"),
        Result("SIGTERM", 2, 7, 6, 3.0),
    ]
    lines = table(results, cases.plan(4, 7, ["SIGTERM"]), 9.0).splitlines()
    assert lines[1].split() == ["SIGTERM", "2", "1", "1", "3.0", "saved", "and", "left:", "1"]
    assert lines[2].split()[:4] == ["all", "2", "1", "1"]
    assert lines[3] == "9 s; 1 of 4 planned faults were not begun in time, 1 did not strike in 6 attempts"
    assert lines[4] == 'FAILED --only "SIGTERM" --case 1 --seed 7: step 3 was lost'
    done = [results[0], results[2]]
    assert exit_code(done, cases.plan(2, 7, ["SIGTERM"])) == 0
    assert exit_code(results, cases.plan(3, 7, ["SIGTERM"])) == 1  # one failed
    assert exit_code(done, cases.plan(3, 7, ["SIGTERM"])) == 1  # one was not begun


@pytest.mark.parametrize("damage", [damaged_checkpoints.cut, damaged_checkpoints.flip, damaged_checkpoints.hole])
def test_damage_changes_a_file(damage, tmp_path):
    content = bytes(range(1, 256)) * 20
    for seed in range(20):
        (tmp_path / "file").write_bytes(content)
        damage(tmp_path / "file", random.Random(seed))
        found = (tmp_path / "file").read_bytes()
        assert found != content and len(found) <= len(content)
