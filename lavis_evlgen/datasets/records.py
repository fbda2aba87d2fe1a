"""Annotation files (json, jsonl, csv; plain, COCO-karpathy or COCO form) read into one kind of record."""

import csv
import difflib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lavis_evlgen.errors import DataError, nearest
from lavis_evlgen.json_text import parse_json, said

logger = logging.getLogger(__name__)

CAPTION_KEYS = ("caption", "captions")
READERS = (".json", ".jsonl", ".csv")

NOUNS = {"image": "picture", "video": "clip"}

Kind = Literal["image", "video"]
Row = tuple[str, Any]  # where it stands ("FILE, line 3") and what stands there
FromDict = Callable[[Path, dict[str, Any]], list[Any]]


@dataclass(slots=True)
class Record:
    """One picture or clip: its path relative to the data folder, all its captions, its id, and any further keys."""

    file: str
    captions: list[str]
    image_id: str
    extras: dict[str, Any] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """``file``, under the key that a picture has in annotation files."""
        return self.file


def read_records(path: str | Path, need_captions: bool = True, kind: Kind = "image") -> list[Record]:
    """Records of an annotation file in its order, one per picture or clip: rows of the same one are joined.

    Args:
        path: a ``.json`` file (a list of records, or COCO's dict of ``images`` and ``annotations``), ``.jsonl`` or
            ``.csv`` file. A record has ``image`` and ``caption`` (or ``captions``; a string or a list of strings),
            and optionally ``image_id`` (default: the picture's path without its suffix). A clip's record has
            ``video`` in the place of ``image``, and its id may be called ``video_id``.
        need_captions: False allows records without any caption (to be captioned, not scored).
        kind: whether the records are about pictures or clips.

    Raises:
        DataError: file missing, empty or of another kind; a damaged line; a missing key; two files with one id.
    """
    return join_rows(file_rows(path, _coco_rows), path, need_captions, kind)


def join_rows(rows: Iterable[Row], path: str | Path, need_captions: bool = True, kind: Kind = "image") -> list[Record]:
    """:func:`read_records` of rows that were read from ``path`` before."""
    records: dict[str, Record] = {}
    empty = 0
    for where, row in rows:
        record, dropped = _record(where, row, need_captions, kind)
        empty += dropped
        known = records.setdefault(record.image_id, record)
        if known is record:
            continue
        if known.file != record.file:
            raise DataError(
                f"{where}: image_id {record.image_id!r} already belongs to {known.file!r} and is now given to "
                f"{record.file!r}; give every {NOUNS[kind]} its own image_id"
            )
        known.captions.extend(record.captions)
    if empty:
        logger.warning("%s: %d empty captions left out", path, empty)
    kept = [record for record in records.values() if record.captions or not need_captions]
    if not kept:
        raise DataError(f"{path} holds no {'caption' if need_captions else 'record'}")
    return kept


def file_rows(path: str | Path, from_dict: FromDict) -> Iterator[Row]:
    """The rows of an annotation file as they stand there; ``from_dict`` makes them of a json file that is a dict."""
    path = Path(os.path.expanduser(path))
    if not os.path.isfile(path):
        raise DataError(f"annotation file {path} does not exist (looked for {path.absolute()})")
    if path.stat().st_size == 0:
        raise DataError(f"annotation file {path} is empty")
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".json": partial(_json_rows, from_dict=from_dict),
        ".jsonl": _jsonl_rows,
        ".csv": _csv_rows,
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"annotation file {path} must end in {', '.join(READERS)}")
    with reading(path):
        yield from readers[path.suffix.lower()](path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What may go wrong with any file of text becomes a DataError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error


def _json_rows(path: Path, from_dict: FromDict) -> Iterator[Row]:
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}: not valid JSON ({said(error)})") from error
    if isinstance(content, dict):
        try:
            content = from_dict(path, content)
        except DataError:
            raise
        except Exception as error:  # any part of any of the forms may be missing, or of any other kind
            raise DataError(
                f"{path}: {error!r}: a part of it is missing or of the wrong kind; compare it with the file of the "
                "release"
            ) from error
    if not isinstance(content, list):
        raise DataError(f"{path} must hold a list of records, not a {type(content).__name__}")
    for number, row in enumerate(content, start=1):
        yield f"{path}, record {number}", row


def _coco_rows(path: Path, content: dict[str, Any]) -> list[Any]:
    """COCO's dict as a list of rows: one per annotation, or one per picture when nothing is annotated."""
    if "images" not in content or "annotations" not in content:
        raise DataError(
            f"{path} is a dict with the keys {sorted(content)}; COCO's form has 'images' and 'annotations', and the "
            "plain form is a list of records"
        )
    try:
        files = {picture["id"]: picture["file_name"] for picture in content["images"]}
        return [
            {"image": files[row["image_id"]], **{key: value for key, value in row.items() if key != "id"}}
            for row in content["annotations"]
        ] or [{"image": name, "image_id": key} for key, name in files.items()]
    except KeyError as error:
        raise DataError(
            f"{path}: {error.args[0]!r} is missing; COCO's form has 'id' and 'file_name' in every picture and, in "
            "every annotation, the 'image_id' of one of these pictures"
        ) from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({said(error)})") from error
            yield f"{path}, line {number}", row


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            names = reader.fieldnames or ()
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise DataError(f"{path}, line 1: two columns are called {twice!r}; give each its own name")
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: not the {len(names)} fields of the header; "
                        "put a caption that contains a comma in double quotes"
                    )
                yield f"{path}, line {reader.line_num}", row
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: no csv ({error}); look for a double quote that nothing closes"
            ) from error


def _record(where: str, row: Any, need_captions: bool, kind: Kind) -> tuple[Record, int]:
    """The record of a row, and how many empty captions were dropped from it."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: a record must be a dict with {kind!r} and 'caption', not {str(row)[:60]!r}")
    if kind not in row:
        raise DataError(f"{where}: no key {kind!r}{nearest(kind, map(str, row))}")
    file = row[kind]
    if not isinstance(file, str) or not file.strip() or "\0" in file:
        raise DataError(f"{where}: {kind!r} must be the path of a {NOUNS[kind]}, not {str(file)[:60]!r}")
    key = next((key for key in CAPTION_KEYS if key in row), None)
    if key is None and (need_captions or difflib.get_close_matches("caption", row)):
        raise DataError(f"{where}: no key 'caption'{nearest('caption', map(str, row))}")
    captions = row[key] if key else []
    if captions is None or isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, list) or not all(c is None or isinstance(c, str) for c in captions):
        raise DataError(f"{where}: {key!r} must be a string or a list of strings, not {str(captions)[:60]!r}")
    kept = [caption.strip() for caption in captions if caption and caption.strip()]
    ids = ("image_id",) if kind == "image" else ("image_id", "video_id")
    given = next((row[name] for name in ids if row.get(name) not in (None, "")), None)
    image_id = id_of(file) if given is None else given
    extras = {name: value for name, value in row.items() if name not in (kind, *ids, *CAPTION_KEYS)}
    return Record(file, kept, str(image_id), extras), len(captions) - len(kept)


def id_of(file: str) -> str:
    """The id of a picture or clip that was given none: its path without its suffix."""
    path = PurePosixPath(file)
    return str(path.with_suffix("") if path.name else path)
