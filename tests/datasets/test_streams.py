import io
import json
import random
import shutil
import tarfile
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import numpy as np
import pytest
import torch
from lavis.datasets.data_utils import concat_datasets
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets import shard_readers
from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.shards import expand_shards
from lavis_evlgen.datasets.streams import POSITION, ImageCaptionStream
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
    read, shares = [], []
    for rank in range(world):
        for worker in range(workers):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world))
            monkeypatch.setenv("WORKER", str(worker))
            monkeypatch.setenv("NUM_WORKERS", str(workers))
            reader, epoch = stream(shards), []
            for (_, number, _, _), raw, _ in reader._raw(rank * workers + worker, world * workers):
                if number:
                    break
                epoch.append(int(raw["__key__"]))
            assert epoch
            assert sorted(numbers(islice(reader, len(epoch)))) == sorted(epoch)
            read.extend(epoch)
            shares.append(len(epoch))
    assert sorted(read) == list(range(30))
    if 2 * 3 % (world * workers) == 0:  # whole shards, or halves: all end their epochs together
        assert len(set(shares)) == 1


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


@pytest.mark.parametrize("shuffle_buffer", [0, 1, 4, 7, 30, 1000])
@pytest.mark.parametrize(("reader", "readers"), [(0, 1), (1, 2), (2, 4), (3, 4), (4, 50)])
def test_a_noted_position_leads_straight_to_the_next_sample(shards, monkeypatch, shuffle_buffer, reader, readers):
    """From every place of two epochs, in the middle of blocks and shards and between them."""
    for key, value in {"RANK": reader, "WORLD_SIZE": readers, "WORKER": 0, "NUM_WORKERS": 1}.items():
        monkeypatch.setenv(key, str(value))

    def batches(position=None):
        fresh = stream(shards, shuffle_buffer=shuffle_buffer)
        fresh.set_position(0, readers={"count": readers, "positions": {reader: position}} if position else {})
        for item in fresh:
            yield fresh.collater([item])

    first = list(islice(batches(), 2 * 30 // min(readers, 30) + 3))
    for number, batch in enumerate(first[:-2]):
        assert batch[POSITION][:2] == (readers, reader)
        following = list(islice(batches(batch[POSITION][2:]), 2))
        assert [b["image_id"] for b in following] == [b["image_id"] for b in first[number + 1 : number + 3]]
        assert [b[POSITION] for b in following] == [b[POSITION] for b in first[number + 1 : number + 3]]


def test_resuming_reads_no_more_than_a_block_and_the_shard_it_begins_in(tmp_path, monkeypatch):
    for shard in range(12):
        write_shard(tmp_path / f"{shard:02d}.tar", [sample(10 * shard + n) for n in range(10)], first=10 * shard)
    paths = [str(tmp_path / f"{shard:02d}.tar") for shard in range(12)]
    first = stream(paths)
    first.set_position(0, readers={})
    batches = [first.collater([item]) for item in islice(first, 150)]
    opened = []
    read_shard = shard_readers.read_shard
    monkeypatch.setattr(shard_readers, "read_shard", lambda path: opened.append(path) or read_shard(path))
    resumed = stream(paths)
    resumed.set_position(100, readers={"count": 1, "positions": {0: batches[99][POSITION][2:]}})
    assert [item["image_id"] for item in islice(resumed, 1)] == batches[100]["image_id"]
    assert len(opened) <= 2
    opened.clear()
    read_past = stream(paths)  # where positions were not noted
    read_past.set_position(100)
    assert [item["image_id"] for item in islice(read_past, 1)] == batches[100]["image_id"]
    assert len(opened) >= 10


def test_another_number_of_readers_reads_what_the_earlier_ones_left(shards, monkeypatch, caplog):
    first = stream(shards)
    first.set_position(0, readers={})
    batches = [first.collater([item]) for item in islice(first, 8)]
    noted = {"count": 1, "positions": {0: batches[-1][POSITION][2:]}, "batches": 8}
    read = []
    monkeypatch.setenv("NUM_WORKERS", "2")
    for worker in (0, 1):
        monkeypatch.setenv("WORKER", str(worker))
        resumed = stream(shards)
        resumed.set_position(8, batch_size=1, readers=noted)
        read += [item["image_id"] for item in islice(resumed, 11)]
    assert sorted([batch["image_id"][0] for batch in batches] + read) == sorted(
        f"{number // 10}/{number:05d}" for number in range(30)
    )
    assert "to find the place" not in caplog.text


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


def bomb() -> bytes:
    """The header of a picture of 40000 x 40000 pixels, more than PIL takes for harmless."""
    data = encoded(1, "png")
    header = bytearray(data[:33])
    header[16:24] = (40000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    return bytes(header) + data[33:]


DAMAGED = {
    "the file is empty": {"png": b"", "json": b'{"caption": "x"}'},
    "exceeds limit": {"png": bomb(), "json": b'{"caption": "x"}'},
    "not a picture": {"png": b"GIF? no", "json": b'{"caption": "x"}'},
    "damaged picture": {"png": encoded(1, "png")[:-20], "json": b'{"caption": "x"}'},
    "no picture": {"json": b'{"caption": "x"}'},
    "neither .json nor .txt": {"png": encoded(1, "png")},
    "no key 'caption' (caption_key); its keys are 'text', 'url'": {
        "png": encoded(1, "png"),
        "json": b'{"text": "x", "url": "y"}',
    },
    """the .json is no object but '["a", "b"]'""": {"png": encoded(1, "png"), "json": b'["a", "b"]'},
    "name samples without dots": {"1.png": encoded(1, "png"), "2.png": encoded(2, "png"), "json": b'{"caption": "x"}'},
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
    assert sorted(numbers(islice(stream([path]), 4))) == [0, 0, 2, 2]
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


@pytest.mark.parametrize("kept", [1, 511, 513, 1024, 3 * 512 + 5, 2048, 2 * 2048 + 600, 9 * 2048 + 1024])
def test_a_shard_cut_off_anywhere_loses_its_end_only(shards, kept):
    with open(shards[0], "rb+") as file:
        file.truncate(kept)
    ours = stream(shards[:1], shuffle_buffer=0)
    ours.yield_bad_samples = True
    items = [item for (_, epoch, _, _), item, _ in islice(_decoded(ours), 12) if epoch == 0]
    good = [item for item in items if not isinstance(item, BadSample)]
    assert numbers(good) == list(range(kept // 2048))
    assert 0 < len(items) - len(good) <= 2


def _decoded(ours):
    for name, raw, position in ours._raw(0, 1):
        yield name, ours._decode(raw, name), position


def test_two_files_of_one_name_are_told_and_the_first_is_taken(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for suffix, data in [("png", encoded(7, "png")), ("txt", b"number 7"), ("txt", b"number 8")]:
            entry = tarfile.TarInfo(f"0.{suffix}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    ours = stream([str(tmp_path / "a.tar")], shuffle_buffer=0)
    ours.yield_bad_samples = True
    good, bad = islice(ours, 2)
    assert numbers([good]) == [7] and "duplicate file name" in bad.reason


def test_a_key_that_comes_twice_gives_two_samples(tmp_path):
    write_shard(tmp_path / "a.tar", [sample(1)])
    write_shard(tmp_path / "b.tar", [sample(2)])
    drawn = list(islice(stream([str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]), 2))
    assert sorted(numbers(drawn)) == [1, 2] and {item["image_id"] for item in drawn} == {"a/00000", "b/00000"}


def test_names_that_point_elsewhere_write_nothing(tmp_path, monkeypatch):
    """Members are read into memory; links and devices are passed over."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in [
            ("../../escaped.png", encoded(3, "png")),
            ("../../escaped.json", b'{"caption": "number 3"}'),
            (str(tmp_path / "absolute.png"), encoded(4, "png")),
            (str(tmp_path / "absolute.txt"), b"number 4"),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    assert sorted(numbers(islice(stream([str(tmp_path / "a.tar")]), 4))) == [3, 3, 4, 4]
    assert sorted(tmp_path.rglob("*")) == before and not (tmp_path.parent / "escaped.png").exists()


@pytest.fixture
def server(tmp_path):
    """A web server on this machine for the files of tmp_path; its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("scheme", ["file", "pipe", "http"])
def test_urls(shards, tmp_path, server, scheme, monkeypatch):
    monkeypatch.setenv("EVLGEN_ALLOW_PIPE", "1")
    if scheme == "http" and not shutil.which("curl"):
        pytest.skip("webdataset reads http with curl, which is not installed")
    start = {"file": f"file://{tmp_path}/", "pipe": f"pipe:cat {tmp_path}/", "http": f"{server}/"}[scheme]
    named = expand_shards(start + "{0..2}.tar")
    assert len(named) == 3
    assert sorted(numbers(islice(stream(named), 30))) == list(range(30))
    assert numbers(islice(stream(named), 30)) == numbers(islice(stream(shards), 30))


@pytest.mark.parametrize(
    ("url", "good", "reason"),
    [
        ("pipe:false", 0, "exit 1"),
        ("pipe:cat {shard}; exit 3", 10, "exit 3"),  # all there, but the command says that it failed
        ("pipe:head -c 4096 {shard}; exit 4", 2, "exit 4"),  # ends between two samples, as if complete
        ("pipe:head -c 4620 {shard}; exit 5", 2, "exit 5"),
        ("pipe:nonexistent-command", 0, "exit 127"),
        ("odd://host/0.tar", 0, "no gopen handler"),
        ("{server}/absent.tar", 0, "exit 22"),
    ],
)
def test_a_source_that_fails_is_a_bad_sample(shards, server, capfd, url, good, reason):
    if "server" in url and not shutil.which("curl"):
        pytest.skip("webdataset reads http with curl, which is not installed")
    ours = stream([url.format(shard=shards[0], server=server)], shuffle_buffer=0)
    ours.yield_bad_samples = True
    items = list(islice(ours, 11))
    bad = [number for number, item in enumerate(items) if isinstance(item, BadSample)]
    assert bad[0] == good and reason in items[good].reason


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
    with pytest.raises(DataError, match=r"the.key: the braces of .* cannot be expanded"):
        expand_shards("/data/{0..3.tar}}", "the.key")


def test_a_shard_named_twice_is_read_once(shards, tmp_path, caplog):
    assert expand_shards([shards[1], f"{tmp_path}/*.tar", f"file://{shards[2]}"]) == [shards[1], shards[0], shards[2]]
    assert "shards names 2 shards twice" in caplog.text
