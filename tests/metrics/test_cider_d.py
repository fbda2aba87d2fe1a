import random
import time

import pytest
from pycocoevalcap.cider.cider_scorer import CiderScorer

from lavis_evlgen.errors import DataError
from lavis_evlgen.metrics.captions import score_captions
from lavis_evlgen.metrics.cider_d import END, CiderD
from lavis_evlgen.metrics.tokenizers import java_free_tokens

NOUNS = ["dog", "cat", "horse", "boat", "tree", "man", "woman", "child", "ball", "car"]
VERBS = ["runs", "sits", "jumps", "stands", "sleeps", "plays"]
PLACES = ["on the grass", "in a red boat", "near the old tree", "at the beach", "under a bridge"]


def sentence(rng: random.Random) -> str:
    text = f"a {rng.choice(NOUNS)} {rng.choice(VERBS)} {rng.choice(PLACES)}"
    return f"{text}, {rng.choice(PLACES)}." if rng.random() < 0.4 else text.capitalize()


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[str]]:
    rng = random.Random(0)
    return {f"image{n}": [sentence(rng) for _ in range(rng.randint(1, 5))] for n in range(60)}


def captions(corpus: dict[str, list[str]]) -> dict[str, str]:
    """One for each picture: new, copied, cut off, repeated, a single word, none, a word that no reference has."""
    rng = random.Random(1)
    made = {}
    for number, (key, references) in enumerate(corpus.items()):
        words = references[0].split()
        odd = [sentence(rng), references[-1], " ".join(words[:4]), "a dog a dog a dog a dog", "dog", "", "zebra sits"]
        made[key] = odd[number % len(odd)]
    return made


def pycocoevalcap(references: dict[str, list[str]], made: dict[str, str], end: str = "") -> list[float]:
    scorer = CiderScorer()
    for key, texts in references.items():
        scorer += (java_free_tokens(made[key]) + end, [java_free_tokens(text) + end for text in texts])
    return list(scorer.compute_score()[1])


@pytest.mark.parametrize("end_token", [False, True])
def test_equals_pycocoevalcap_on_its_own_corpus(corpus, end_token):
    made = captions(corpus)
    ours = CiderD(corpus, end_token)
    found = [ours(key, [caption])[0] for key, caption in made.items()]
    expected = pycocoevalcap(corpus, made, f" {END}" if end_token else "")
    assert found == pytest.approx(expected, abs=1e-6)
    assert max(found) > 5 and min(found) == 0


def test_document_frequencies_stay_those_of_the_corpus(corpus):
    """A caption's score does not depend on which others are scored; pycocoevalcap's does."""
    made = captions(corpus)
    part = dict(list(corpus.items())[:5])
    ours = CiderD(corpus, end_token=False)
    whole = pycocoevalcap(corpus, made)[:5]
    assert [ours(key, [made[key]])[0] for key in part] == pytest.approx(whole, abs=1e-6)
    assert pycocoevalcap(part, made) != pytest.approx(whole, abs=1e-2)


def test_mean_over_a_corpus_is_the_evaluations_cider(corpus):
    made = captions(corpus)
    ours = CiderD(corpus, end_token=False)
    scores = [ours(key, [caption])[0] for key, caption in made.items()]
    expected = score_captions(corpus, made, ["cider"], "java_free")["CIDEr"]
    assert sum(scores) / len(scores) == pytest.approx(expected, abs=1e-6)


def test_by_hand():
    """Two pictures, one reference each: "a b" and "a c". "a" is in both and weighs nothing, the rest log 2.

    Unigrams: caption "a b" has (0, log 2) as its reference: cosine 1. Bigrams: cosine 1. Longer ones: none, 0.
    """
    score = CiderD({"1": ["a b"], "2": ["a c"]}, end_token=False)
    assert score("1", ["a b", "a c", "b"]) == pytest.approx([10 * 2 / 4, 0.0, 10 * 1 / 4 * 2.718281828 ** (-1 / 72)])


def test_an_end_token_tells_finished_captions_from_cut_ones():
    references = {"1": ["a dog on a boat"], "2": ["a cat on a tree"], "3": ["a boat"]}
    plain, ended = CiderD(references, end_token=False), CiderD(references)
    whole, cut = "a dog on a boat", "a dog on a"
    assert plain("1", [whole])[0] == ended("1", [whole])[0] == pytest.approx(10.0)
    assert ended("1", [cut])[0] < plain("1", [cut])[0]
    # the same words score less when the limit on the length ended them
    said, stopped = ended("1", [whole, whole], ended=[True, False])
    assert said == pytest.approx(10.0) and stopped < 9.5
    assert plain("1", [whole, whole], ended=[True, False]) == pytest.approx([10.0, 10.0])


def test_letter_case_and_punctuation_do_not_count():
    score = CiderD({"1": ["A dog, on the grass."], "2": ["a cat"]})
    assert score("1", ["a dog on the grass", "A DOG ON THE GRASS!"]) == pytest.approx([10.0, 10.0])


def test_pictures_without_references(corpus):
    score = CiderD({**corpus, "bare": []})
    assert len(score) == 60 and "image0" in score and "bare" not in score
    with pytest.raises(DataError, match="no reference captions of image_id 'bare'; there are some of 'image0'"):
        score("bare", ["a dog"])
    with pytest.raises(DataError, match="at least 2 pictures.* there are 1"):
        CiderD({"1": ["a dog"], "2": []})


def test_it_is_no_bottleneck():
    """Captions of MSR-VTT's shape: 20 references each, 16 videos with 5 draws in a step, well below a step's second."""
    rng = random.Random(2)
    score = CiderD({str(n): [sentence(rng) for _ in range(20)] for n in range(200)})
    made = [[sentence(rng) for _ in range(5)] for _ in range(16)]
    began = time.process_time()
    for n, texts in enumerate(made):
        score(str(n), texts)
    assert time.process_time() - began < 0.5
