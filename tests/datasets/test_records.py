import json
import logging

import pytest

from lavis_evlgen.datasets.records import read_records
from lavis_evlgen.errors import DataError


def test_json_jsonl_and_csv_give_the_same_records(write):
    rows = [
        {"image": "a/x.jpg", "caption": "a cat", "size": "small"},
        {"image": "a/x.jpg", "caption": "one cat, sitting", "size": "small"},
        {"image": "b.png", "caption": "ein Hündchen", "size": "large"},
    ]
    files = [
        write("r.json", rows),
        write("r.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n"),
        write("r.csv", "image,caption,size\n" + "\n".join(f'{r["image"]},"{r["caption"]}",{r["size"]}' for r in rows)),
    ]
    for path in files:
        first, second = read_records(path)
        assert (first.image, first.captions, first.image_id) == ("a/x.jpg", ["a cat", "one cat, sitting"], "a/x")
        assert (second.image, second.captions, second.image_id) == ("b.png", ["ein Hündchen"], "b")
        assert first.extras == {"size": "small"}


def test_captions_may_be_lists_and_ids_numbers(write):
    (record,) = read_records(write("r.json", [{"image": "x.jpg", "captions": ["a", "b"], "image_id": 7}]))
    assert (record.captions, record.image_id) == (["a", "b"], "7")


def test_coco_dict_joins_annotations_with_pictures(write):
    content = {
        "images": [{"id": 9, "file_name": "nine.jpg"}, {"id": 8, "file_name": "eight.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 9, "caption": "first"},
            {"id": 2, "image_id": 8, "caption": "other"},
            {"id": 3, "image_id": 9, "caption": "second"},
        ],
    }
    nine, eight = read_records(write("coco.json", content))
    assert (nine.image, nine.image_id, nine.captions) == ("nine.jpg", "9", ["first", "second"])
    assert eight.captions == ["other"]


def test_empty_captions_are_dropped_counted_and_logged_once(write, caplog):
    rows = [{"image": f"{n}.jpg", "caption": text} for n, text in enumerate(["a cat", " ", None, ""])]
    with caplog.at_level(logging.WARNING):
        records = read_records(write("r.json", rows))
    assert [record.image for record in records] == ["0.jpg"]
    assert [r.message for r in caplog.records if "empty" in r.message] == [
        f"{write('r.json', rows)}: 3 empty captions left out"
    ]


def test_pictures_without_captions_are_kept_when_none_are_needed(write):
    path = write("r.json", [{"image": "x.jpg"}, {"image": "y.jpg", "caption": ""}])
    assert [record.captions for record in read_records(path, need_captions=False)] == [[], []]
    with pytest.raises(DataError, match="record 1: no key 'caption'"):
        read_records(path)


@pytest.mark.parametrize("need_captions", [True, False])
def test_a_misspelled_key_is_named_with_the_line(write, need_captions):
    path = write("r.jsonl", '{"image": "x.jpg", "caption": "a"}\n\n{"image": "y.jpg", "captoin": "b"}\n')
    with pytest.raises(DataError, match=r"r\.jsonl, line 3: no key 'caption'; .*'captoin'"):
        read_records(path, need_captions)


FAILURES = {
    "missing.json": (None, "missing.json does not exist"),
    "empty.csv": ("", "is empty"),
    "kind.txt": ("x", "must end in .json, .jsonl, .csv"),
    "bad.json": ('[\n{"image": 1,\n}]', "bad.json, line 3: not valid JSON"),
    "bad.jsonl": ('{"image": "x.jpg", "caption": "a"}\n{"image"', "bad.jsonl, line 2: not valid JSON"),
    "short.csv": ("image,caption\nx.jpg\n", "short.csv, line 2: not the 2 fields"),
    "long.csv": ("image,caption\nx.jpg,a cat, sitting\n", "long.csv, line 2: not the 2 fields"),
    "number.json": ("3", "must hold a list"),
    "strings.json": ('["x.jpg"]', "record 1: a record must be a dict"),
    "nothing.json": ("[]", "holds no caption"),
    "header.csv": ("image,caption\n", "holds no caption"),
    "noimage.json": ('[{"img": "x", "caption": "a"}]', "record 1: no key 'image'; did you mean 'img'"),
    "image.json": ('[{"image": "", "caption": "a"}]', "'image' must be the path"),
    "caption.json": ('[{"image": "x", "caption": 3}]', "'caption' must be a string or a list"),
    "ids.json": (
        '[{"image": "a.jpg", "caption": "a", "image_id": 1}, {"image": "b.jpg", "caption": "b", "image_id": "1"}]',
        "image_id '1' already belongs to 'a.jpg'",
    ),
    "coco.json": ('{"images": [], "annotation": []}', "keys \\['annotation', 'images'\\]"),
    "cocoid.json": (
        '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 2, "caption": "a"}]}',
        "2 is missing",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_wrong_with_a_file_is_said(write, tmp_path, name):
    content, message = FAILURES[name]
    path = tmp_path / name if content is None else write(name, content)
    with pytest.raises(DataError, match=message):
        read_records(path)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "latin.csv").write_bytes("image,caption\nx.jpg,caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv is not UTF-8"):
        read_records(tmp_path / "latin.csv")
