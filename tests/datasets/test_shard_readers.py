"""Passes over shards that several sets of readers share one after another."""

import io
import json
import tarfile
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings, strategies

from lavis_evlgen.datasets.shard_readers import Readers, RestPosition, plain, taken_over, without_past

SIZES = (6, 9, 7, 6, 8)
TOTAL = sum(SIZES)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("shards")
    for shard, size in enumerate(SIZES):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(size):
                entry = tarfile.TarInfo(f"{shard}-{number}.txt")
                entry.size = 1
                tar.addfile(entry, io.BytesIO(b"x"))
    return [str(folder / f"{shard}.tar") for shard in range(len(SIZES))]


def through_a_checkpoint(noted: dict) -> dict:
    """As torch.save and JSON leave it: lists, numbers and the readers' numbers as keys."""

    def numbered(found: dict) -> dict:
        return {int(key) if key.isdigit() else key: value for key, value in found.items()}

    return json.loads(json.dumps(noted), object_hook=numbered)


def read_on(shards, block, noted, counts) -> tuple[dict, Counter]:
    """Every reader of `noted` reads `counts` samples: where they stand then, and what (epoch, key) was read."""
    readers = Readers(shards, 7, block, noted)
    read: Counter = Counter()
    positions = dict(noted["positions"])
    for reader, count in zip(range(noted["count"]), counts, strict=False):
        for (seed, epoch, _, _), sample, position in islice(readers.samples(reader), count):
            assert seed == 7
            read[epoch, sample["__key__"]] += 1
            positions[reader] = plain(position)
    return through_a_checkpoint(dict(without_past({**noted, "positions": positions}))), read


COUNTS = strategies.lists(strategies.integers(0, 30), min_size=5, max_size=5)
PART = strategies.tuples(strategies.integers(1, 5), COUNTS)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(strategies.lists(PART, min_size=2, max_size=4), strategies.sampled_from([1, 4, 100]))
def test_no_sample_of_a_pass_is_lost_or_repeated_whoever_reads_it(shards, parts, block):
    """Sets of 1 to 5 readers that got unequally far, each taken over by another, also within the rest of a rest."""
    noted: dict = {"count": parts[0][0], "positions": {}}
    read: Counter = Counter()
    for count, counts in parts:
        noted = through_a_checkpoint(dict(taken_over(noted, count)))
        noted, more = read_on(shards, block, noted, counts)
        read += more
    end = Readers(shards, 7, block, noted)
    last = end.last_epoch
    for reader in range(end.count):
        for (_, epoch, _, _), sample, _ in end.samples(reader, last=last):
            read[epoch, sample["__key__"]] += 1
    assert set(read.values()) == {1}
    assert Counter(epoch for epoch, _ in read) == dict.fromkeys(range(last + 1), TOTAL)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(strategies.integers(0, 40), strategies.integers(1, 5), strategies.sampled_from([1, 4, 100]))
def test_a_position_within_the_rest_leads_straight_on(shards, done, count, block):
    noted, _ = read_on(shards, block, {"count": 3, "positions": {}}, (2, 9, 5))
    now = dict(taken_over(noted, count))
    reads = islice(Readers(shards, 7, block, now).samples(0), done + 8)
    expected = [(name, sample["__key__"], position) for name, sample, position in reads]
    if done:
        now["positions"] = {0: json.loads(json.dumps(plain(expected[done - 1][2])))}
    reads = islice(Readers(shards, 7, block, now).samples(0), 8)
    assert [(name, sample["__key__"], position) for name, sample, position in reads] == expected[done:]


def test_the_rest_is_shared_equally(shards):
    noted, first = read_on(shards[:2], 1, {"count": 1, "positions": {}}, (3,))
    now = taken_over(noted, 3)
    assert now["before"] == noted and now["positions"] == {}
    readers = Readers(shards[:2], 7, 1, now)
    parts = [[sample["__key__"] for _, sample, _ in readers.samples(reader, last=0)] for reader in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]  # 15 samples, of which 3 were read
    assert len({key for part in parts for key in part} | {key for _, key in first}) == 15


def test_the_past_is_forgotten_once_nobody_reads_it(shards):
    noted, _ = read_on(shards, 4, {"count": 2, "positions": {}}, (5, 5))
    now, _ = read_on(shards, 4, dict(taken_over(noted, 1)), (TOTAL - 10,))
    assert "before" in now and len(now["positions"][0]) == len(RestPosition._fields)
    now, _ = read_on(shards, 4, now, (1,))
    assert "before" not in now and now["positions"][0][0] == 1
