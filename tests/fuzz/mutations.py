"""Strategies: documents of the right shape with something wrong in them, and files with bytes changed."""

import copy
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

HUGE = 10**400
ODD_TEXTS = [
    "", " ", "\0", "a\0b", "\ud800", "\udcff.jpg", "\ufeff", "\r", "a\r\nb", "../../escaped", "/escaped", "..", ".",
    "~", "~nobody-of-this-name/x", "x" * 5000, "x/" * 3000, "a,b", '"', "=cmd|' /C calc'!A0", "${oc.env:HOME}", "${x}",
    "${", "???", "{", "{0..3}", "NaN", "-0", "1e999", "²", "\u202e", "%n%s{}", "null", "/dev/zero", "\x7f\x80\ufffe",
]  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(
        [HUGE, -HUGE, 2**31, 2**63, 2**64, -(2**63), 1e308, float("inf"), float("-inf"), float("nan"), 0.5]
    ),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ODD_TEXTS) | st.text(max_size=4), inner)
    ),
    max_leaves=5,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of a tree of dicts and lists, the tree itself left out."""
    children = document.items() if isinstance(document, dict) else enumerate(document) if _is_list(document) else ()
    return [each for key, child in children for each in [(*path, key), *places(child, (*path, key))]]


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


@st.composite
def mutated(draw: st.DrawFn, document: Any, most: int = 3, wrong: st.SearchStrategy[Any] = values) -> Any:
    """A tree with up to ``most`` parts replaced, removed, repeated, renamed, swapped or nested."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, most))):
        there = places(document)
        if not there:
            break
        *above, last = draw(st.sampled_from(there))
        parent = document
        for key in above:
            parent = parent[key]
        kind = draw(st.sampled_from(["replace"] * 4 + ["remove", "repeat", "rename", "swap", "nest"]))
        if kind == "replace":
            parent[last] = draw(wrong)
        elif kind == "remove":
            del parent[last]
        elif kind == "repeat" and _is_list(parent):
            parent.extend([parent[last]] * draw(st.integers(1, 3)))
        elif kind == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(ODD_TEXTS) | st.text(max_size=4))] = parent.pop(last)
        elif kind == "swap":
            other = parent
            for key in draw(st.sampled_from(there)):
                if not isinstance(other, dict | list) or (key not in other if isinstance(other, dict) else True):
                    break
                other = other[key]
            parent[last] = copy.deepcopy(other)
        elif kind == "nest":
            parent[last] = {"a": [parent[last]]}
    return document


@st.composite
def damaged(draw: st.DrawFn, data: bytes, most: int = 4) -> bytes:
    """Bytes with up to ``most`` changes: flipped bits, cut-offs, insertions, splices of the file's own parts."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "drop", "insert", "number", "splice"]))
        if kind == "flip" and changed:
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del changed[at:]
        elif kind == "drop":
            del changed[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            changed[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "number":
            changed[at : at + 4] = draw(
                st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"9999", b"7777"])
            )
        elif kind == "splice" and changed:
            start = draw(st.integers(0, len(changed) - 1))
            changed[at:at] = changed[start : start + draw(st.integers(1, 512))]
    return bytes(changed)


def one_of_each(make: Callable[[Any], st.SearchStrategy[Any]], documents: list[Any]) -> st.SearchStrategy[Any]:
    """A strategy over several starting points."""
    return st.sampled_from(documents).flatmap(make)


def as_json(document: Any) -> bytes:
    """JSON as a careless program writes it: NaN, huge numbers, and surrogates as escapes or as they are."""
    return json.dumps(document, ensure_ascii=True).encode()


ENCODINGS: list[Callable[[bytes], bytes]] = [
    lambda data: data,
    lambda data: b"\xef\xbb\xbf" + data,
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: data.decode(errors="replace").encode("utf-16"),
    lambda data: data + b"\0\xff\xfe",
]
encodings = st.sampled_from([ENCODINGS[0]] * 6 + ENCODINGS[1:])


def picture(kind: str = "PNG", size: tuple[int, int] = (9, 7)) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, bytes(range(256))[: size[0] * size[1] % 256].ljust(3 * size[0] * size[1])).save(
        buffer, kind
    )
    return buffer.getvalue()


KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
PICTURES = [picture(kind) for kind in KINDS]


class Bomb:
    """Makes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)
