"""Annotation files: json, jsonl, csv and Flickr30k's tokens, of one's own and of every release, wrong in some way."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guard import put
from hypothesis import strategies as st
from mutations import ODD_TEXTS, as_json, damaged, encodings, mutated, one_of_each

from lavis_evlgen.datasets.caption_annotations import read_caption_records
from lavis_evlgen.datasets.questions import read_answer_list, read_questions
from lavis_evlgen.datasets.records import Record, read_records
from lavis_evlgen.datasets.video_annotations import read_clip_records
from lavis_evlgen.errors import EvlgenError

ROWS = [
    {"image": "a/x.jpg", "caption": "a cat", "image_id": 7, "size": "small"},
    {"image": "y.jpg", "captions": ["one", "two"], "img_id": "y"},
    {"video": "v.mp4", "caption": "a cat runs", "video_id": "v"},
    {"image": "x.jpg", "question": "what?", "answer": ["cat", "cat"], "question_id": 3},
]
COCO = {
    "images": [{"id": 9, "file_name": "nine.jpg", "coco_url": "http://x/val2014/nine.jpg", "domain": "in-domain"}],
    "annotations": [{"id": 1, "image_id": 9, "caption": "first"}],
}
KARPATHY = {
    "images": [
        {"filepath": "val2014", "filename": "n.jpg", "split": "test", "cocoid": 9, "sentences": [{"raw": "a cat"}]}
    ]
}
MSRVTT = {
    "videos": [{"video_id": "video0", "split": "train", "category": 3}],
    "sentences": [{"video_id": "video0", "caption": "a man sings"}],
}
VATEX = [{"videoID": "v_1", "enCap": ["one", "two"], "chCap": ["x"]}]
VQA = {
    "data_subtype": "val2014",
    "questions": [{"image_id": 42, "question": "how many?", "question_id": 42000}],
}
VQA_ANSWERS = {
    "annotations": [{"question_id": 42000, "image_id": 42, "answers": [{"answer": "2"}], "question_type": "how many"}]
}
GQA = {"201": {"imageId": "n16", "question": "Is it?", "answer": "no", "types": {"structural": "verify"}}}
DOCUMENTS: list[Any] = [ROWS[:2], ROWS[2:3], ROWS[3:], COCO, KARPATHY, MSRVTT, VATEX, VQA, VQA_ANSWERS, GQA, ["a", "b"]]


def _questions(path: Path, *, official: bool = False) -> list[Record]:
    other = put(Path.cwd() / "answers.json", as_json(VQA_ANSWERS))
    return list(read_questions([path, other] if official else [path])[0])


READERS: list[Callable[[Path], Any]] = [
    read_records,
    lambda path: read_records(path, need_captions=False),
    lambda path: read_caption_records(path, need_captions=False, split="test", folder=path.parent, subfolders=("val",)),
    lambda path: read_clip_records(path, split="train"),
    _questions,
    lambda path: _questions(path, official=True),
    read_answer_list,
]


def check_all(guard: Any, name: str, content: bytes, readers: list[Callable[[Path], Any]]) -> None:
    """Every reader gives records that can be used and written down again, or names the file."""
    path = put(guard.inside / name, content)
    for reader in readers:
        found = guard.read(reader, path)
        if isinstance(found, EvlgenError):
            assert path.name in str(found), str(found)
        else:
            for record in found:
                check_record(record)


def check_record(record: Record | str) -> None:
    if isinstance(record, str):
        record.encode()
        return
    texts = [record.file, record.image_id, *record.captions, getattr(record, "question", "")]
    assert all(isinstance(text, str) for text in texts)
    json.dumps([*texts, getattr(record, "answers", [])], ensure_ascii=False).encode()


def as_lines(rows: list[Any]) -> bytes:
    return b"\n".join(map(as_json, rows)) + b"\n"


def as_csv(rows: list[Any]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        cells = row if isinstance(row, list) else [row]
        writer.writerow(["" if each is None else str(each)[:5000] for each in cells])
    return text.getvalue().encode(errors="surrogatepass")


@st.composite
def documents(draw: st.DrawFn, write: Callable[[Any], bytes], sources: list[Any]) -> bytes:
    return draw(encodings)(write(draw(one_of_each(mutated, sources))))


def json_or_rows(document: Any) -> bytes:
    return as_lines(document) if isinstance(document, list) else as_json(document)


def test_documents(fuzz, guard):
    fuzz(lambda data: check_all(guard, "a.json", data, READERS), documents(as_json, DOCUMENTS), 120)


def test_lines(fuzz, guard):
    lists = [each for each in DOCUMENTS if isinstance(each, list)]
    fuzz(lambda data: check_all(guard, "a.jsonl", data, READERS), documents(json_or_rows, lists), 100)


CSV = [
    [["image", "caption", "size"], ["a.jpg", "a cat, sitting", "1"], ["b.jpg", "a dog", "2"]],
    [["videoid", "page_dir", "name"], ["v1", "dir", "a cat"], ["v2", "dir", "a dog"]],
    [["image", "question", "answer"], ["a.jpg", "what?", "a cat"]],
]


def test_tables(fuzz, guard):
    fuzz(lambda data: check_all(guard, "a.csv", data, READERS), documents(as_csv, CSV), 100)


def test_bytes(fuzz, guard):
    files = [("a.json", as_json(each)) for each in DOCUMENTS] + [
        ("a.jsonl", as_lines(ROWS[:1])),
        ("a.csv", as_csv(CSV[0])),
    ]
    files.append(("a.token", b"1000092795.jpg#0\ta cat\n10002456.jpg#1\ta dog\n"))
    cases = st.sampled_from(files).flatmap(lambda file: st.tuples(st.just(file[0]), damaged(file[1])))
    fuzz(lambda case: check_all(guard, *case, READERS), cases, 120)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_odd_paths(guard, text):
    for reader in READERS:
        found = guard.read(reader, Path(text + ".json"))
        assert isinstance(found, EvlgenError)
