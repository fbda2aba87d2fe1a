import shutil

import pytest

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
