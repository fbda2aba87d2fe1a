"""VQA v2's accuracy, GQA's exact match and OK-VQA's base forms against published rules and the official code's path."""

import json
import random
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lavis.common.vqa_tools.vqa import VQA
from lavis.common.vqa_tools.vqa_eval import VQAEval

from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.metrics.vqa import normaliser, score_answers, vqa_shares
from lavis_evlgen.models.lemmatizer import lemmatize


@dataclass
class Asked:
    question_id: str
    answers: list[str] = field(default_factory=list)
    question_type: str = ""
    answer_type: str = ""


@pytest.mark.parametrize(("agreeing", "percent"), [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)])
def test_published_accuracies(agreeing, percent):
    """visualqa.org: min(humans that gave the answer / 3, 1), averaged over all 10 choose 9 sets of humans."""
    asked = [Asked("q", ["red"] * agreeing + [f"other {n}" for n in range(10 - agreeing)])]
    assert score_answers(asked, {"q": "red"}, "vqa")["accuracy"] == pytest.approx(percent, abs=1e-6)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Yes", "yes"),
        ("The two dogs!", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("a cat, an owl and the fox", "cat owl and fox"),
        ("dont", "don't"),
        ("it's", "it's"),
        ("youre", "you're"),
        ("red/white", "red white"),
        ("red / white", "red white"),
        ("t-shirt", "t shirt"),
        ("1,000", "1000"),
        ("10.5", "10.5"),
        ("stop.", "stop"),
        ("new\nyork", "new york"),
        (" blue\t", "blue"),
        ("11:30", "11:30"),
        ("black & white", "black & white"),
    ],
)
def test_official_normalisation(said, meant):
    assert normaliser()(said) == meant


WORDS = [
    "yes",
    "no",
    "two",
    "2",
    "a dog",
    "the dog",
    "dog",
    "dont know",
    "red, white",
    "t-shirt",
    "none",
    "1,000",
    "Red",
]


@given(
    st.lists(st.tuples(st.lists(st.sampled_from(WORDS), min_size=2, max_size=10), st.sampled_from(WORDS)), min_size=1)
)
def test_leave_one_out_by_its_definition(cases):
    """An own evaluation of the formula in exact fractions."""
    asked = [Asked(str(n), answers) for n, (answers, _) in enumerate(cases)]
    shares = vqa_shares(asked, {str(n): said for n, (_, said) in enumerate(cases)})
    clean, punctuation = normaliser(), VQAEval().processPunctuation
    for n, (answers, said) in enumerate(cases):
        truth = [punctuation(answer) for answer in answers] if len(set(answers)) > 1 else answers
        agree = [answer == clean(said) for answer in truth]
        expected = sum(min(Fraction(1), Fraction(sum(agree) - own, 3)) for own in agree) / len(agree)
        assert shares[str(n)] == pytest.approx(float(expected), abs=1e-6)


# the VQA repository's example of a result file, Results/OpenEnded_mscoco_train2014_fake_results.json; the annotations
# that it belongs to are 300 MB of the first release, so that the answers below are made up
EXAMPLE = ["donut", "donut", "donut", "yellow", "yellow", "yellow", "yes", "yes", "2", "2"]


def test_the_official_code_on_official_files(tmp_path):
    """From files to accuracies by the official classes, and by ours, overall, by type and by question."""
    draw = random.Random(0)
    said = [*EXAMPLE, *(draw.choice([*WORDS, "11:30", "stop.", "it's", "theyre here"]) for _ in range(300))]
    annotations = [
        {
            "question_id": number,
            "image_id": number // 3,
            "question_type": draw.choice(["what color", "how many", "is the"]),
            "answer_type": draw.choice(["yes/no", "number", "other"]),
            "answers": [
                {"answer_id": n, "answer": draw.choice([answer, answer.lower(), *WORDS]), "answer_confidence": "yes"}
                for n in range(1, 11)
            ],
        }
        for number, answer in enumerate(said, start=1)
    ]
    questions = [{"question_id": a["question_id"], "image_id": a["image_id"], "question": "?"} for a in annotations]
    head = {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": "val2014", "license": {}}
    results = [{"question_id": number, "answer": answer} for number, answer in enumerate(said, start=1)]
    for name, content in (
        ("questions", {**head, "questions": questions}),
        ("annotations", {**head, "annotations": annotations}),
        ("results", results),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    official = VQA(str(tmp_path / "annotations.json"), str(tmp_path / "questions.json"))
    made = official.loadRes(str(tmp_path / "results.json"), str(tmp_path / "questions.json"))
    evaluation = VQAEval(official, made, n=9)
    evaluation.evaluate()

    asked = [
        Asked(str(a["question_id"]), [x["answer"] for x in a["answers"]], a["question_type"], a["answer_type"])
        for a in annotations
    ]
    answers = {str(row["question_id"]): row["answer"] for row in results}
    before = [list(question.answers) for question in asked]
    scores = score_answers(asked, answers)
    assert scores["scoring"] == "vqa" and scores["questions"] == 310
    assert 5 < scores["accuracy"] < 95
    assert scores["accuracy"] == pytest.approx(evaluation.accuracy["overall"], abs=1e-6)
    assert scores["per_answer_type"] == pytest.approx(evaluation.accuracy["perAnswerType"], abs=1e-6)
    assert scores["per_question_type"] == pytest.approx(evaluation.accuracy["perQuestionType"], abs=1e-6)
    for key, share in vqa_shares(asked, answers).items():
        assert 100 * share == pytest.approx(evaluation.evalQA[int(key)], abs=1e-6)
    assert [question.answers for question in asked] == before  # the official code overwrites its ground truth


def test_gqa_as_lavis_and_as_its_own_evaluation():
    asked = [Asked("1", ["no"], "verify"), Asked("2", ["t-shirt"], "query"), Asked("3", ["man"], "query")]
    answers = {"1": "No.", "2": "t-shirt", "3": "the man", "4": "not asked"}
    scores = score_answers(asked, answers, "gqa")
    assert scores["accuracy"] == pytest.approx(200 / 3)  # LAVIS normalises the answer alone: "t shirt"
    assert scores["exact_match"] == pytest.approx(100 / 3)
    assert scores["per_question_type"] == {"query": 50.0, "verify": 100.0}
    chosen = score_answers(asked, answers, "gqa", normalised=False)
    assert chosen["accuracy"] == chosen["exact_match"] == pytest.approx(100 / 3)


def test_own_data_matches_any_of_its_few_answers():
    asked = [Asked("a", ["Two dogs", "a pair"]), Asked("b", ["yes"]), Asked("c", ["blue"]), Asked("d", [])]
    scores = score_answers(asked, {"a": "2 dogs.", "b": "no", "c": "Blue", "d": "anything"})
    assert scores == {"accuracy": pytest.approx(200 / 3), "questions": 3, "scoring": "match"}
    assert score_answers([Asked("a", ["red"] * 4)], {"a": "red"})["accuracy"] == 100
    assert score_answers([Asked("a", ["red"] * 3)], {"a": "red"})["scoring"] == "match"


def test_what_cannot_be_scored():
    with pytest.raises(DataError, match=r"no answer belongs to a question.*\['y'\]"):
        score_answers([Asked("x", ["a"])], {"y": "a"})
    with pytest.raises(ConfigError, match="'vqaa' is unknown; did you mean 'vqa'"):
        score_answers([Asked("x", ["a"])], {"x": "a"}, "vqaa")


# raw answers of OK-VQA and of its papers with the base forms that its annotations have for them, and common answers
BASE_FORMS = {
    "racing": "race",
    "motocross": "motocross",
    "riding": "ride",
    "pony tail": "pony tail",
    "stop signs": "stop sign",
    "hot dogs": "hot dog",
    "surfing": "surf",
    "skiing": "ski",
    "men": "man",
    "children": "child",
    "playing tennis": "play tennis",
    "buses": "bus",
    "glasses": "glass",
    "building": "building",
    "wedding": "wedding",
    "christmas": "christmas",
    "red": "red",
    "2": "2",
    "": "",
    "don't walk": "don't walk",
    "bananas, apples": "banana, apple",
    "hoverboards": "hoverboard",
}


def test_base_forms():
    assert dict(zip(BASE_FORMS, lemmatize(list(BASE_FORMS)), strict=True)) == BASE_FORMS
    assert lemmatize(lemmatize(list(BASE_FORMS))) == list(BASE_FORMS.values())


def test_base_forms_meet_the_annotators():
    """A plural earns what the base form, in which OK-VQA's answers are given, earns."""
    asked = [Asked("q", ["hot dog"] * 5 + ["sausage"] * 5)]
    assert score_answers(asked, {"q": "hot dogs"}, "vqa")["accuracy"] == 0
    assert score_answers(asked, {"q": lemmatize(["hot dogs"])[0]}, "vqa")["accuracy"] == 100
