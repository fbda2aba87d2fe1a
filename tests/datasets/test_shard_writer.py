"""Shards written from pictures and captions: what streams read back, repeats, kills, and what cannot be packed."""

import hashlib
import io
import json
import multiprocessing
import tarfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.functional import to_tensor

from lavis_evlgen import cli
from lavis_evlgen.datasets import shard_folder
from lavis_evlgen.datasets.shard_writer import Entry, entries_of, write_shards
from lavis_evlgen.datasets.shards import expand_shards
from lavis_evlgen.datasets.streams import ImageCaptionStream
from lavis_evlgen.errors import ConfigError, DataError


def draw(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (shade, shade, shade)).save(path)


@pytest.fixture
def pictures(tmp_path):
    """25 pictures of rising shade in a folder, and data.jsonl with two captions each."""
    rows = []
    for number in range(25):
        name = f"{number % 3}/{number:02d}.{('png', 'webp', 'jpg')[number % 3]}"
        draw(tmp_path / "pictures" / name, 10 * number)
        rows.append({"image": name, "caption": [f"number {number}", f"no. {number}"], "source": "drawn"})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "pictures"


@pytest.fixture
def entries(tmp_path, pictures):
    return entries_of(pictures, tmp_path / "data.jsonl")


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_streams_read_back_what_was_written(tmp_path, entries, pictures):
    written = write_shards(entries, str(tmp_path / "out" / "{:03d}.tar"), size=10)
    assert (written.shards, written.kept, written.pictures, written.left_out) == (3, 0, 25, [])
    assert written.pattern == str(tmp_path / "out" / "{000..002}.tar")
    shards = expand_shards(written.pattern)
    stream = ImageCaptionStream(shards, to_tensor, str)
    items = list(islice(stream, 25))
    shades = {int(item["text_input"].split()[1]): item["image"].mean().item() for item in items}
    assert sorted(shades) == list(range(25))
    assert all(shades[number] == pytest.approx(10 * number / 255, abs=0.01) for number in shades)
    packed = members(Path(shards[0]))
    assert list(packed)[:4] == ["000000000.json", "000000000.png", "000000001.json", "000000001.webp"]
    assert packed["000000001.webp"] == (pictures / "1/01.webp").read_bytes()  # as it is, not encoded again
    assert json.loads(packed["000000001.json"]) == {
        "image": "1/01.webp",
        "image_id": "1/01",
        "caption": ["number 1", "no. 1"],
        "source": "drawn",
    }


def test_a_repeat_gives_the_same_bytes_whenever_it_is_made(tmp_path, entries, monkeypatch):
    write_shards(entries, str(tmp_path / "one" / "{:d}.tar"), size=7, shuffle=3)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    write_shards(entries, str(tmp_path / "two" / "{:d}.tar"), size=7, shuffle=3)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(files(tmp_path / "one")) == 5  # four shards and the record
    write_shards(entries, str(tmp_path / "three" / "{:d}.tar"), size=7)
    assert files(tmp_path / "three")["0.tar"] != files(tmp_path / "one")["0.tar"]


def test_shuffling_mixes_the_pictures(tmp_path, entries):
    write_shards(entries, str(tmp_path / "out" / "{:d}.tar"), size=25, shuffle=3)
    names = [
        json.loads(data)["image_id"] for name, data in members(tmp_path / "out" / "0.tar").items() if "json" in name
    ]
    assert sorted(names) == sorted(entry.fields["image_id"] for entry in entries)
    assert names != [entry.fields["image_id"] for entry in entries]


def test_a_folder_with_captions_beside_the_pictures(tmp_path):
    folder = tmp_path / "pictures"
    for number, name in enumerate(["a/one.png", "a/two.JPG", "b.c.bmp", "bare.png"]):
        draw(folder / name, 50 * number)
    (folder / "a/one.txt").write_text("one caption\n")
    (folder / "a/two.json").write_text(json.dumps({"text": ["two", "zwei"], "license": "none"}))
    (folder / "a/two.txt").write_text("not this one")
    (folder / "b.c.txt").write_text("\ufeffa bitmap", encoding="utf-8")
    written = write_shards(entries_of(folder), str(tmp_path / "out-{:d}.tar"), caption_key="text")
    assert written.left_out == [{"image": "bare.png", "reason": "neither .json nor .txt for the caption"}]
    assert written.left_out_path == tmp_path / "out-left_out.jsonl"
    packed = members(tmp_path / "out-0.tar")
    assert list(packed) == [
        "000000000.png",
        "000000000.txt",
        "000000001.jpg",
        "000000001.json",
        "000000002.png",
        "000000002.txt",
    ]
    assert json.loads(packed["000000001.json"]) == {"text": ["two", "zwei"], "license": "none"}
    bitmap = Image.open(io.BytesIO(packed["000000002.png"]))  # streams read no bmp, so it became a png
    assert bitmap.format == "PNG" and np.asarray(bitmap).tolist() == [[[100, 100, 100]] * 6] * 5
    stream = ImageCaptionStream([str(tmp_path / "out-0.tar")], to_tensor, str, caption_key="text")
    assert {item["text_input"] for item in islice(stream, 20)} == {"one caption", "two", "zwei", "a bitmap"}


def cut_off() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((30, 30), 90).save(buffer, "PNG")
    return buffer.getvalue()[:300]


UNREADABLE = {
    "no such file": None,
    "the file is empty": b"",
    "not a picture that PIL can read": b"<html>404</html>",
    "damaged picture": cut_off(),
}


def test_unreadable_pictures_are_left_out_and_listed(tmp_path, entries, pictures, capsys):
    for entry, content in zip(entries, UNREADABLE.values(), strict=False):
        entry.picture.unlink()
        if content is not None:
            entry.picture.write_bytes(content)
    out = tmp_path / "out" / "{:d}.tar"
    argv = ["write-shards", "--data", str(tmp_path / "data.jsonl"), "--images", str(pictures), "--out", str(out)]
    assert cli.main([*argv, "--size", "4"]) == 1
    listed = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [row["image"] for row in listed] == [entry.name for entry in entries[:4]]
    assert all(row["reason"].startswith(reason) for row, reason in zip(listed, UNREADABLE, strict=True))
    assert not (tmp_path / "out" / "0.tar").exists()  # none of its four can be read
    said = capsys.readouterr().out
    assert f"21 pictures in 6 shards: {tmp_path}/out/{{1..6}}.tar" in said
    assert "4 pictures were left out, for example 0/00.png: no such file" in said
    # the next call takes up what has been mended, and nothing else
    before = files(tmp_path / "out")
    for entry in entries[:4]:
        draw(entry.picture, 1)
    assert cli.main([*argv, "--size", "4"]) == 0
    after = files(tmp_path / "out")
    assert {name for name in after if after[name] != before.get(name)} == {"0.tar", "shards.json"}
    assert "25 pictures in 7 shards (6 of them from before)" in capsys.readouterr().out
    assert "left_out.jsonl" not in after


def write_and_stand_still(entries: list[Entry], out: str) -> None:
    """Shards of 45 entries, up to the middle of the sixth; for a process of its own."""
    written = []

    class Standing(shard_folder.TarWriter):
        def write(self, sample):
            written.append(sample["__key__"])
            if len(written) == 5 * 45 + 20:
                time.sleep(1000)
            return super().write(sample)

    shard_folder.TarWriter = Standing
    write_shards(entries, out, size=45)


def test_a_killed_writer_goes_on_where_it_was(tmp_path, pictures):
    """SIGKILL in the middle of a shard: complete shards stay untouched, the rest is written, the bytes are the same."""
    for number in range(25, 700):
        draw(pictures / f"{number}.png", number % 256)
        (pictures / f"{number}.txt").write_text(f"number {number}")
    entries = [entry for entry in entries_of(pictures) if entry.caption_files()]
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(
        target=write_and_stand_still, args=(entries, str(out / "{:d}.tar"))
    )
    process.start()
    deadline = time.monotonic() + 300
    while not any(out.glob("5.tar.*.unfinished")):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    complete = sorted(path.name for path in out.glob("*.tar"))
    assert complete == [f"{number}.tar" for number in range(5)]
    (out / "9.tar.1.unfinished").write_bytes(b"half")
    stamps = {name: (out / name).stat().st_mtime_ns for name in complete}
    written = write_shards(entries, str(out / "{:d}.tar"), size=45)
    assert written.kept == 5
    assert written.pictures == 675
    assert {name: (out / name).stat().st_mtime_ns for name in stamps} == stamps
    write_shards(entries, str(tmp_path / "whole" / "{:d}.tar"), size=45)
    assert files(out) == files(tmp_path / "whole")


def test_a_kill_between_record_and_renaming_writes_the_shard_again(tmp_path, entries, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    out = str(tmp_path / "out" / "{:d}.tar")
    with monkeypatch.context() as patch:
        save = shard_folder.ShardFolder._save
        patch.setattr(
            shard_folder.ShardFolder, "_save", lambda self: (save(self), killed() if len(self.record) == 2 else 0)
        )
        with pytest.raises(Killed):
            write_shards(entries, out, size=10)
    assert (tmp_path / "out" / "0.tar").exists() and not (tmp_path / "out" / "1.tar").exists()
    assert write_shards(entries, out, size=10).kept == 1


def test_changed_and_fewer_entries(tmp_path, entries):
    out = str(tmp_path / "out" / "{:d}.tar")
    write_shards(entries, out, size=10)
    before = files(tmp_path / "out")
    draw(entries[12].picture, 255)
    written = write_shards(entries[:20], out, size=10)
    after = files(tmp_path / "out")
    assert (written.kept, written.shards, written.pictures) == (1, 2, 20)
    assert after.keys() == before.keys() - {"2.tar"}
    assert after["0.tar"] == before["0.tar"] and after["1.tar"] != before["1.tar"]


def test_shards_of_other_data_are_not_overwritten_unless_asked(tmp_path, entries):
    out = str(tmp_path / "out" / "{:d}.tar")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.tar").write_bytes(b"somebody else's")
    with pytest.raises(ConfigError, match=r"0.tar is there already and holds other data; .*--overwrite"):
        write_shards(entries, out)
    assert (tmp_path / "out" / "0.tar").read_bytes() == b"somebody else's"
    write_shards(entries, out, overwrite=True)
    with pytest.raises(ConfigError, match="holds other data"):
        write_shards(entries[5:], out)
    with pytest.raises(ConfigError, match=r"shards.json is about shards named \{:d\}.tar"):
        write_shards(entries, str(tmp_path / "out" / "{:05d}.tar"), overwrite=True)


def test_a_damaged_record_makes_the_shards_anew(tmp_path, entries, caplog):
    out = str(tmp_path / "out" / "{:d}.tar")
    write_shards(entries, out)
    before = files(tmp_path / "out")
    (tmp_path / "out" / "shards.json").write_text("{")
    write_shards(entries, out, overwrite=True)
    assert files(tmp_path / "out") == before and "shards.json is damaged" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "out.tar"}, "name the shards by their number"),
        ({"out": "{:05d}"}, "name the shards by their number"),
        ({"out": "{}/{:05d}.tar"}, "name the shards by their number"),
        ({"out": "{name}.tar"}, "write the number as"),
        ({"out": "{:05x.tar"}, "write the number as"),
        ({"size": 0}, "--size must be at least 1, not 0"),
    ],
)
def test_options_that_do_not_fit(tmp_path, entries, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        write_shards(entries, **{"out": "{:d}.tar", **options})


def test_data_that_does_not_fit(tmp_path, entries, monkeypatch):
    with pytest.raises(DataError, match=r"--images: the folder .*nowhere does not exist"):
        entries_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"--images: .*empty holds no picture \(.jpg"):
        entries_of(tmp_path / "empty")
    with pytest.raises(DataError, match=r"none of the 2 pictures can be packed, e.g. x.png: no such file"):
        write_shards(
            [Entry(name, tmp_path / name, {"caption": "a"}) for name in ("x.png", "y.png")], str(tmp_path / "{}.tar")
        )
    monkeypatch.setattr(shard_folder.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(DataError, match=r"the shards take about 0\.0 GiB, but .* has only 0\.0 GiB"):
        write_shards(entries, str(tmp_path / "full" / "{}.tar"))


class Full:
    """What shutil.disk_usage says of a disk without space."""

    free = 0
