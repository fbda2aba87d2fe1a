"""Faults of data: pictures, members of tars, whole tars, clips and annotation lines that cannot be read.

The run is killed at a random moment and goes on, on the damaged data. It must equal a run on intact data that takes
exactly the damaged samples for bad ones, and must see what the undisturbed run sees, less these samples.
"""

import tarfile
from pathlib import Path
from random import Random

from . import files
from .cases import kind
from .runs import USER_ERROR, Failed, Run
from .workplace import Workplace


def spoil(path: Path, rng: Random) -> str:
    """Make a picture or clip unreadable in one of the ways in which that happens; says which."""
    content = path.read_bytes()
    way = rng.choice(("cut off", "empty", "missing", "a web page", "noise"))
    if way == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {
                "cut off": content[: rng.randrange(1, len(content) * 9 // 10)],
                "empty": b"",
                "a web page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
                "noise": rng.randbytes(len(content)),
            }[way]
        )
    return way


def _train(place: Workplace, run: Run, setup: str) -> None:
    """To the end, with a kill -9 on the way."""
    place.kill(run, setup)
    if any(codes := run.finish()):
        raise Failed(f"the run on damaged data ended with {codes}: {run.last_words()}")


def _check_left_out(place: Workplace, run: Run, setup: str, lost: set[str], equal: Run) -> None:
    """``run`` equals ``equal``, and saw what the undisturbed run of ``setup`` saw, less ``lost``."""
    place.compare(run, equal)
    undisturbed, seen = place.reference(setup).seen(), run.seen()
    for step, ids in undisturbed.items():
        expected = [each for each in ids if each not in lost]
        if seen.get(step, []) != expected:
            raise Failed(f"step {step} saw {seen.get(step)}, not {expected}")


def _without(place: Workplace, setup: str, lost: set[str]) -> Run:
    """The run on intact data without these samples."""
    run = place.run(setup, "left_out", leave_out=sorted(lost))
    if any(codes := run.finish()):
        raise Failed(f"the run without {sorted(lost)} ended with {codes}: {run.last_words()}")
    return run


def _spoiled_files(place: Workplace, setup: str, pattern: str) -> str:
    data = place.copied_data(setup)
    chosen = place.rng.sample(sorted(data.glob(pattern)), place.rng.randint(1, 3))
    ways = sorted({spoil(path, place.rng) for path in chosen})
    lost = {path.stem for path in chosen}
    run = place.run(setup, data=data)
    _train(place, run, setup)
    _check_left_out(place, run, setup, lost, _without(place, setup, lost))
    return ", ".join(ways)


@kind("picture damaged", 12, "pictures")
def picture_damaged(place: Workplace) -> str:
    return _spoiled_files(place, "pictures", "picture*")


@kind("clip damaged", 8, "clips")
def clip_damaged(place: Workplace) -> str:
    return _spoiled_files(place, "clips", "clip*.mp4")


@kind("PNG bits flipped", 4, "pictures")
def png_flipped(place: Workplace) -> str:
    """In the packed pixels, which have a checksum."""
    data = place.copied_data("pictures")
    path = place.rng.choice(sorted(data.glob("*.png")))
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big")
    content[start + place.rng.randrange(2, size)] ^= 1 << place.rng.randrange(8)
    path.write_bytes(content)
    run, lost = place.run("pictures", data=data), {path.stem}
    _train(place, run, "pictures")
    _check_left_out(place, run, "pictures", lost, _without(place, "pictures", lost))
    return "one bit"


@kind("tar member damaged", 10, "tar")
def member_damaged(place: Workplace) -> str:
    """A picture's head overwritten, or its json no longer one."""
    data = place.copied_data("tar")
    shard = place.rng.choice(sorted(data.glob("*.tar")))
    with tarfile.open(shard) as tar:
        members = place.rng.sample(tar.getmembers(), place.rng.randint(1, 3))
    with open(shard, "r+b") as file:
        for member in members:
            file.seek(member.offset_data)
            file.write(b"x" if member.name.endswith(".json") else bytes(16))
    lost = {f"{shard.stem}/{Path(member.name).stem}" for member in members}
    run = place.run("tar", data=data)
    _train(place, run, "tar")
    _check_left_out(place, run, "tar", lost, _without(place, "tar", lost))
    return ", ".join(sorted({Path(member.name).suffix[1:] for member in members}))


def _mended(place: Workplace, shard: Path, lost: int) -> Run:
    """The run on a whole tar that ends in the place of the ``lost``-th sample with one bad one.

    That is what a broken tar has in the place of all that cannot be read of it.
    """
    data = place.copied_data("tar", "mended")
    samples = files.shard_samples(int(shard.stem))[:lost]
    files.write_shard(data / shard.name, [*samples, {"zz.jpg": b"none", "zz.json": b"none"}])
    run = place.run("tar", "mended_run", data=data)
    if any(codes := run.finish()):
        raise Failed(f"the run on the mended tar ended with {codes}: {run.last_words()}")
    return run


def _broken_tar(place: Workplace, shard: Path, whole: int, data: Path) -> None:
    """A tar of which ``whole`` samples can be read and nothing behind them."""
    run = place.run("tar", data=data)
    _train(place, run, "tar")
    mended = _mended(place, shard, whole)
    place.compare(run, mended)
    if run.seen() != mended.seen():
        raise Failed(f"saw {run.seen()}, not {mended.seen()}")
    names = {f"{shard.stem}/{Path(name).stem}" for s in files.shard_samples(int(shard.stem))[:whole] for name in s}
    others = {each for ids in place.reference("tar").seen().values() for each in ids if not each.startswith(shard.stem)}
    seen = {each for ids in run.seen().values() for each in ids}
    if not seen <= names | others:
        raise Failed(f"saw {sorted(seen - names - others)}, which cannot be read")


def _chosen_member(place: Workplace, data: Path) -> tuple[Path, tarfile.TarInfo, int]:
    """A shard, the first member of one of its samples, and that sample's number."""
    shard = place.rng.choice(sorted(data.glob("*.tar")))
    number = place.rng.randrange(1, files.IN_SHARD)
    with tarfile.open(shard) as tar:
        return shard, tar.getmembers()[2 * number], number


@kind("tar cut off", 8, "tar")
def tar_cut_off(place: Workplace) -> str:
    """Within the first member of a sample, or before it."""
    data = place.copied_data("tar")
    shard, member, whole = _chosen_member(place, data)
    end = place.rng.randrange(member.offset, member.offset_data + member.size)
    with open(shard, "r+b") as file:
        file.truncate(end)
    _broken_tar(place, shard, whole, data)
    return "in a header" if end < member.offset_data else "in a picture"


@kind("tar header damaged", 4, "tar")
def tar_header_damaged(place: Workplace) -> str:
    data = place.copied_data("tar")
    shard, member, whole = _chosen_member(place, data)
    with open(shard, "r+b") as file:
        file.seek(member.offset + place.rng.randrange(tarfile.BLOCKSIZE // 2))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1 << place.rng.randrange(7)]))
    _broken_tar(place, shard, whole, data)
    return "one bit"


@kind("json line damaged", 8, "pictures", "clips")
def line_damaged(place: Workplace) -> str:
    """An annotation file is refused with its line while it is damaged; mended, the run goes on as if nothing was."""
    setup = place.rng.choice(("pictures", "clips"))
    data = place.copied_data(setup)
    path = data / "train.jsonl"
    intact = path.read_bytes()
    run = place.run(setup, data=data)
    place.kill(run, setup)
    lines = intact.splitlines(keepends=True)
    number = place.rng.randrange(len(lines))
    way, line = place.rng.choice(_broken_lines(lines[number], place.rng))
    path.write_bytes(b"".join([*lines[:number], line, *lines[number + 1 :]]))
    code = run.finish()[0]
    if code != USER_ERROR or "train.jsonl" not in run.last_words():
        raise Failed(f"a line that is {way} ended the run with {code}: {run.last_words()}")
    if way != "not UTF-8" and f"line {number + 1}" not in run.last_words():
        raise Failed(f"line {number + 1} is {way}, but was not named: {run.last_words()}")
    path.write_bytes(intact)
    place.recover(run, place.reference(setup))
    return way


def _broken_lines(line: bytes, rng: Random) -> list[tuple[str, bytes]]:
    return [
        ("cut off", line[: rng.randrange(2, len(line) - 2)] + b"\n"),
        ("not UTF-8", line[:15] + b"\xff\xfe" + line[15:]),
        ("without its file", b'{"caption": "alone"}\n'),
        ("a number", b"17\n"),
    ]
