"""Annotation files of clips: the plain form and LAVIS's, and the forms in which the data sets were released.

The form is recognised by its keys, so that every video data set reads any of them.
"""

from functools import partial
from pathlib import Path
from typing import Any

from lavis_evlgen.datasets.records import Kind, Record, file_rows, join_rows
from lavis_evlgen.errors import DataError

SUFFIX = ".mp4"  # of clips that are released as ids alone
MSRVTT_SPLITS = {"val": "validate"}  # splits that MSR-VTT's file calls otherwise than LAVIS


def read_clip_records(
    path: str | Path, need_captions: bool = True, kind: Kind = "video", split: str | None = None
) -> list[Record]:
    """Records of an annotation file of clips, in its order.

    Besides what :func:`lavis_evlgen.datasets.records.read_records` reads (``video`` and ``caption``):

    - MSR-VTT (``train_val_videodatainfo.json``): a dict of ``videos`` and ``sentences``. The clip is ``VIDEO_ID.mp4``,
      its own keys (``split``, ``category``, ...) become extras.
    - VATEX (``vatex_training_v1.0.json``): rows with ``videoID`` and ``enCap``. The clip is ``VIDEOID.mp4``.
    - WebVid (``results_2M_train.csv``): rows with ``videoid``, ``page_dir`` and ``name``, the caption. The clip is
      ``PAGE_DIR/VIDEOID.mp4``.

    Args:
        path, need_captions, kind: those of ``read_records``.
        split: the split to take of an MSR-VTT file, which may hold several.

    Raises:
        DataError: see ``read_records``; an MSR-VTT file does not have this split, or several and none is asked for.
    """
    rows = ((where, _plain(row)) for where, row in file_rows(path, partial(_msrvtt_rows, split=split)))
    return join_rows(rows, path, need_captions, kind)


def _plain(row: Any) -> Any:
    """A row of VATEX or WebVid in the plain form; any other row as it is."""
    if not isinstance(row, dict) or "video" in row:
        return row
    if "videoID" in row:
        plain = {"video": f"{row['videoID']}{SUFFIX}"}
        plain |= {key: value for key, value in row.items() if key not in ("videoID", "enCap", "chCap")}
        caption = "enCap"
    elif "videoid" in row and "page_dir" in row:
        # the other columns (contentUrl, duration) would fill the memory: the file has millions of rows
        plain = {"video": f"{row['page_dir']}/{row['videoid']}{SUFFIX}", "video_id": row["videoid"]}
        caption = "name"
    else:
        return row
    return {**plain, "caption": row[caption]} if caption in row else plain


def _msrvtt_rows(path: Path, content: dict[str, Any], split: str | None = None) -> list[Any]:
    """MSR-VTT's dict as rows, one per clip of the split."""
    if "videos" not in content:
        raise DataError(
            f"{path} is a dict with the keys {sorted(content)}; MSR-VTT's form has 'videos' and 'sentences', and the "
            "plain form is a list of records"
        )
    try:
        clips = {clip["video_id"]: clip for clip in content["videos"]}
        captions: dict[Any, list[Any]] = {video_id: [] for video_id in clips}
        for sentence in content.get("sentences") or ():
            captions[sentence["video_id"]].append(sentence["caption"])
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: {error.args[0]!r} is missing or wrong; MSR-VTT's form has a 'video_id' in every video and, in "
            "every sentence, a 'caption' and the 'video_id' of one of these videos"
        ) from error
    return [
        {**clips[video_id], "video": f"{video_id}{SUFFIX}", "caption": captions[video_id]}
        for video_id in _of_split(path, clips, split)
    ]


def _of_split(path: Path, clips: dict[str, dict[str, Any]], split: str | None) -> list[str]:
    """Ids of the clips of a split; those that do not say theirs belong to any."""
    found = {str(clip["split"]) for clip in clips.values() if clip.get("split")}
    if split is None and len(found) > 1:
        raise DataError(
            f"{path} holds the splits {', '.join(sorted(found))}; the data set msrvtt_caption takes each for its own"
        )
    name = MSRVTT_SPLITS.get(split, split) if split else None
    taken = [video_id for video_id, clip in clips.items() if not name or clip.get("split") in (None, "", split, name)]
    if clips and not taken:
        raise DataError(f"{path} has no clip of the split {name!r}; its splits are {', '.join(sorted(found))}")
    return taken
