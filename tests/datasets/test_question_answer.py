"""Questions and answers: every official form, one's own rows, and what data sets and builders make of them."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import OmegaConf
from PIL import Image
from question_files import ANSWERS, ASKED, IMAGE_IDS, coco_pictures, gqa_file, gqa_pictures, vqa_files, write
from torchvision.transforms.functional import to_tensor

from lavis_evlgen.datasets.question_answer import QuestionAnswerDataset, QuestionEvalDataset
from lavis_evlgen.datasets.questions import COCO_NAMES, read_answer_list, read_questions
from lavis_evlgen.errors import ConfigError, DataError

IDS = [str(number * 1000 + place) for place, number in enumerate(IMAGE_IDS)]


def plain(folder, rows, name="rows.json"):
    return [write(folder / name, rows)]


@pytest.mark.parametrize("prefix", ["v2_", ""])
@pytest.mark.parametrize("order", [1, -1])
def test_official_vqa_files_in_any_order(tmp_path, prefix, order):
    coco_pictures(tmp_path)
    questions, listed = read_questions(vqa_files(tmp_path, prefix=prefix)[::order], tmp_path)
    assert [question.question_id for question in questions] == IDS and not listed
    assert [question.question for question in questions] == ASKED
    assert [question.answers for question in questions] == ANSWERS
    assert questions[0].file == "val2014/COCO_val2014_000000262148.jpg" and questions[0].image_id == "262148"
    assert [(question.question_type, question.answer_type) for question in questions] == [
        ("is this", "yes/no"), ("how many", "number"), ("what color is the", "other"),
    ]  # fmt: skip
    assert [question.most_common for question in questions] == ["no", "2", "black and white"]
    assert not any(question.extras or question.captions for question in questions)


@pytest.mark.parametrize("layout", COCO_NAMES)
def test_cocos_layouts(tmp_path, layout):
    coco_pictures(tmp_path, "val2014", layout)
    questions, _ = read_questions(vqa_files(tmp_path), tmp_path)
    assert all((tmp_path / question.file).is_file() for question in questions)


def test_test_splits_have_no_answers(tmp_path):
    questions, _ = read_questions(vqa_files(tmp_path, "test-dev2015"), tmp_path)
    assert questions[0].file == "test2015/COCO_test2015_000000262148.jpg"
    assert [question.answers for question in questions] == [[], [], []]


def test_gqa_as_published_and_as_a_list(tmp_path):
    (first, second), _ = read_questions([gqa_file(tmp_path)])
    assert (first.question_id, first.file, first.image_id) == ("201307251", "n161313.jpg", "n161313")
    assert (first.question, first.answers, first.question_type) == ("Is it overcast?", ["no"], "verify")
    assert (second.file, second.extras) == ("2370799.jpg", {})
    (bare, _), _ = read_questions([gqa_file(tmp_path, "test.json", answered=False)])
    assert bare.answers == []
    row = {"image": "n161313.jpg", "question": "Is it overcast?", "answer": "no", "question_id": "201307251"}
    (listed,), _ = read_questions(plain(tmp_path, [row]))
    assert (listed.question_id, listed.file, listed.answers) == (first.question_id, first.file, first.answers)


def test_laviss_files_beside_the_official_ones(tmp_path):
    """vqa_val_eval.json (no answers), answer_list.json, questions and annotations, as in LAVIS's eval_vqa.yaml."""
    coco_pictures(tmp_path)
    picture = "val2014/COCO_val2014_000000262148.jpg"
    own = [{"question_id": int(IDS[0]), "question": ASKED[0], "image": picture, "dataset": "vqa"}]
    files = [*plain(tmp_path, own), write(tmp_path / "answer_list.json", ["yes", "no", "2"]), *vqa_files(tmp_path)]
    questions, listed = read_questions(files, tmp_path)
    assert listed == ["yes", "no", "2"]
    assert [question.question_id for question in questions] == IDS
    assert questions[0].file == picture and questions[0].answers == ANSWERS[0]
    assert questions[0].extras == {"dataset": "vqa"}


ROWS = [
    {"image": "a.png", "question": "what?", "answer": "a cat"},
    {"image": "a.png", "question": "what? ", "answers": ["cat", " dog ", "", None], "image_id": 7, "question_id": 12},
    {"image": "b/c.png", "question": "how many?", "answers": [{"answer": 3, "answer_id": 1}, {"answer": "3"}]},
    {"image": "b/c.png", "question": "why?"},
]


def test_own_rows(tmp_path):
    questions, _ = read_questions(plain(tmp_path, ROWS))
    assert [question.question_id for question in questions] == ["0", "12", "2", "3"]
    assert [question.image_id for question in questions] == ["a", "7", "b/c", "b/c"]
    assert [question.answers for question in questions] == [["a cat"], ["cat", "dog"], ["3", "3"], []]
    assert questions[1].question == "what?"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert read_questions([tmp_path / "rows.jsonl"])[0] == questions
    (tmp_path / "rows.csv").write_text('image,question,answer\na.png,"what, then?",cat\n')
    (csv,), _ = read_questions([tmp_path / "rows.csv"])
    assert (csv.question, csv.answers) == ("what, then?", ["cat"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image": "a.png", "qestion": "what?"}], "record 1: no key 'question'; did you mean 'qestion'"),
        ([{"question": "what?"}], "record 1: no key 'image'"),
        ([{"image": "a.png", "question": " "}], "'question' must be a string that is not empty"),
        ([{"image": "a.png", "question": "q", "answers": {"yes": 3}}], "'answers' must be a string, a list of strings"),
        ([ROWS[0], 3], "record 2: a row must be a dict"),
        (
            [{**ROWS[0], "question_id": 1}, {**ROWS[2], "question_id": "1"}],
            r"question_id '1' already belongs to 'what\?'",
        ),
        ({"info": 1, "data": []}, r"a dict with the keys \['data', 'info'\]"),
        ([], "no question"),
        ({"questions": [{"question_id": 1, "question": "q", "image_id": "x"}]}, "COCO's number .* as 'image_id'"),
    ],
)
def test_damaged_files(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        read_questions(plain(tmp_path, rows))


def test_annotations_of_another_split(tmp_path, caplog):
    questions, annotations = vqa_files(tmp_path)
    content = json.loads(annotations.read_text())
    for row in content["annotations"][1:]:
        row["question_id"] += 7
    read_questions([questions, write(annotations, content)])
    assert "2 questions have no annotation" in caplog.text
    content["annotations"][0]["question_id"] += 7
    with pytest.raises(DataError, match="no annotation belongs to any of the questions"):
        read_questions([questions, write(annotations, content)])
    with pytest.raises(DataError, match="no question"):
        read_questions([annotations])


def test_answer_lists(tmp_path):
    assert read_answer_list(write(tmp_path / "a.json", ["yes", "no", "yes"])) == ["yes", "no"]
    assert read_answer_list(write(tmp_path / "b.json", {"yes": 0, "no": 1})) == ["yes", "no"]
    (tmp_path / "c.txt").write_text("teal\n\n dark blue \n")
    assert read_answer_list(tmp_path / "c.txt") == ["teal", "dark blue"]
    for name, content in (("empty.txt", ""), ("numbers.json", "[1, 2]"), ("broken.json", "[")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=f"answer list .*{name}"):
            read_answer_list(tmp_path / name)


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.png", "b/c.png"):
        Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / name)
    return read_questions(plain(tmp_path, ROWS))[0]


def make(cls, tmp_path, questions, **options):
    return cls(to_tensor, str.upper, str(tmp_path), questions, **options)


def test_training_items(tmp_path, questions, caplog):
    data = make(QuestionAnswerDataset, tmp_path, questions)
    assert len(data) == 3 and "1 of 4 questions have no answer" in caplog.text
    item = data[0]
    assert item.pop("image").shape == (3, 4, 4)
    assert item == {
        "text_input": "WHAT?", "text_output": "a cat", "image_id": "a", "question_id": "0",
        "answers": ["a cat"], "weights": [1.0],
    }  # fmt: skip


def test_which_answers_train(tmp_path, questions):
    questions[0].answers = ["red"] * 6 + ["crimson"] * 3 + ["pink"]
    torch.manual_seed(0)
    data = make(QuestionAnswerDataset, tmp_path, questions)
    drawn = Counter(data[0]["text_output"] for _ in range(2000))
    assert {answer: round(count / 2000, 1) for answer, count in drawn.items()} == {
        "red": 0.6, "crimson": 0.3, "pink": 0.1,
    }  # fmt: skip
    assert make(QuestionAnswerDataset, tmp_path, questions, answers="most_common")[0]["text_output"] == "red"
    every = make(QuestionAnswerDataset, tmp_path, questions, answers="all")[0]
    assert every["answers"] == ["red", "crimson", "pink"] and every["weights"] == pytest.approx([0.6, 0.3, 0.1])
    with pytest.raises(ConfigError, match="answers: 'first' is unknown; use random"):
        make(QuestionAnswerDataset, tmp_path, questions, answers="first")
    with pytest.raises(DataError, match="none of the 1 questions to train on has an answer"):
        make(QuestionAnswerDataset, tmp_path, questions[3:])


def test_training_batches_are_laviss_too(tmp_path, questions):
    data = make(QuestionAnswerDataset, tmp_path, questions, answers="all")
    (tmp_path / "b/c.png").unlink()
    batch = data.collater([data[0], data[1], data[2]])
    assert batch["answer"] == ["a cat", "cat", "dog"] and batch["n_answers"].tolist() == [1, 2]
    assert batch["weight"].tolist() == [1.0, 0.5, 0.5]
    assert batch["text_output"] == ["a cat", "cat"] and batch["question_id"] == ["0", "12"]
    assert len(batch["bad_samples"]) == 1 and "c.png: no such file" in batch["bad_samples"][0]
    assert set(data.collater([data[2]])) == {"bad_samples"}
    bad = data[2]
    copied = {key: bad[key] for key in bad.keys() & data[0].keys()}  # what LAVIS's ConcatDataset makes of it
    assert copied.keys() == data[0].keys()
    assert data.collater([data[0], copied])["answer"] == ["a cat"]


def test_evaluation_items(tmp_path, questions, caplog):
    data = make(QuestionEvalDataset, tmp_path, questions)
    assert len(data) == 4 and "1 of 4 questions have no answer" in caplog.text
    item = data[1]
    assert {key: item[key] for key in item if key != "image"} == {
        "text_input": "WHAT?", "question_id": "12", "image_id": "7", "instance_id": "1",
    }  # fmt: skip
    assert data.ground_truth() == {"0": ["a cat"], "12": ["cat", "dog"], "2": ["3", "3"]}
    answered = make(QuestionEvalDataset, tmp_path, questions[:3])
    assert [answered[n]["text_output"] for n in range(3)] == ["a cat", "cat", "3"]
    assert data.image_key(0) == data.image_key(1) != data.image_key(2)  # one row of a feature cache a picture
    table = torch.ones(5, 2)
    data.features = lambda key: table
    assert data[0]["vision_features"] is table and "image" not in data[0]


def build(name, config):
    merged = Config.build_dataset_config(OmegaConf.create({"datasets": {name: config}}))
    task = registry.get_task_class("evlgen_vqa")()
    return task.build_datasets(SimpleNamespace(datasets_cfg=merged.datasets))[name]


def test_bring_your_own(tmp_path, questions):
    files = {"images": str(tmp_path), "annotations": {"train": str(tmp_path / "rows.json"), "val": None}}
    datasets = build("visual_question_answer", {**files, "answers": "most_common", "scoring": "match"})
    assert set(datasets) == {"train"}
    assert datasets["train"][1]["text_output"] == "cat" and datasets["train"].scoring == "match"
    assert datasets["train"][0]["text_input"] == "what?" and datasets["train"][0]["image"].shape == (3, 224, 224)
    assert datasets["train"].candidates is None and not datasets["train"].lemmatize
    with pytest.raises(ConfigError, match=r"visual_question_answer\.scoring: 'vqaa' is unknown; did you mean 'vqa'"):
        build("visual_question_answer", {**files, "scoring": "vqaa"})
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(DataError, match=r"visual_question_answer\.images: none of the first 3 pictures"):
        build("visual_question_answer", {**files, "images": str(tmp_path / "elsewhere")})


def test_named_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coco_pictures(tmp_path / "coco/images")
    vqa_files(tmp_path / "vqav2")
    none = {"train": None, "test_dev": None, "test": None}
    vqa = build("vqav2", {"build_info": {"annotations": none}})["val"]
    assert (vqa.scoring, vqa.server, vqa.lemmatize) == ("vqa", "vqa", False)
    assert vqa[0]["text_input"] == ASKED[0].lower() and vqa.ground_truth() == dict(zip(IDS, ANSWERS, strict=True))
    with pytest.raises(DataError, match=r"vqav2\.build_info\.answer_list\.storage: .*answer_list\.json does not exist"):
        vqa.candidates()
    write(tmp_path / "vqav2/answer_list.json", ["yes", "no"])
    assert vqa.candidates() == ["yes", "no"]
    vqa_files(tmp_path / "okvqa/annotations", prefix="")
    ok = build("ok_vqa", {"build_info": {"annotations": {"train": None}}})["test"]
    assert (ok.scoring, ok.server, ok.lemmatize) == ("vqa", "vqa", True)
    gqa_pictures(tmp_path / "gqa/images")
    gqa_file(tmp_path / "gqa/annotations")
    gqa = build("gqa", {"build_info": {"annotations": {"train": None, "val": None, "test": None}}})["testdev"]
    assert (gqa.scoring, gqa.server) == ("gqa", "gqa") and gqa[0]["question_id"] == "201307251"


def test_absent_files_are_named_with_their_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coco_pictures(tmp_path / "coco/images")
    questions, annotations = vqa_files(tmp_path / "vqav2")
    datasets = build("vqav2", {})
    assert len(datasets["val"]) == 3
    with pytest.raises(DataError, match=r"v2_OpenEnded_mscoco_train2014_questions\.json.*visualqa\.org"):
        len(datasets["train"])
    annotations.unlink()
    questions.unlink()
    with pytest.raises(DataError, match=r"vqav2\.build_info\.annotations\.train\.storage: .* does not exist"):
        build("vqav2", {})
