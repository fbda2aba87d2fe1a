"""CIDEr-D of single captions, its document frequencies fixed by a corpus: the reward of self-critical training.

pycocoevalcap's scorer takes the frequencies from the captions that it is about to score, and computes every reference
anew. What is counted (its ``precook``) and every figure are the same here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from pycocoevalcap.cider.cider_scorer import precook

from lavis_evlgen.errors import DataError
from lavis_evlgen.metrics.tokenizers import java_free_tokens

MAX_N = 4
SIGMA = 6.0  # of the Gaussian penalty on a difference in length
SCALE = 10.0
END = "<end>"  # no tokenizer gives this as one word

Ngram = tuple[str, ...]
Counts = Mapping[Ngram, int]


class CiderD:
    """Scores captions against the references of a corpus of pictures, from 0 to 10 (Vedantam et al. 2015, section 6).

    Args:
        references: captions by image id; the document frequency of an n-gram is the number of pictures that have it.
        end_token: let an end token be the last word of every reference and of every caption that ended of itself, as
            Rennie et al. (2017, appendix D) found crucial: else nothing says that "a dog on a" is not finished, and
            captions that stop in "with a" or "of a" gain n-grams for free. The scores are then those of captions with
            one word more, not those of an evaluation; the shorter the captions, the larger the difference.

    Raises:
        DataError: fewer than two pictures with references; all scores would be 0.
    """

    def __init__(self, references: Mapping[str, Sequence[str]], end_token: bool = True) -> None:
        self.end_token = end_token
        self._references = {
            key: [self._words(text) for text in texts] for key, texts in references.items() if texts
        }  # as words, not vectors: those of a large corpus take gigabytes, and little time to make
        if len(self._references) < 2:
            raise DataError(
                f"CIDEr-D needs the references of at least 2 pictures to tell common words from rare ones, there are "
                f"{len(self._references)}"
            )
        pictures: Counter[Ngram] = Counter()
        for texts in self._references.values():
            pictures.update({ngram for text in texts for ngram in precook(text, MAX_N)})
        self._log_corpus = math.log(len(self._references))
        # what one picture has weighs as much as what none has: most n-grams, and not kept
        self._log_frequency = {ngram: math.log(count) for ngram, count in pictures.items() if count > 1}

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._references

    def __len__(self) -> int:
        return len(self._references)

    def __call__(self, image_id: str, captions: Sequence[str], ended: Sequence[bool] | None = None) -> list[float]:
        """Scores of several captions of one picture.

        Args:
            ended: which captions ended of themselves; all of them by default.

        Raises:
            DataError: the picture has no references.
        """
        if image_id not in self._references:
            known = ", ".join(repr(key) for key in list(self._references)[:3])
            raise DataError(f"no reference captions of image_id {image_id!r}; there are some of {known}, …")
        references = [self._vector(text) for text in self._references[image_id]]
        ended = [True] * len(captions) if ended is None else ended
        vectors = [self._vector(self._words(text, end)) for text, end in zip(captions, ended, strict=True)]
        return [SCALE * sum(_similarity(v, each) for each in references) / len(references) for v in vectors]

    def _words(self, text: str, ended: bool = True) -> str:
        words = java_free_tokens(text)
        return f"{words} {END}" if self.end_token and ended else words

    def _vector(self, words: str) -> "_Vector":
        return _Vector(precook(words, MAX_N), self._log_frequency, self._log_corpus)


class _Vector:
    """tf-idf weights of a caption's n-grams, their norm for every n, and the caption's length."""

    def __init__(self, counts: Counts, log_frequency: Mapping[Ngram, float], log_corpus: float) -> None:
        self.weights = {ngram: count * (log_corpus - log_frequency.get(ngram, 0.0)) for ngram, count in counts.items()}
        squares = [0.0] * MAX_N
        for ngram, weight in self.weights.items():
            squares[len(ngram) - 1] += weight * weight
        self.norms = [math.sqrt(square) for square in squares]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)  # in bigrams, as pycocoevalcap


def _similarity(caption: _Vector, reference: _Vector) -> float:
    """Mean over n of the cosine between both, weights clipped at the reference's, times the penalty on the length."""
    products = [0.0] * MAX_N
    for ngram, weight in caption.weights.items():
        wanted = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, wanted) * wanted
    norms = [a * b for a, b in zip(caption.norms, reference.norms, strict=True)]
    cosines = sum(product / norm for product, norm in zip(products, norms, strict=True) if norm)
    return cosines / MAX_N * math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))
