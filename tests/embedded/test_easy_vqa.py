"""easy-vqa's pictures and questions as files of one's own."""

import json
from collections import Counter

import pytest
from PIL import Image

from lavis_evlgen.datasets.questions import read_questions
from lavis_evlgen.embedded.easy_vqa import blind_accuracies, build, main
from lavis_evlgen.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build(tmp_path_factory.mktemp("easy") / "data", val=40, test=500)


def rows(data, split):
    return [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]


def test_splits(data):
    splits = {split: rows(data, split) for split in ("train", "val", "test", "test_shuffled", "test_all")}
    assert [len(splits[split]) for split in ("val", "test", "test_shuffled", "test_all")] == [40, 500, 500, 9673]
    shown = {split: {row["image"] for row in of} for split, of in splits.items()}
    assert shown["train"].isdisjoint(shown["val"]) and shown["train"].isdisjoint(shown["test_all"])
    assert len(shown["train"]) + 40 >= 4000 and len(splits["train"]) > 38000
    assert {row["answer"] for row in splits["train"]} == {row["answer"] for row in splits["test_all"]}
    assert Counter(row["answer_type"] for row in splits["test_all"]) == {"yes/no": 7136, "color": 1280, "shape": 1257}
    tested = {row["question_id"]: row for row in splits["test_all"]}
    assert all(tested[row["question_id"]] == row for row in splits["test"])
    pair = next(row for row in splits["test_all"] if row["question_id"] == "test_2")
    assert pair["question"] == "what is the color of the shape?" and pair["answer"] == "red"


def test_shuffled_pictures_are_others(data):
    for row, shuffled in zip(rows(data, "test"), rows(data, "test_shuffled"), strict=True):
        assert row["image"] != shuffled["image"]
        assert {**row, "image": ""} == {**shuffled, "image": ""}
    both = [Counter(row["image"] for row in rows(data, split)) for split in ("test", "test_shuffled")]
    assert both[0] == both[1]


def test_they_are_files_of_ones_own(data):
    questions, listed = read_questions([data / "val.jsonl"])
    assert len(questions) == 40 and not listed
    assert all(Image.open(data / question.file).size == (64, 64) for question in questions)
    assert "MIT" in (data / "ATTRIBUTION.txt").read_text()


def test_not_looking(data, tmp_path):
    figures = blind_accuracies(data)
    assert 30 < figures["majority"] < 45 < 60 < figures["majority_by_question"] < 75
    train = [("what?", "a"), ("what?", "b"), ("what?", "b"), ("who?", "a"), ("who?", "a"), ("how?", "a")]
    test = [("what?", "b"), ("who?", "a"), ("new?", "a"), ("how?", "c")]
    for split, pairs in (("train", train), ("test", test)):
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in pairs]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    assert blind_accuracies(tmp_path) == {"majority": 50, "majority_by_question": 50}


def test_it_is_made_once_or_anew(data):
    before = (data / "test.jsonl").stat().st_mtime_ns
    assert build(data, val=40, test=500) == data
    assert (data / "test.jsonl").stat().st_mtime_ns == before
    again = build(data.parent / "again", val=5, test=10)
    assert len(rows(build(again, val=5, test=12), "test")) == 12 and len(rows(again, "val")) == 5
    (data.parent / "other").mkdir()
    (data.parent / "other" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="exists and does not hold easy-vqa"):
        build(data.parent / "other")
    with pytest.raises(ConfigError, match="test=9674"):
        build(data.parent / "new", test=9674)


def test_command(data, capsys):
    assert main(["--out", str(data), "--val", "40", "--test", "500"]) == 0
    assert "without looking, majority by question: " in capsys.readouterr().out
    assert main(["--out", str(data / "train"), "--val", "40"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
