"""Shards (tar files of samples): which ones a configuration names, the samples of one, and what a sample holds."""

import glob
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import braceexpand
from webdataset.gopen import Pipe, gopen
from webdataset.tariterators import group_by_keys

from lavis_evlgen.datasets.tar_members import tar_members
from lavis_evlgen.errors import DataError
from lavis_evlgen.json_text import parse_json, said

logger = logging.getLogger(__name__)

PICTURES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("json", "txt")
ALLOW_COMMANDS = "EVLGEN_ALLOW_PIPE"
MOST_SHARDS = 1_000_000
_REMAINDER = 1 << 16
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\..*)?")
_LONGEST = 4096  # of a path


def expand_shards(shards: str | Sequence[str], key: str = "shards") -> list[str]:
    """Paths or URLs of the shards that braces ("{00000..00010}.tar"), a glob or a list name, each of them once.

    ``file:`` URLs become paths. Other URLs (http and whatever else webdataset opens) have their braces expanded and are
    not looked for. ``pipe:`` runs a command, which a configuration that somebody else wrote must not do by itself: the
    environment variable EVLGEN_ALLOW_PIPE=1 allows it. Missing files are left out with a warning; ``key`` is the
    configuration key that errors name.

    Raises:
        DataError: nothing is named, braces do not match, more than a million shards or a command that is not allowed
            are named, or none of the files exists.
    """
    patterns = [shards] if isinstance(shards, str) else list(shards) if isinstance(shards, Sequence) else []
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise DataError(f"no shards given: set {key}, for example to 'data/{{00000..00010}}.tar'")
    named: list[str] = []
    for pattern in patterns:
        try:
            if len(pattern) > _LONGEST or len(named) + _most(pattern) > MOST_SHARDS:
                raise ValueError(f"more than {MOST_SHARDS:,} shards, or {_LONGEST} characters")
            for path in braceexpand.braceexpand(os.path.expanduser(pattern)):
                named.extend(_found(path))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{key}: the braces of {pattern[:200]!r} cannot be expanded ({error}); write {{000..123}} or {{a,b}}"
            ) from error
    if os.environ.get(ALLOW_COMMANDS) != "1" and (command := next((p for p in named if p.startswith("pipe:")), None)):
        raise DataError(
            f"{key}: {command!r} runs a command; start with {ALLOW_COMMANDS}=1 in the environment if you trust it"
        )
    once = list(dict.fromkeys(named))
    if len(once) < len(named):
        logger.warning("%s names %d shards twice; each is read once an epoch", key, len(named) - len(once))
    present = [path for path in once if _is_remote(path) or os.path.isfile(path)]
    if not present:
        raise DataError(f"none of the {len(once)} shards of {key} exists: looked for {os.path.abspath(once[0])}")
    if len(present) < len(once):
        absent = next(path for path in once if path not in set(present))
        logger.warning("%s: %d of %d shards are missing, e.g. %s", key, len(once) - len(present), len(once), absent)
    return present


def _most(pattern: str) -> int:
    """As many names as the braces of a pattern stand for, or (nested ones) more: before all of them are made."""
    count = 1
    while (groups := _BRACES.findall(pattern)) and count <= MOST_SHARDS:
        for group in groups:
            ends = _RANGE.fullmatch(group)
            count *= abs(int(ends[1]) - int(ends[2])) + 1 if ends else group.count(",") + 1
        pattern = _BRACES.sub("", pattern)
    return count


def _is_remote(path: str) -> bool:
    return "://" in path or path.startswith("pipe:")


def _found(path: str) -> list[str]:
    if path.startswith("file:"):
        path = url2pathname(urlparse(path).path)
    return [path] if _is_remote(path) else sorted(glob.glob(path)) or [path]


def read_shard(shard: str) -> Iterator[dict[str, Any]]:
    """The samples of a shard as dicts of suffix to bytes, with webdataset's ``__key__`` and ``__url__``.

    Nothing is ever unpacked to disk, whatever the members are called. What cannot be read of a shard (a cut-off file,
    a command or download that fails) ends in one further sample with the reason under ``__error__``.
    """
    errors: list[str] = []

    def note(error: Exception) -> bool:
        errors.append(str(error.args[0]) if error.args else type(error).__name__)
        return True

    stream: Any = None
    try:
        stream = gopen(shard)
        if isinstance(stream, Pipe):
            stream.ignore_errors = True  # it would lose what a command wrote just before it failed: see _end
        yield from group_by_keys(_noted(tar_members(stream, shard), note), handler=note)
        if reason := _end(stream, bool(errors)):
            errors.insert(0, reason)
    except Exception as error:  # whatever the scheme's opener raises
        note(error)
    finally:
        if stream is not None:
            stream.close()
    if errors:
        yield {"__url__": shard, "__key__": "*", "__error__": f"damaged shard ({errors[0]})"}


def _noted(files: Iterator[dict[str, Any]], note: Callable[[Exception], Any]) -> Iterator[dict[str, Any]]:
    """The files up to an error, which is noted: the sample that they belong to is kept."""
    try:
        yield from files
    except Exception as error:  # tarfile, zlib, lzma and streams have kinds of their own
        note(error)


def _end(stream: Any, broken: bool) -> str:
    """How a command failed whose output is a shard; "" if it did not."""
    if isinstance(stream, Pipe):
        while (more := stream.read(_REMAINDER)) and not broken:
            pass
        if not more and (status := stream.proc.wait()) not in stream.ignore_status:
            return f"{stream.proc.args}: exit {status}"
    return ""


def picture_and_captions(sample: Mapping[str, Any], caption_key: str = "caption") -> tuple[bytes, list[str]]:
    """The picture file of a sample and its captions: a string or a list of them in .json, else the .txt.

    Raises:
        ValueError: saying what is missing or is no caption.
    """
    files = _by_kind(sample)
    picture = next((files[kind] for kind in PICTURES if kind in files), None)
    if picture is None:
        raise ValueError(f"no picture ({', '.join(PICTURES)}) beside {', '.join(files) or 'nothing'}")
    if "json" in files:
        caption = _field(files["json"], caption_key)
    elif "txt" in files:
        caption = files["txt"].decode("utf-8-sig")
    else:
        raise ValueError("neither .json nor .txt for the caption")
    captions = [caption] if isinstance(caption, str) else caption
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError(f"the caption is {str(caption)[:40]!r}, not text")
    captions = [text.strip() for text in captions if text.strip()]
    if not captions:
        raise ValueError("empty caption")
    return picture, captions


def _field(data: bytes, key: str) -> Any:
    try:
        fields = parse_json(data)
    except ValueError as error:
        raise ValueError(f"the .json is damaged ({said(error)})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"the .json is no object but {data[:40].decode(errors='replace')!r}")
    if key not in fields:
        there = ", ".join(map(repr, list(fields)[:8])) or "none"
        raise ValueError(f"the .json has no key {key!r} (caption_key); its keys are {there}")
    return fields[key]


def _by_kind(sample: Mapping[str, Any]) -> dict[str, bytes]:
    """A sample's files by the last part of their suffix, "jpg" before "1.jpg".

    webdataset's keys end at the first dot of a name, so that "a.1.jpg" and "a.2.jpg" become one sample: ValueError.
    """
    files: dict[str, bytes] = {}
    origin: dict[str, str] = {}
    for suffix in sorted((each for each in sample if not each.startswith("__")), key=lambda each: each.count(".")):
        kind = suffix.rsplit(".", 1)[-1]
        if kind not in files:
            files[kind], origin[kind] = sample[suffix], suffix
        elif origin[kind] != kind and kind in (*PICTURES, *TEXTS):
            raise ValueError(
                f"both .{origin[kind]} and .{suffix} belong to this key, which ends at the first dot of a name: name "
                "samples without dots"
            )
    return files
