"""Annotation files of captioned pictures in the forms in which COCO, Flickr30k and nocaps were released.

The form is recognised by its keys, so that each of these data sets reads any of them.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from lavis_evlgen.datasets.records import Kind, Record, Row, file_rows, join_rows, reading
from lavis_evlgen.errors import DataError

# Karpathy gave the rest of COCO's validation pictures a name of their own; everybody trains on them
KARPATHY_SPLITS = {"train": ("train", "restval")}
_UNUSED = frozenset({"id", "file_name", "license", "url", "flickr_url", "coco_url", "date_captured", "height", "width"})
_PROBED = 20


def read_caption_records(
    path: str | Path,
    need_captions: bool = True,
    kind: Kind = "image",
    split: str | None = None,
    folder: Path | None = None,
    subfolders: Sequence[str] = (),
) -> list[Record]:
    """Records of an annotation file of captioned pictures, in its order.

    Besides what :func:`lavis_evlgen.datasets.records.read_records` reads:

    - Karpathy's ``dataset_coco.json`` and ``dataset_flickr30k.json``: a dict of ``images``, each with its ``split`` and
      ``sentences``; only those of ``split`` are taken (``train`` includes ``restval``).
    - COCO's dict (``captions_val2014.json``, ``nocaps_val_4500_captions.json``), also without ``annotations``
      (``nocaps_test_image_info.json``, ``image_info_test2014.json``): pictures without captions are kept unless
      captions are needed, and further keys of a picture, such as nocaps's ``domain``, become extras.
    - LAVIS's lists, where nocaps calls the id ``img_id``.
    - ``results_20130124.token`` of Flickr30k: lines of ``1000092795.jpg#0``, a tab, and a caption. It has no splits.

    Args:
        path, need_captions, kind: those of ``read_records``.
        split: the split to take of Karpathy's files.
        folder: where the pictures are: paths in the files are adapted to how they lie below it (in the folders of the
            release, in ``subfolders``, or all in one).

    Raises:
        DataError: see ``read_records``; Karpathy's file does not have this split.
    """
    path = Path(os.path.expanduser(path))
    if path.suffix == ".token":
        rows = _token_rows(path)
    else:
        rows = ((where, _plain(row)) for where, row in file_rows(path, partial(dict_rows, split=split)))
    records = join_rows(rows, path, need_captions, kind)
    if folder is not None:
        _adapt(records, folder, subfolders)
    return records


def _plain(row: Any) -> Any:
    if isinstance(row, dict) and "img_id" in row and "image_id" not in row:
        return {"image_id": row["img_id"], **{key: value for key, value in row.items() if key != "img_id"}}
    return row


def dict_rows(path: Path, content: dict[str, Any], split: str | None = None) -> list[Any]:
    """COCO's or Karpathy's dict as rows, one per picture (of ``split``, where pictures say theirs)."""
    pictures = content.get("images")
    if not isinstance(pictures, list) or not all(isinstance(picture, dict) for picture in pictures):
        raise DataError(
            f"{path} is a dict with the keys {sorted(content)}; COCO's and Karpathy's forms have a list of 'images', "
            "and the plain form is a list of records"
        )
    try:
        if any("sentences" in picture for picture in pictures):
            return _karpathy_rows(path, pictures, split)
        return _coco_rows(pictures, content.get("annotations") or ())
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: {error.args[0]!r} is missing or wrong; COCO's form has 'id' and 'file_name' in every picture and "
            "in every annotation a 'caption' and the 'image_id' of one of these pictures; Karpathy's form has "
            "'filename', 'split' and 'sentences' in every picture"
        ) from error


def _karpathy_rows(path: Path, pictures: list[dict[str, Any]], split: str | None) -> list[Any]:
    names = KARPATHY_SPLITS.get(split, (split,)) if split else ()
    taken = [picture for picture in pictures if not names or picture["split"] in names]
    if not taken:
        found = ", ".join(f"{name} ({count})" for name, count in Counter(p["split"] for p in pictures).items())
        raise DataError(f"{path} has no picture of the split {split!r}; its splits are {found}")
    return [
        {
            "image": str(PurePosixPath(picture.get("filepath") or "", picture["filename"])),
            "image_id": picture.get("cocoid"),
            "caption": [sentence["raw"] for sentence in picture["sentences"]],
        }
        for picture in taken
    ]


def _coco_rows(pictures: list[dict[str, Any]], annotations: Sequence[dict[str, Any]]) -> list[Any]:
    captions: dict[Any, list[Any]] = {picture["id"]: [] for picture in pictures}
    for annotation in annotations:
        captions[annotation["image_id"]].append(annotation["caption"])
    return [
        {
            "image": _released_path(picture),
            "image_id": picture["id"],
            "caption": captions[picture["id"]],
            **{key: value for key, value in picture.items() if key not in _UNUSED},
        }
        for picture in pictures
    ]


def _released_path(picture: dict[str, Any]) -> str:
    """A picture's path in the release's own folders, which only its address tells: ``.../val2014/NAME.jpg``."""
    name, parts = str(picture["file_name"]), PurePosixPath(str(picture.get("coco_url") or "")).parts
    return "/".join(parts[-2:]) if len(parts) > 3 and parts[-1] == name else name


def _token_rows(path: Path) -> Iterator[Row]:
    with reading(path):
        lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if not tab or not mark:
            raise DataError(f"{path}, line {number}: not of the form 1000092795.jpg#0, a tab, and a caption")
        yield f"{path}, line {number}", {"image": name, "caption": caption}


def _adapt(records: list[Record], folder: Path, subfolders: Sequence[str]) -> None:
    """Change the records' paths to where the first of their pictures that can be found lies below ``folder``."""
    for record in records[:_PROBED]:
        path = PurePosixPath(record.file)
        if os.path.isfile(folder / path):
            return
        for subfolder in ("", *subfolders):
            if os.path.isfile(folder / subfolder / path.name):
                for each in records:
                    each.file = str(PurePosixPath(subfolder, PurePosixPath(each.file).name))
                return
