"""Do captions repeat each other, or themselves? Signs of a model that does not look, or does not come to an end."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lavis_evlgen.metrics.captions import normalise

NGRAM = 3  # words


def repetition(captions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Shares from 0 to 1 that tell of repetition, letter case and punctuation aside.

    Args:
        captions: one caption by image id.
        references: reference captions by image id.

    Returns:
        ``repeated_captions``: :func:`repeated_share` of the captions; ``repeated_references``: that of the pictures'
        first references, for comparison; ``repeated_ngrams``: :func:`repeated_ngrams` of the captions.
    """
    first = [references[key][0] for key in captions if references.get(key)]
    return {
        "repeated_captions": repeated_share(captions.values()),
        "repeated_references": repeated_share(first),
        "repeated_ngrams": repeated_ngrams(captions.values()),
    }


def repeated_share(texts: Iterable[str]) -> float:
    """Share of the texts that equal another one; 0 where there is none."""
    counts = Counter(map(normalise, texts))
    return sum(count for count in counts.values() if count > 1) / max(1, counts.total())


def repeated_ngrams(texts: Iterable[str], n: int = NGRAM) -> float:
    """Share of all runs of ``n`` words that stood in the same text before; 0 where no text has ``n`` words."""
    total = distinct = 0
    for text in texts:
        words = normalise(text).split()
        runs = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
        total += len(runs)
        distinct += len(set(runs))
    return (total - distinct) / max(1, total)
