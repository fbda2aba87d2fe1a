"""Runs that go on with other processes or batches, and runs that are interrupted many times."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import mixture_run
import pytest
import torch
from hypothesis import given, settings, strategies
from PIL import Image
from tiny_lavis import TinyData
from tiny_runs import losses, trained, write_config
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.shard_writer import Entry, write_shards
from lavis_evlgen.datasets.shards import expand_shards
from lavis_evlgen.datasets.streams import ImageCaptionStream
from lavis_evlgen.runners import resume, rng
from lavis_evlgen.runners.loaders import TrainLoader
from lavis_evlgen.runners.samples import EpochBatches, Place
from lavis_evlgen.runners.settings import RunSettings

SAMPLES = 43

PART = strategies.tuples(strategies.integers(1, 5), strategies.integers(1, 4), strategies.integers(0, 12))


@settings(deadline=None, max_examples=80, derandomize=True)
@given(strategies.integers(1, 60), strategies.lists(PART, min_size=2, max_size=5))
def test_every_sample_once_in_an_epoch_that_changes_hands(length, parts):
    """Parts of (processes, batch size, steps), each going on where the one before stopped."""
    place, shown = Place(), Counter()
    changed = set()
    for world_size, batch_size, steps in parts:
        ranks = [EpochBatches(length, batch_size, 3, rank, world_size) for rank in range(world_size)]
        if place.samples:
            place = place._replace(rest=True)
            changed.add(place.epoch)
        for each in ranks:
            each.start = place
        iterators = [iter(each) for each in ranks]
        for _ in range(steps):
            batches = [next(iterator) for iterator in iterators]
            order = [index for batch in batches for _, index in batch]
            size = min(world_size * batch_size, ranks[0].remaining(place))
            assert order == ranks[0].order(place.epoch)[place.samples : place.samples + size].tolist()
            assert max(map(len, batches)) <= batch_size and max(map(len, batches)) - min(map(len, batches)) <= 1
            shown += Counter(key for batch in batches for key in batch)
            place = ranks[0].after(place)
    for epoch in changed - {place.epoch}:
        assert {key: shown[key] for key in shown if key[0] == epoch} == {(epoch, i): 1 for i in range(length)}


def loader(batch_size: int = 2, rank: int = 0, world_size: int = 1, length: int = SAMPLES, **values) -> TrainLoader:
    return TrainLoader(
        {"d": [TinyData(length)]}, RunSettings(batch_size_train=batch_size, seed=3, **values), rank, world_size
    )


def test_the_rest_of_an_epoch_and_its_tail_are_shared_by_the_new_ranks():
    """12 of 43 samples by 2 ranks; 3 ranks show the other 31: five batches of 2 each, and 1 sample for one of them."""
    first = loader(world_size=2)
    for _ in range(3):
        next(first)
    ranks = [loader(rank=rank, world_size=3) for rank in range(3)]
    for each in ranks:
        changes = each.load_state_dict(first.state_dict())
        assert changes == [
            "the remaining 31 samples of this epoch of d are shared anew, none of them is lost or repeated"
        ]
        assert each.batches_until(1) == 6 and each.batches_until(3) == 6 + 2 * 7
    batches = [[next(each) for each in ranks] for _ in range(6)]
    sizes = [[len(batch["index"]) if batch else 0 for batch in step] for step in batches]
    assert sizes == [[2, 2, 2]] * 5 + [[0, 0, 1]]
    order = EpochBatches(SAMPLES, 2, 3).order(0).tolist()
    assert [i for step in batches for batch in step if batch for i in batch["index"].tolist()] == order[12:]
    assert ranks[0].state_dict()["positions"]["d"] == {
        "epoch": 1, "samples": 0, "rest": False, "global_batch": 6, "length": SAMPLES, "seed": 3
    }  # fmt: skip


def test_nothing_is_said_and_nothing_changes_where_nothing_changed():
    first = loader()
    for _ in range(5):
        next(first)
    again = loader(num_workers=2)
    assert again.load_state_dict(first.state_dict()) == []
    assert torch.equal(next(again)["image"], next(first)["image"])
    again.close()


def test_other_data_begin_another_epoch():
    first = loader()
    next(first)
    other = loader(length=44)
    (change,) = other.load_state_dict(first.state_dict())
    assert change.endswith("({'length': 43, 'seed': 3}, now {'length': 44, 'seed': 3}): its next epoch begins")
    assert other.state_dict()["positions"]["d"]["epoch"] == 1


def test_a_rank_keeps_its_random_numbers_and_a_new_one_gets_its_own(monkeypatch):
    class Training:
        settings, iters = RunSettings(seed=5), 8

    torch.manual_seed(11)
    state = {"rng": [rng.capture()]}
    kept = torch.rand(3)
    drawn = {}
    for rank in range(3):
        monkeypatch.setattr(resume, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(resume, "get_world_size", lambda: 3)
        assert resume._restore_random(Training, state) == "random numbers differ"
        drawn[rank] = [torch.rand(3), random.random()]
    assert torch.equal(drawn[0][0], kept)
    assert len({float(torch_numbers[0]) for torch_numbers, _ in drawn.values()}) == 3
    assert drawn[1][1] != drawn[2][1]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory) -> dict:
    """Map-style data of 43 samples, and a stream of 3 shards of 12 pictures each."""
    folder = tmp_path_factory.mktemp("mixture")
    entries = []
    for number in range(36):
        path = folder / f"laion115M-{number}.png"
        Image.new("RGB", (4, 4), (number * 7, 0, 0)).save(path)
        entries.append(Entry(path.name, path, {"caption": f"class {number % 6}"}))
    write_shards(entries, str(folder / "laion115M-{:05d}.tar"), size=12)
    processors = {
        "vis_processor": {kind: {"name": "blip_image_eval", "image_size": 4} for kind in ("train", "eval")},
        "text_processor": {"train": {"name": "blip_caption"}},
    }
    shards = {"shards": str(folder / "laion115M-{00000..00002}.tar"), "shuffle_buffer": 5, **processors}
    return {"tiny_data": {"train": SAMPLES}, "laion115M": shards}


def test_other_shards_or_blocks_begin_another_pass_of_a_stream(mixture):
    shards = expand_shards(mixture["laion115M"]["shards"])

    def made(shards, **options) -> TrainLoader:
        stream = ImageCaptionStream(shards, to_tensor, str, **{"shuffle_buffer": 5, **options})
        return TrainLoader({"s": [stream]}, RunSettings(batch_size_train=2))

    first = made(shards)
    for _ in range(3):
        next(first)
    same = made(shards)
    assert same.load_state_dict(first.state_dict()) == []
    assert next(same)["image_id"] == next(first)["image_id"]
    for other in (made(shards[:2]), made(shards, shuffle_buffer=6), made(shards, seed=1)):
        assert other.load_state_dict(first.state_dict()) == [
            "the order of s is another one (shards, seed or shuffle_buffer): its next pass begins"
        ]
        next(other)
        assert other.state_dict()["positions"]["s"]["readers"]["positions"][0][::3] == [1, 2]  # epoch, seen


OPTIONS = {
    "task": "recording_task",
    "train_dataset_ratios": {"tiny_data": 1, "laion115M": 1},
    "batch_size_train": 2,
    "lr_sched": "constant_lr",  # of which max_iters says nothing
    "iters_per_inner_epoch": 100,
}


@pytest.fixture
def run_recorded(start_processes, tmp_path):
    """One run by some processes; what rank 0 said."""

    def run(argv: list[str], processes: int) -> str:
        started = start_processes(argv, processes, mixture_run.launch_rank)
        for process in started:
            process.join(300)
            process.kill()
        logs = [(tmp_path / f"log.{rank}").read_text() for rank in range(processes)]
        assert [process.exitcode for process in started] == [0] * processes, [log[-2000:] for log in logs]
        return logs[0]

    return run


@pytest.mark.parametrize("processes", [1, 2])
def test_five_resumes_change_no_bit(processes, mixture, run_recorded, tmp_path):
    options = {**OPTIONS, "data": mixture, "num_workers": 1, "accum_grad_iters": 2}
    run_recorded(write_config(tmp_path, "whole", max_iters=23, **options), processes)
    log = ""
    for stop in (2, 3, 9, 10, 17, 23):
        log += run_recorded(write_config(tmp_path, "parts", max_iters=stop, **options), processes)
    assert re.findall(r"going on after step (\d+)", log) == ["2", "3", "9", "10", "17"]
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [row[0] for row in losses(tmp_path / "parts")] == list(range(1, 24))
    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    for rank in range(processes):
        drawn = [recorded(tmp_path / out, rank) for out in ("whole", "parts")]
        assert drawn[0] == drawn[1] and len(drawn[0]) == 46


def recorded(folder: Path, rank: int) -> list[list[str]]:
    """The ids of this rank's batches."""
    return [json.loads(line)["ids"] for line in (folder / f"drawn.{rank}").read_text().splitlines()]


def test_two_then_one_then_three_processes_show_every_sample_once(mixture, run_recorded, tmp_path):
    shown: dict[str, list[str]] = {"map": [], "stream": []}
    log = ""
    for processes, stop in ((2, 6), (1, 15), (3, 28)):
        log += run_recorded(write_config(tmp_path, max_iters=stop, data=mixture, **OPTIONS), processes)
        ranks = [recorded(tmp_path / "out", rank) for rank in range(processes)]
        for step in zip(*ranks, strict=True):
            ids = [image_id for batch in step for image_id in batch]
            shown["stream" if "/" in ids[0] else "map"] += ids
        for rank in range(processes):
            (tmp_path / "out" / f"drawn.{rank}").unlink()
    assert {kind: len(ids) for kind, ids in shown.items()} == {"map": 43 + 2 * 6, "stream": 12 + 8 + 7 * 6}
    assert len(set(shown["map"][:SAMPLES])) == SAMPLES  # the first epoch ends with a batch of 3
    assert len(set(shown["map"][SAMPLES:])) == 12
    # every rank begins the stream's second pass when its part of the first one is over; none comes to a third
    assert Counter(Counter(shown["stream"]).values()) == {2: 26, 1: 10}
    assert (
        "was written by 2 processes with batches of 2, now 1 process with batches of 2: the remaining 31 samples" in log
    )
    assert "what 2 readers had not read of their pass over laion115M is read by 1" in log
    assert log.count("random numbers differ") == 2
