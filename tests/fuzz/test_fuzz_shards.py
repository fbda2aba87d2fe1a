"""Shards and the pictures in them, damaged, hostile and far too large: good samples are kept, the others counted."""

import gzip
import io
import json
import pickle
import tarfile
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from guard import put
from hypothesis import strategies as st
from mutations import ODD_TEXTS, PICTURES, Bomb, as_json, damaged, mutated, values

from lavis_evlgen.datasets.bad_samples import BadSample
from lavis_evlgen.datasets.shards import read_shard
from lavis_evlgen.datasets.streams import ImageCaptionStream
from lavis_evlgen.errors import EvlgenError

FIELDS = {"caption": "a cat", "size": [1, 2.5], "more": {"a": None}}


def member(name: str, data: bytes, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def samples(count: int = 3) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [
        each
        for number in range(count)
        for each in (member(f"{number}.png", PICTURES[0]), member(f"{number}.json", as_json(FIELDS)))
    ]


def read(guard: Any, data: bytes, name: str = "0.tar") -> list[Any]:
    """The first items of a stream of one shard, up to where its second epoch begins."""
    path = put(guard.inside / name, data)

    def items() -> list[Any]:
        stream = ImageCaptionStream([str(path)], lambda each: torch.zeros(3), str.strip, shuffle_buffer=0)
        stream.yield_bad_samples = True
        return list(islice(stream, len(list(read_shard(str(path))))))

    found = guard.read(items)
    if isinstance(found, EvlgenError):
        assert name in str(found)
        return []
    for item in found:
        if isinstance(item, BadSample):
            assert len(item.reason) > 5
            str(item).encode()
        else:
            json.dumps([item["text_input"], item["image_id"]], ensure_ascii=False).encode()
    return found


def reasons(items: list[Any]) -> list[str]:
    return [item.reason for item in items if isinstance(item, BadSample)]


def good(items: list[Any]) -> list[str]:
    return [item["image_id"] for item in items if not isinstance(item, BadSample)]


def test_bytes(fuzz, guard):
    plain = [tar(*samples()), tar(*samples(), format=tarfile.PAX_FORMAT), gzip.compress(tar(*samples()), mtime=0)]
    cases = st.sampled_from(plain).flatmap(lambda data: damaged(data, most=3))
    fuzz(lambda data: read(guard, data), cases, 150)


def test_a_flipped_bit_never_loses_a_sample_silently(fuzz, guard):
    """What tarfile takes for the end of an archive is said: good and bad ones are never fewer without a reason."""
    whole = tar(*samples(4))

    def check(bit: int) -> None:
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        found = read(guard, bytes(data))
        assert len(good(found)) == 4 or reasons(found)

    fuzz(check, st.integers(0, 8 * 4 * 3 * 512 - 1), 150)


names = st.builds(
    lambda folder, name, suffix: f"{folder}{name}.{suffix}",
    st.sampled_from(["", "/", "../", "a/", "../../../", "./"]),
    st.sampled_from(["0", "1", *ODD_TEXTS]) | st.text(max_size=5),
    st.sampled_from(["png", "jpg", "PNG", "json", "txt", "pth", "1.png", "npy", "__key__", "__bad__", "__error__", ""]),
)
contents = st.one_of(
    st.sampled_from(PICTURES),
    mutated(FIELDS, wrong=values).map(as_json),
    st.sampled_from(PICTURES).flatmap(damaged),
    st.sampled_from(
        [as_json(FIELDS), b"[" * 100_000, b"a caption", b"", b"\xff\xfe", b'{"caption": "\\ud83d"}', b"9" * 5000]
    ),
)
kinds = st.sampled_from(
    [tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, b"L", b"x"]
)


@st.composite
def odd_members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    name = draw(names).replace("\0", "")
    fields = {"type": draw(kinds), "linkname": draw(st.sampled_from(["", "../../precious", "/etc/passwd"]))}
    return member(name, draw(contents), **fields)


def as_tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    for info, data in members:
        try:
            buffer.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogatepass"))
        except ValueError:  # a number that no header holds
            continue
        buffer.write(data + b"\0" * (-len(data) % 512))
    return buffer.getvalue() + b"\0" * 1024


def test_members(fuzz, guard):
    plain = st.lists(odd_members() | st.sampled_from(samples()), max_size=6).map(as_tar)
    fuzz(lambda data: read(guard, data), plain, 120)


@pytest.mark.parametrize("name", ["../../escaped.png", "/escaped.png", "a/../../../escaped.png"])
def test_nothing_is_unpacked(guard, name):
    link = member("a/link.png", b"", type=tarfile.SYMTYPE, linkname=str(guard.outside / "precious"))
    found = read(guard, tar(link, member(name, PICTURES[0]), *samples(1)))
    assert good(found) == ["0/0"] and len(reasons(found)) == 1


def test_code_in_a_member_is_not_run(guard):
    bomb = pickle.dumps(Bomb(guard.canary))
    npy = io.BytesIO()
    np.save(npy, np.array([Bomb(guard.canary)]), allow_pickle=True)
    inside = [member(f"0.{kind}", data) for kind, data in {"pyd": bomb, "pth": bomb, "npy": npy.getvalue()}.items()]
    assert good(read(guard, tar(*samples(1), *inside))) == ["0/0"]


@pytest.mark.parametrize("caption", ["[" * 100_000, "9" * 5000, '{"caption": "\\ud83d"}', '{"caption": NaN}', "\ufeff"])
def test_captions_that_are_none_are_bad_samples(guard, caption):
    """RecursionError, too many digits, half of a surrogate pair: each ended the loader's worker, or a later step."""
    odd = [member("x.png", PICTURES[0]), member("x.json", caption.encode())]
    found = read(guard, tar(*odd, *samples(2)))
    assert good(found) == ["0/0", "0/1"] and len(reasons(found)) == 1


def test_a_member_too_large_is_left_out(guard):
    """A sparse file, which tarfile would fill with terabytes of zeros, and one that is really there, compressed."""
    header = member("x.png", b"")[0]
    sparse = bytearray(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
    sparse[156:157] = tarfile.GNUTYPE_SPARSE
    sparse[386:398], sparse[398:410] = b"00000000000\0", b"00000000000\0"
    sparse[483:495] = b"\x80" + (2**43).to_bytes(11, "big")
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    found = read(guard, bytes(sparse) + tar(*samples(2)))
    assert good(found) == ["0/0", "0/1"]
    assert reasons(found) == [f".png is too large ({2**43} bytes)"]
    bomb = gzip.compress(tar(member("y.png", bytes(100 * 2**20)), *samples(1)), 1)
    assert len(bomb) < 4 * 2**20
    found = read(guard, bomb, "0.tar.gz")
    assert good(found) == ["0.tar.gz/0"]
    assert reasons(found) == [f".png is too large ({100 * 2**20} bytes)"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_too_long_is_an_error(guard, kind):
    bomb = gzip.compress(as_tar([*samples(1), member("x", bytes(100 * 2**20), type=kind)]), 1)
    found = read(guard, bomb, "0.tar.gz")
    assert good(found) == ["0.tar.gz/0"]
    assert reasons(found) == [f"damaged shard (a header of {100 * 2**20} bytes)"]


def test_a_claim_of_terabytes_is_a_cut_off_shard(guard):
    info = member("x.png", b"")[0]
    info.size = 2**42
    found = read(guard, tar(*samples(2))[: 8 * 512] + info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict"))
    assert good(found) == ["0/0", "0/1"]
    assert len(reasons(found)) >= 1


def test_parts_that_are_blank_are_said(guard):
    """Behind the first blank block tarfile sees nothing: a disk's lost sector took the rest of a shard silently."""
    data = tar(*samples(4))
    found = read(guard, data[: 4 * 512] + bytes(512) + data[5 * 512 :])
    assert good(found) == ["0/0"]
    assert reasons(found) == [
        "damaged shard (something follows its end: a part of it is blank, or several were joined)"
    ]
