"""Mixtures by ratio of real tar and json sources: what two processes draw, also after being killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import mixture_run
import pytest
from hypothesis import given, settings, strategies
from lavis.common.registry import registry
from PIL import Image
from tiny_runs import write_config

from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.datasets.shard_writer import Entry, write_shards
from lavis_evlgen.launch import lavis_config
from lavis_evlgen.runners.loaders import TrainLoader
from lavis_evlgen.runners.mixture import Turns
from lavis_evlgen.runners.settings import RunSettings

RATIOS = {"laion115M": 15, "ccs14M": 4, "coco_caption": 1}
SIZES = {"laion115M": 1200, "ccs14M": 160, "coco_caption": 88}
RANKS = (0, 1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, dict]:
    """Configurations of the sources: six shards of 200 samples, one of 160 for both ranks, a json of 88 pictures."""
    folder = tmp_path_factory.mktemp("sources")

    def picture(name: str, number: int) -> tuple[Path, str]:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        shade = number * 7 % 256
        Image.new("RGB", (8, 8), (shade, 255 - shade, number % 256)).save(path)
        return path, f"class {number % 6}"

    for name, size in (("laion115M", 200), ("ccs14M", 160)):
        made = [picture(f"{name}/{number}.jpg", number) for number in range(SIZES[name])]
        entries = [Entry(path.name, path, {"caption": text}) for path, text in made]
        write_shards(entries, str(folder / f"{name}-{{:05d}}.tar"), size=size)
    rows = []
    for number in range(SIZES["coco_caption"]):
        path, text = picture(f"val2014/COCO_val2014_{number:012d}.jpg", number)
        rows.append({"image": f"val2014/{path.name}", "caption": text, "image_id": f"coco_{number}"})
    (folder / "coco.json").write_text(json.dumps(rows))
    shared = {
        "vis_processor": {kind: {"name": "blip_image_eval", "image_size": 4} for kind in ("train", "eval")},
        "text_processor": {"train": {"name": "blip_caption"}},
    }
    annotations = {"train": {"storage": str(folder / "coco.json")}, "val": None, "test": None}
    return {
        "laion115M": {"build_info": {"storage": str(folder / "laion115M-{00000..00005}.tar")}, **shared},
        "ccs14M": {"shards": str(folder / "ccs14M-00000.tar"), **shared},
        "coco_caption": {"build_info": {"annotations": annotations, "images": {"storage": str(folder)}}, **shared},
    }


def source_of(image_id: str) -> str:
    return image_id.split("-")[0] if "/" in image_id else "coco_caption"


def check_draws(drawn: list[list[list[str]]]) -> None:
    """`drawn` holds, by rank and step, the ids of a batch: sources, ratio, and sharing are as they should be."""
    steps = len(drawn[0])
    by_step = [[{source_of(image_id) for image_id in batch} for batch in rank] for rank in drawn]
    assert all(len(found) == 1 for rank in by_step for found in rank)
    assert by_step[0] == by_step[1]  # the same source on both ranks
    counts = Counter(source for step in by_step[0] for source in step)
    for name, ratio in RATIOS.items():
        assert counts[name] == pytest.approx(steps * ratio / 20, rel=0.02, abs=1 if steps < 1000 else 0), name
    for name in RATIOS:
        ids = [[i for batch in rank for i in batch if source_of(i) == name] for rank in drawn]
        share = SIZES[name] // 2
        assert len(ids[0]) >= 2 * share  # two epochs at least
        for start in range(0, len(ids[0]) - share + 1, share):
            epoch = [rank[start : start + share] for rank in ids]
            assert not set(epoch[0]) & set(epoch[1])
            assert len(set(epoch[0]) | set(epoch[1])) == SIZES[name]  # every sample once


@settings(deadline=None, max_examples=60)
@given(strategies.lists(strategies.integers(0, 40), min_size=1, max_size=6).filter(any))
def test_nobody_is_ever_a_turn_off_his_share(weights):
    turns, total = Turns(weights), sum(weights)
    had = [0] * len(weights)
    for step in range(2 * total):
        had[turns(step)] += 1
        for count, weight in zip(had, weights, strict=True):
            assert abs(count - (step + 1) * weight / total) < 1
    assert had == [2 * weight for weight in weights]


def test_turns_by_fractions_at_any_step():
    turns = Turns([0.75, 0.2, 0.05])
    assert turns.weights == [15, 4, 1] and turns.round == 20
    assert [turns(step) for step in range(20)] == [turns(step) for step in range(1000, 1020)]
    assert Turns([15, 4, 1])(10**12 + 3) == turns(3)
    assert Turns([1 / 3, 2 / 3]).weights == [1, 2]
    assert Turns([1e-9, 2e-9]).weights == [1, 2]
    assert Turns([115_000_000, 14_000_000, 0]).weights == [115, 14, 0]
    for wrong in ([], [0.0], [1, -1]):
        with pytest.raises(ValueError, match="weights must be positive"):
            Turns(wrong)


@pytest.fixture
def loaders(sources, tmp_path, monkeypatch):
    """Makes a pair of loaders, of rank 0 and 1, on the mixture; and draws from them as two processes would."""
    argv = write_config(tmp_path, data=sources, train_dataset_ratios=RATIOS)
    config = lavis_config(read_config(argv[1], []))

    def make(**options):
        values = {"batch_size_train": 4, "seed": 5, "train_dataset_ratios": RATIOS, **options}
        pair = []
        for rank in RANKS:
            built = {
                name: [registry.get_builder_class(name)(section).build_datasets()["train"]]
                for name, section in config.datasets_cfg.items()
            }
            pair.append(TrainLoader(built, RunSettings(**values), rank, len(RANKS)))
        return pair

    def draw(pair, steps):
        drawn = [[], []]
        for _ in range(steps):
            for rank, loader in enumerate(pair):
                monkeypatch.setenv("RANK", str(rank))  # what a stream's reader looks at when it starts
                monkeypatch.setenv("WORLD_SIZE", "2")
                drawn[rank].append(list(next(loader)["image_id"]))
        return drawn

    return make, draw


def test_two_loaders_draw_the_mixture(loaders):
    make, draw = loaders
    check_draws(draw(make(), 480))


def saved(pair) -> dict:
    """The state as a checkpoint holds it: with the readers of all ranks, which the ranks gather otherwise."""
    states = [json.loads(json.dumps(loader.state_dict()), object_hook=_integer_keys) for loader in pair]
    for name in ("laion115M", "ccs14M"):
        parts = [state["positions"][name]["readers"]["positions"] for state in states]
        assert not parts[0].keys() & parts[1].keys()
        states[0]["positions"][name]["readers"]["positions"] = parts[0] | parts[1]
    return states[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_go_on_where_others_stopped(loaders, workers, caplog):
    make, draw = loaders
    pairs = [make(num_workers=workers)]
    draw(pairs[0], 57)
    for steps in (18, 30):  # stopped twice
        state = saved(pairs[-1])
        expected = draw(pairs[0], steps)
        pairs.append(make(num_workers=workers))
        for loader in pairs[-1]:
            loader.load_state_dict(state)
        assert draw(pairs[-1], steps) == expected
        assert state["positions"]["ccs14M"]["readers"]["count"] == 2 * max(1, workers)
    assert "to find the place" not in caplog.text
    for pair in pairs:
        for loader in pair:
            loader.close()


def test_loaders_with_other_workers_read_what_the_earlier_ones_left(loaders):
    make, draw = loaders
    pair = make()
    before = draw(pair, 40)
    other = make(num_workers=2)
    state = saved(pair)
    changes = [loader.load_state_dict(state) for loader in other]
    assert (
        changes[0]
        == changes[1]
        == [
            "what 2 readers had not read of their pass over laion115M is read by 4, none of them is lost or repeated",
            "what 2 readers had not read of their pass over ccs14M is read by 4, none of them is lost or repeated",
        ]
    )
    assert other[0].state_dict()["positions"]["laion115M"]["samples"] == 30 * 8
    check_draws([a + b for a, b in zip(before, draw(other, 440), strict=True)])
    for loader in other:
        loader.close()


def _integer_keys(found: dict) -> dict:
    return {int(key) if key.isdigit() else key: value for key, value in found.items()}


def records(folder: Path, rank: int) -> list[dict]:
    path = folder / f"drawn.{rank}"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be being written


def check_killed_run(folder: Path, whole: list[list[list[str]]]) -> None:
    """What was drawn before each kill and after resuming is, step for step, what an uninterrupted run draws."""
    resumed_at = []
    for rank in RANKS:
        found = records(folder, rank)
        assert all(record["ids"] == whole[rank][record["step"]] for record in found)
        runs = [
            [each["step"] for each in found if each["pid"] == pid] for pid in dict.fromkeys(r["pid"] for r in found)
        ]
        assert len(runs) > 1 and runs[0][0] == 0 and runs[-1][-1] == len(whole[rank]) - 1
        for before, after in pairwise(runs):
            assert after == list(range(after[0], after[-1] + 1)) and 0 < after[0] <= before[-1] + 1
        resumed_at.append([run[0] for run in runs])
    assert resumed_at[0] == resumed_at[1]


def kill_both(folder: Path, step: int) -> None:
    """SIGKILL for both ranks as soon as both have drawn `step` batches."""
    deadline = time.monotonic() + 300
    while not all((found := records(folder, rank)) and found[-1]["step"] >= step for rank in RANKS):
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.02)
    for rank in RANKS:
        os.kill(records(folder, rank)[-1]["pid"], signal.SIGKILL)


RUN = {"task": "recording_task", "train_dataset_ratios": RATIOS, "seed": 5, "log_freq": 100, "init_lr": 1e-3}


def test_two_processes_killed_and_resumed(sources, loaders, start_processes, tmp_path):
    make, draw = loaders
    steps = {"max_iters": 160, "iters_per_inner_epoch": 160, "save_freq": 20}
    argv = write_config(tmp_path, "parts", data=sources, **RUN, **steps, model={"slow": 0.1, "slow_steps": [65, 105]})
    killed = start_processes(argv, 2, mixture_run.launch_rank)
    kill_both(tmp_path / "parts", 65)
    for process in killed:
        process.join(300)
    assert [process.exitcode for process in killed] == [-signal.SIGKILL] * 2
    resumed = start_processes(argv, 2, mixture_run.launch_rank)
    for process in resumed:
        process.join(300)
    assert [process.exitcode for process in resumed] == [0, 0], (tmp_path / "log.0").read_text()[-2000:]
    check_killed_run(tmp_path / "parts", draw(make(), 160))
    logs = "".join((tmp_path / f"log.{rank}").read_text() for rank in RANKS)
    assert "going on after step" in logs and "to find the place" not in logs  # every reader was led there


@pytest.mark.slow
def test_torchrun_killed_and_resumed_over_2000_steps(sources, tmp_path):
    """15:4:1 within 2 % (here exactly), by two workers in each of two processes that torchrun starts."""
    steps = {"max_iters": 2000, "iters_per_inner_epoch": 2000, "save_freq": 150, "num_workers": 2}

    def torchrun(out: str) -> subprocess.Popen:
        argv = write_config(tmp_path, out, data=sources, **RUN, **steps)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        log = (tmp_path / f"{out}.log").open("a")
        script = str(Path(mixture_run.__file__))
        return subprocess.Popen(
            [*launcher, script, *argv], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )

    assert torchrun("whole").wait(600) == 0, (tmp_path / "whole.log").read_text()[-2000:]
    whole = [[record["ids"] for record in records(tmp_path / "whole", rank)] for rank in RANKS]
    check_draws(whole)
    counts = Counter(source_of(batch[0]) for batch in whole[0])
    assert counts == {"laion115M": 1500, "ccs14M": 400, "coco_caption": 100}
    for step in (500, 1100):
        killed = torchrun("parts")
        kill_both(tmp_path / "parts", step)
        assert killed.wait(100) != 0
    assert torchrun("parts").wait(600) == 0, (tmp_path / "parts.log").read_text()[-2000:]
    check_killed_run(tmp_path / "parts", whole)
    assert "to find the place" not in (tmp_path / "parts.log").read_text()
