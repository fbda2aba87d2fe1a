import gzip
import json
import random
import shutil
from pathlib import Path

import pycocoevalcap.eval
import pytest
from pycocoevalcap.eval import COCOEvalCap
from pycocotools.coco import COCO

from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.metrics import tokenizers
from lavis_evlgen.metrics.captions import exact_match, score_captions
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, PTB

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="no Java on this machine")

REFERENCES = {
    "video7010": [
        "A man is riding a horse.",
        "A man rides a brown horse on the beach.",
        "Someone on horseback, near the sea",
    ],
    "2": ["Two dogs play in the snow", "two black dogs are playing with a ball in the snow."],
    "a/b": ["A red double-decker bus is parked next to a building.", "the bus is parked on the street"],
    "x 4": ["a woman's hand holding a phone", "A hand holds a smartphone (black)."],
    "5": ["A plate of food with rice, beans and chicken", "rice and chicken on a white plate"],
}
CAPTIONS = {
    "video7010": "a man riding a horse on the beach",
    "2": "Two dogs playing in the snow.",
    "a/b": "a bus parked in front of a building",
    "x 4": "a woman's hand holding a phone",
    "5": "a plate of food on a table",
}
# pycocoevalcap 1.2's PTBTokenizer and scorers on these captions
GOLDEN = {
    "CIDEr": 2.909641094034955,
    "Bleu_1": 0.8611111110632717,
    "Bleu_2": 0.7453559924568515,
    "Bleu_3": 0.6171379838093535,
    "Bleu_4": 0.5090608483322511,
    "ROUGE_L": 0.7555938695425909,
    "METEOR": 0.3734556854237287,
}


@pytest.mark.parametrize("tokenizer", ["java_free", pytest.param("ptb", marks=needs_java)])
def test_scores_are_those_of_pycocoevalcap(tokenizer):
    scores = score_captions(REFERENCES, CAPTIONS, tokenizer=tokenizer)
    for name in ("CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L"):
        assert scores[name] == pytest.approx(GOLDEN[name], abs=1e-9)
    assert scores["exact_match"] == 0.2
    assert scores["captions"] == 5
    assert scores["tokenizer"] == {"java_free": JAVA_FREE, "ptb": PTB}[tokenizer]
    assert "METEOR" not in scores and "SPICE" not in scores


@pytest.mark.slow  # METEOR's Java program loads its tables for half a minute
@needs_java
def test_meteor_comes_when_asked_for():
    scores = score_captions(REFERENCES, CAPTIONS, metrics=["METEOR"])
    assert scores["METEOR"] == pytest.approx(GOLDEN["METEOR"], abs=1e-9)
    assert set(scores) == {"METEOR", "captions", "tokenizer"}


def test_only_pictures_with_caption_and_reference_are_scored():
    references = {**REFERENCES, "uncaptioned": ["x"], "bare": []}
    captions = {**CAPTIONS, "unknown": "a cat", "bare": "a dog"}
    scores = score_captions(references, captions, tokenizer="java_free")
    assert scores["captions"] == 5
    assert scores["CIDEr"] == pytest.approx(GOLDEN["CIDEr"], abs=1e-9)


def test_empty_captions_score_nothing_and_break_nothing():
    scores = score_captions({"1": ["a cat"], "2": ["a dog"]}, {"1": "", "2": "a dog"}, tokenizer="java_free")
    assert scores["exact_match"] == 0.5
    assert 0 < scores["Bleu_1"] < 1


def test_exact_match_ignores_case_punctuation_and_spacing():
    references = {"1": ["A small cat."], "2": ["a dog", "The dog!"], "3": ["a bird"]}
    assert exact_match(references, {"1": "a  small cat", "2": "the dog", "3": "a birds"}) == pytest.approx(2 / 3)


def test_wrong_requests_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="metrics: 'cidre' is unknown; did you mean 'cider'"):
        score_captions(REFERENCES, CAPTIONS, metrics=["cidre"])
    with pytest.raises(DataError, match="no caption has a reference: captions are of 'x', references of 'video7010'"):
        score_captions(REFERENCES, {"x": "a cat"})
    monkeypatch.setattr(tokenizers.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="meteor needs `java`"):
        score_captions(REFERENCES, CAPTIONS, metrics=["meteor"])
    assert score_captions(REFERENCES, CAPTIONS)["tokenizer"] == "treebank (no Java)"


def corpus(pictures: int) -> tuple[dict[str, list[str]], dict[str, str]]:
    """References (two to six) and captions of many pictures, from real sentences: words left out, swapped, repeated."""
    rng = random.Random(0)
    file = Path(__file__).parent.parent / "fixtures" / "sentences" / "wordnet.txt.gz"
    real = [text for text in gzip.decompress(file.read_bytes()).decode().splitlines() if 5 <= len(text.split()) <= 20]

    def reworded(text: str) -> str:
        words = text.split()
        for _ in range(rng.randint(1, 4)):
            place, other = rng.randrange(len(words)), rng.randrange(len(words))
            change = rng.choice(("drop", "swap", "repeat", "take"))
            if change == "drop" and len(words) > 4:
                del words[place]
            elif change == "swap":
                words[place], words[other] = words[other], words[place]
            elif change == "repeat":
                words.insert(place, words[other])
            else:
                words[place] = rng.choice(rng.choice(real).split())
        return " ".join(words) + rng.choice(("", ".", "!"))

    chosen = {str(1000 + n): text for n, text in enumerate(rng.sample(real, pictures))}
    references = {key: [text, *(reworded(text) for _ in range(rng.randint(1, 5)))] for key, text in chosen.items()}
    return references, {key: reworded(text) for key, text in chosen.items()}


class Nothing:
    """A scorer that does not score."""

    def compute_score(self, references, captions):
        return 0.0, [0.0] * len(captions)

    def method(self) -> str:
        return "nothing"


def by_coco_eval_cap(references, captions, folder, monkeypatch, left_out) -> dict[str, float]:
    """pycocoevalcap's own evaluation of COCO files, from reading them to the scores, without some of its scorers."""
    for name in left_out:
        monkeypatch.setattr(pycocoevalcap.eval, name, Nothing)
    annotations = [{"image_id": int(key), "caption": text} for key, texts in references.items() for text in texts]
    truth = {
        "images": [{"id": int(key)} for key in references],
        "annotations": [{"id": number, **row} for number, row in enumerate(annotations)],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "made.json").write_text(
        json.dumps([{"image_id": int(key), "caption": text} for key, text in captions.items()])
    )
    coco = COCO(str(folder / "truth.json"))
    evaluation = COCOEvalCap(coco, coco.loadRes(str(folder / "made.json")))
    evaluation.evaluate()
    return evaluation.eval


METRICS = ("CIDEr", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L")


@needs_java
def test_scores_of_400_pictures_are_coco_eval_caps_own_with_its_meteor_and_spice_replaced(tmp_path, monkeypatch):
    references, captions = corpus(400)
    expected = by_coco_eval_cap(references, captions, tmp_path, monkeypatch, ("Meteor", "Spice"))
    scores = score_captions(references, captions, tokenizer="ptb")
    for name in METRICS:
        assert scores[name] == pytest.approx(expected[name], abs=1e-6), name
    assert 0.1 < scores["Bleu_4"] < 0.9 and 1 < scores["CIDEr"] < 9
    without_java = score_captions(references, captions, tokenizer="java_free")
    for name in METRICS:
        assert without_java[name] == pytest.approx(expected[name], abs=1e-3), name


@pytest.mark.slow  # METEOR's Java program loads its tables for half a minute
@needs_java
def test_meteor_of_400_pictures_is_coco_eval_caps_own_with_its_spice_replaced(tmp_path, monkeypatch):
    references, captions = corpus(400)
    expected = by_coco_eval_cap(references, captions, tmp_path, monkeypatch, ("Spice",))
    scores = score_captions(references, captions, metrics=["meteor"], tokenizer="ptb")
    assert scores["METEOR"] == pytest.approx(expected["METEOR"], abs=1e-6)
    assert 0.1 < scores["METEOR"] < 0.9
