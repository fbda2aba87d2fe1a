import io
import json
import random
import tarfile
from itertools import islice

import numpy as np
import pytest
import torch
from lavis.datasets.data_utils import concat_datasets
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.streams import ImageCaptionStream, expand_shards
from lavis_evlgen.errors import DataError


def encoded(shade: int, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(buffer, kind)
    return buffer.getvalue()


def write_shard(path, samples: list[dict[str, bytes]], first: int = 0) -> None:
    with tarfile.open(path, "w") as tar:
        for number, files in enumerate(samples, start=first):
            for suffix, data in files.items():
                entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def sample(number: int, kind: str = "png") -> dict[str, bytes]:
    return {kind: encoded(number, kind), "json": json.dumps({"caption": f"number {number}"}).encode()}


@pytest.fixture
def shards(tmp_path):
    """Three shards with the samples 0..9, 10..19, 20..29."""
    for shard in range(3):
        write_shard(tmp_path / f"{shard}.tar", [sample(10 * shard + n) for n in range(10)], first=10 * shard)
    return [str(tmp_path / f"{shard}.tar") for shard in range(3)]


def numbers(items) -> list[int]:
    return [int(item["text_input"].split()[1]) for item in items]


def stream(shards, **options):
    return ImageCaptionStream(shards, to_tensor, str.lower, **{"shuffle_buffer": 8, **options})


def test_every_sample_comes_once_an_epoch_in_a_repeatable_shuffled_order(shards):
    order = numbers(islice(stream(shards), 60))
    assert sorted(order[:30]) == sorted(order[30:]) == list(range(30))
    assert order[:30] != order[30:] and order[:30] != list(range(30))
    assert numbers(islice(stream(shards), 60)) == order
    assert numbers(islice(stream(shards, seed=1), 60)) != order


def test_items_hold_picture_text_and_id(shards):
    item = next(iter(stream(shards, shuffle_buffer=0)))
    number = int(item["text_input"].split()[1])
    assert torch.allclose(item["image"], torch.full((3, 4, 4), number / 255))
    assert item["image_id"] == f"{number // 10}/{number:05d}"


@pytest.mark.parametrize("seen", [0, 1, 29, 30, 47])
def test_a_position_is_reached_without_decoding(shards, monkeypatch, seen):
    expected = numbers(islice(stream(shards), 60))
    resumed = stream(shards)
    resumed.set_position(seen)
    decoded = []
    decode = resumed._decode
    monkeypatch.setattr(resumed, "_decode", lambda raw, name: decoded.append(name) or decode(raw, name))
    assert numbers(islice(resumed, 60 - seen)) == expected[seen:]
    assert len(decoded) == 60 - seen
    with pytest.raises(ValueError, match="negative"):
        resumed.set_position(-1)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_loader_with_workers_goes_on_where_another_stopped(shards, workers):
    def batches(dataset, count):
        loader = DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=dataset.collater)
        return [batch["text_input"] for batch in islice(loader, count)]

    expected = batches(stream(shards), 12)
    resumed = stream(shards)
    resumed.set_position(5 * 4, batch_size=4)
    assert batches(resumed, 7) == expected[5:]


@pytest.mark.parametrize(("world", "workers"), [(1, 2), (3, 1), (2, 2), (2, 4)])
def test_ranks_and_workers_share_the_samples(shards, monkeypatch, world, workers):
    """More readers than shards included: together they read every sample, none twice."""
    read = []
    for rank in range(world):
        for worker in range(workers):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world))
            monkeypatch.setenv("WORKER", str(worker))
            monkeypatch.setenv("NUM_WORKERS", str(workers))
            reader, epoch = stream(shards), []
            for (_, number, _, _), raw in reader._raw(rank * workers + worker, world * workers):
                if number:
                    break
                epoch.append(int(raw["__key__"]))
            assert epoch
            assert sorted(numbers(islice(reader, len(epoch)))) == sorted(epoch)
            read.extend(epoch)
    assert sorted(read) == list(range(30))


def test_a_shard_with_fewer_samples_than_readers_serves_them_all(tmp_path):
    write_shard(tmp_path / "tiny.tar", [sample(0), sample(1)])
    reader = stream([str(tmp_path / "tiny.tar")])
    firsts = [next(reader._raw(slot, 5))[1]["__key__"] for slot in range(5)]
    assert set(firsts) == {"00000", "00001"}


def test_resuming_keeps_the_augmentation_and_leaves_the_callers_generators_alone(shards):
    def noisy(picture):
        return to_tensor(picture) + torch.rand(1) + random.random() + np.random.rand()

    def images(dataset, count):
        return [item["image"][0, 0, 0].item() for item in islice(dataset, count)]

    expected = images(ImageCaptionStream(shards, noisy, str, shuffle_buffer=8), 10)
    resumed = ImageCaptionStream(shards, noisy, str, shuffle_buffer=8)
    resumed.set_position(6)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert images(resumed, 4) == expected[6:]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_picture_kinds_and_text_captions(tmp_path, kind):
    write_shard(tmp_path / "a.tar", [{kind: encoded(90, kind), "txt": b"Number 5\n"}])
    item = next(iter(stream([str(tmp_path / "a.tar")])))
    assert item["text_input"] == "number 5"
    assert item["image"].mean().item() == pytest.approx(90 / 255, abs=0.02)


def test_another_caption_key_and_several_captions(tmp_path):
    captions = {"blip": ["number 1", "number 2"]}
    write_shard(tmp_path / "a.tar", [{"png": encoded(1, "png"), "json": json.dumps(captions).encode()}])
    drawn = numbers(islice(stream([str(tmp_path / "a.tar")], caption_key="blip"), 20))
    assert set(drawn) == {1, 2}


DAMAGED = {
    "damaged picture": {"png": encoded(1, "png")[:-20], "json": b'{"caption": "x"}'},
    "no picture": {"json": b'{"caption": "x"}'},
    "neither .json nor .txt": {"png": encoded(1, "png")},
    "no key 'caption'": {"png": encoded(1, "png"), "json": b'{"text": "x"}'},
    "empty caption": {"png": encoded(1, "png"), "txt": b" \n"},
    "not text": {"png": encoded(1, "png"), "json": b'{"caption": 3}'},
    "Expecting": {"png": encoded(1, "png"), "json": b'{"caption"'},
    "invalid start byte": {"png": encoded(1, "png"), "txt": b"\xff\xfe"},
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_damaged_members_are_bad_samples_for_us_and_skipped_for_lavis(tmp_path, caplog, reason):
    write_shard(tmp_path / "a.tar", [sample(0), DAMAGED[reason], sample(2)])
    path = str(tmp_path / "a.tar")
    ours = stream([path])
    ours.yield_bad_samples = True
    items = list(islice(ours, 3))
    (bad,) = [item for item in items if isinstance(item, BadSample)]
    assert bad.path == f"{path}#00001" and reason in bad.reason
    assert sorted(numbers(islice(stream([path]), 2))) == [0, 2]
    assert f"{path}#00001" in caplog.text


def test_the_rest_of_a_damaged_shard_is_one_bad_sample(shards):
    with open(shards[1], "rb+") as file:
        file.truncate(4 * 2048 + 512 + 9)  # four samples, a header and a bit
    ours = stream(shards)
    ours.yield_bad_samples = True
    items = list(islice(ours, 25))
    (bad,) = [item for item in items if isinstance(item, BadSample)]
    assert bad.path == f"{shards[1]}#*" and "damaged shard" in bad.reason
    assert sorted(numbers(item for item in items if item is not bad)) == [*range(14), *range(20, 30)]


def test_shards_without_any_sample_end_in_an_error_not_in_a_hang(tmp_path):
    write_shard(tmp_path / "empty.tar", [])
    with pytest.raises(DataError, match=r"no sample for reader 1 of 1, e\.g\. .*empty\.tar"):
        next(iter(stream([str(tmp_path / "empty.tar")])))
    write_shard(tmp_path / "bad.tar", [DAMAGED["no picture"]])
    with pytest.raises(DataError, match="1000 damaged samples in a row"):
        next(iter(stream([str(tmp_path / "bad.tar")])))


def test_stock_lavis_chains_and_batches_it(shards):
    dataset = concat_datasets({"train": [stream(shards)]})["train"]
    loader = DataLoader(dataset, batch_size=6, num_workers=2)
    batch = next(iter(loader))
    assert batch["image"].shape == (6, 3, 4, 4)
    assert len(set(batch["image_id"])) == 6


def test_expand_shards(shards, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_shards(f"{tmp_path}/{{0..2}}.tar") == shards
    assert expand_shards("~/*.tar") == shards
    assert expand_shards([shards[2], f"{tmp_path}/[01].tar"]) == [shards[2], *shards[:2]]
    assert expand_shards("https://host/{0..1}.tar") == ["https://host/0.tar", "https://host/1.tar"]
    assert expand_shards(f"{tmp_path}/{{0..4}}.tar", "key") == shards
    assert "key: 2 of 5 shards are missing, e.g." in caplog.text and "3.tar" in caplog.text
    with pytest.raises(DataError, match="none of the 3 shards of the.key exists: looked for /nowhere/0.tar"):
        expand_shards("/nowhere/{0..2}.tar", "the.key")
    with pytest.raises(DataError, match="no shards given: set the.key"):
        expand_shards((), "the.key")
