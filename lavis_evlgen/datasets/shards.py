"""Shards (tar files of samples): which ones a configuration names, the samples of one, and what a sample holds."""

import glob
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import braceexpand
from webdataset.gopen import Pipe, gopen
from webdataset.tariterators import group_by_keys, tar_file_expander

from lavis_evlgen.errors import DataError

logger = logging.getLogger(__name__)

PICTURES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("json", "txt")
_REMAINDER = 1 << 16
_BLOCK = 512  # a tar ends with two empty ones


def expand_shards(shards: str | Sequence[str], key: str = "shards") -> list[str]:
    """Paths or URLs of the shards that braces ("{00000..00010}.tar"), a glob or a list name, each of them once.

    ``file:`` URLs become paths. Other URLs (http, pipe: and whatever else webdataset opens) have their braces expanded
    and are not looked for. Missing files are left out with a warning; ``key`` is the configuration key that errors
    name.

    Raises:
        DataError: nothing is named, braces do not match, or none of the files exists.
    """
    patterns = [shards] if isinstance(shards, str) else list(shards or ())
    if not patterns:
        raise DataError(f"no shards given: set {key}, for example to 'data/{{00000..00010}}.tar'")
    named: list[str] = []
    for pattern in patterns:
        try:
            for path in braceexpand.braceexpand(os.path.expanduser(str(pattern))):
                named.extend(_found(path))
        except ValueError as error:
            raise DataError(
                f"{key}: the braces of {pattern!r} cannot be expanded ({error}); write {{000..123}} or {{a,b}}"
            ) from error
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
        yield from group_by_keys(tar_file_expander([{"url": shard, "stream": stream}], handler=note), handler=note)
        if reason := _end(shard, stream, bool(errors)):
            errors.insert(0, reason)
    except Exception as error:  # whatever the scheme's opener raises
        note(error)
    finally:
        if stream is not None:
            stream.close()
    if errors:
        yield {"__url__": shard, "__key__": "*", "__error__": f"damaged shard ({errors[0]})"}


def _end(shard: str, stream: Any, broken: bool) -> str:
    """What is wrong with the end of a shard that looks complete when it stops between two members, or with a command
    that failed: "" if nothing is.
    """
    if isinstance(stream, Pipe):
        while (more := stream.read(_REMAINDER)) and not broken:
            pass
        if not more and (status := stream.proc.wait()) not in stream.ignore_status:
            return f"{stream.proc.args}: exit {status}"
    elif shard.endswith(".tar") and not broken and stream.seekable():
        stream.seek(max(-_BLOCK, -stream.seek(0, os.SEEK_END)), os.SEEK_END)
        if stream.read().strip(b"\0"):
            return "its end is missing"
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
    fields = json.loads(data)
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
