import csv
import json

import pytest

from lavis_evlgen.datasets.video_annotations import read_clip_records
from lavis_evlgen.errors import DataError


def read(path, **options):
    """(file, captions, id) of the records."""
    return [(record.file, record.captions, record.image_id) for record in read_clip_records(path, **options)]


def test_plain_rows_of_all_three_kinds_of_file(write):
    rows = [{"video": "a/x.mp4", "caption": "a cat", "seconds": "3"}, {"video": "y.gif", "caption": "a dog"}]
    files = [
        write("r.json", rows),
        write("r.jsonl", "\n".join(map(json.dumps, rows))),
        write("r.csv", "video,caption,seconds\na/x.mp4,a cat,3\ny.gif,a dog,\n"),
    ]
    for path in files:
        assert read(path) == [("a/x.mp4", ["a cat"], "a/x"), ("y.gif", ["a dog"], "y")]
        assert read_clip_records(path)[0].extras == {"seconds": "3"}


def test_lavis_rows_are_joined_by_their_id(write):
    rows = [
        {"video": "video0.mp4", "caption": "a car is shown", "image_id": "video0"},
        {"video": "video1.mp4", "caption": "a man talks", "image_id": "video1"},
        {"video": "video0.mp4", "caption": "a car drives", "image_id": "video0"},
    ]
    assert read(write("cap_train.json", rows)) == [
        ("video0.mp4", ["a car is shown", "a car drives"], "video0"),
        ("video1.mp4", ["a man talks"], "video1"),
    ]


def test_the_id_may_be_called_video_id(write):
    rows = [{"video": "x.mp4", "captions": ["a", "b"], "video_id": 7}]
    (record,) = read_clip_records(write("r.json", rows))
    assert (record.image_id, record.captions, record.extras) == ("7", ["a", "b"], {})


MSRVTT = {
    "info": {"year": "2016"},
    "videos": [
        {"video_id": "video0", "category": 9, "split": "train", "start time": 1.5, "id": 0},
        {"video_id": "video1", "category": 2, "split": "validate", "id": 1},
        {"video_id": "video2", "category": 3, "split": "train", "id": 2},
    ],
    "sentences": [
        {"video_id": "video0", "caption": "a car", "sen_id": 1},
        {"video_id": "video1", "caption": "a man", "sen_id": 2},
        {"video_id": "video0", "caption": "a red car", "sen_id": 0},
    ],
}


def test_msrvtts_own_file_by_split(write):
    path = write("train_val_videodatainfo.json", MSRVTT)
    assert read(path, split="train") == [("video0.mp4", ["a car", "a red car"], "video0")]
    assert read(path, split="val") == read(path, split="validate") == [("video1.mp4", ["a man"], "video1")]
    assert read(path, split="train", need_captions=False)[1] == ("video2.mp4", [], "video2")
    assert read_clip_records(path, split="val")[0].extras["category"] == 2
    with pytest.raises(DataError, match="has no clip of the split 'test'; its splits are train, validate"):
        read(path, split="test")


def test_a_split_is_never_mixed_with_another_by_accident(write):
    with pytest.raises(DataError, match="holds the splits train, validate; the data set msrvtt_caption takes each"):
        read(write("both.json", MSRVTT))
    one = {**MSRVTT, "videos": MSRVTT["videos"][1:2], "sentences": MSRVTT["sentences"][1:2]}
    assert read(write("one.json", one)) == [("video1.mp4", ["a man"], "video1")]


def test_clips_that_say_no_split_belong_to_any(write):
    content = {**MSRVTT, "videos": [{"video_id": "video0"}], "sentences": MSRVTT["sentences"][:1]}
    path = write("test_videodatainfo.json", content)
    assert read(path, split="test") == read(path) == [("video0.mp4", ["a car"], "video0")]


def test_vatexs_own_file(write):
    rows = [
        {"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["a diver", "someone dives"], "chCap": ["一个人"]},
        {"videoID": "x_000001_000011", "enCap": ["a dog"]},
    ]
    records = read_clip_records(write("vatex_training_v1.0.json", rows))
    assert [(r.file, r.captions, r.image_id, r.extras) for r in records] == [
        ("Ptf_2VRj-V0_000122_000132.mp4", ["a diver", "someone dives"], "Ptf_2VRj-V0_000122_000132", {}),
        ("x_000001_000011.mp4", ["a dog"], "x_000001_000011", {}),
    ]
    private = write("private.json", [{"videoID": "x_000001_000011"}])
    assert read(private, need_captions=False) == [("x_000001_000011.mp4", [], "x_000001_000011")]


def test_webvids_own_file(write, tmp_path):
    with open(tmp_path / "results_2M_train.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["videoid", "contentUrl", "duration", "page_dir", "name"])
        rows.writerow(["1066674784", "somewhere", "PT00H00M10S", "000001_000050", "Beach at dusk, aerial view"])
    (record,) = read_clip_records(tmp_path / "results_2M_train.csv")
    assert (record.file, record.captions) == ("000001_000050/1066674784.mp4", ["Beach at dusk, aerial view"])
    assert (record.image_id, record.extras) == ("1066674784", {})


FAILURES = {
    "novideo.json": ([{"image": "x.jpg", "caption": "a"}], "record 1: no key 'video'"),
    "vidoe.json": ([{"vidoe": "x.mp4", "caption": "a"}], "no key 'video'; did you mean 'vidoe'"),
    "empty.json": ([{"video": " ", "caption": "a"}], "'video' must be the path of a clip, not ' '"),
    "caption.json": ([{"video": "x.mp4", "captoin": "a"}], "no key 'caption'; did you mean 'captoin'"),
    "row.json": (["x.mp4"], "a record must be a dict with 'video' and 'caption'"),
    "ids.json": (
        [{"video": f"{name}.mp4", "caption": "a", "video_id": 1} for name in "ab"],
        "image_id '1' already belongs to 'a.mp4'.* give every clip its own image_id",
    ),
    "dict.json": ({"images": [], "annotations": []}, "keys \\['annotations', 'images'\\]; MSR-VTT's form has 'videos'"),
    "sentence.json": ({**MSRVTT, "sentences": [{"video_id": "video9", "caption": "a"}]}, "'video9' is missing"),
    "noid.json": ({"videos": [{"id": 1}], "sentences": []}, "'video_id' is missing"),
    "none.json": ({"videos": [], "sentences": []}, "holds no caption"),
    "webvid.csv": ("videoid,page_dir\n1,a\n", "line 2: no key 'caption'"),
    "vatex.json": ([{"videoID": "x"}], "record 1: no key 'caption'"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_is_wrong_with_a_file_is_said(write, name):
    content, message = FAILURES[name]
    with pytest.raises(DataError, match=message):
        read_clip_records(write(name, content))
