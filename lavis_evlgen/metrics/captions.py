"""Caption metrics on any ids: CIDEr, BLEU, ROUGE-L, exact match; METEOR and SPICE where they are asked for.

The scorers are pycocoevalcap's, called one by one: its ``COCOEvalCap.evaluate`` always runs SPICE, which downloads a
parser, and its COCO classes take numeric ids only.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from lavis_evlgen.errors import ConfigError, DataError, EvlgenError, nearest
from lavis_evlgen.metrics.tokenizers import Captions, choose_tokenizer, java, tokenize

Scores = dict[str, float]

DEFAULT_METRICS = ("cider", "bleu", "rouge_l", "exact_match")


def score_captions(
    ground_truth: Mapping[str, Sequence[str]],
    captions: Mapping[str, str],
    metrics: Sequence[str] | None = None,
    tokenizer: str = "auto",
) -> dict[str, Any]:
    """Corpus scores of one caption per picture.

    Args:
        ground_truth: reference captions by image id; pictures without a caption are left out.
        captions: one caption by image id; those without any reference are left out.
        metrics: of cider, bleu, rouge_l, exact_match (the default) and meteor, spice (need Java).
        tokenizer: ``ptb`` (Java), ``java_free``, or ``auto``: ptb where Java is installed.

    Returns:
        Scores from 0 to 1 (CIDEr 0 to 10, and 0 for a single picture) under LAVIS's names (``CIDEr``, ``Bleu_1`` to
        ``Bleu_4``, ``ROUGE_L``, ``METEOR``, ``SPICE``) and ``exact_match``; ``captions``, how many were scored;
        ``tokenizer``, its full name.

    Raises:
        ConfigError: unknown metric or tokenizer, or one that needs Java where there is none.
        DataError: no caption has a reference.
    """
    asked = check_metrics(DEFAULT_METRICS if metrics is None else metrics)
    name = choose_tokenizer(tokenizer)
    ids = [key for key, references in ground_truth.items() if key in captions and references]
    if not ids:
        raise DataError(
            f"no caption has a reference: captions are of {_some(captions)}, references of {_some(ground_truth)}; "
            "both must use the same image ids"
        )
    references = {key: list(ground_truth[key]) for key in ids}
    made = {key: captions[key] for key in ids}
    scores: dict[str, Any] = {}
    if any(metric in SCORERS for metric in asked):
        tokens = tokenize(references, name), tokenize({key: [text] for key, text in made.items()}, name)
        for metric in asked:
            if metric in SCORERS:
                scores |= SCORERS[metric](*tokens)
    if "exact_match" in asked:
        scores["exact_match"] = exact_match(references, made)
    return {**scores, "captions": len(ids), "tokenizer": name}


def exact_match(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> float:
    """Share of captions equal to one of their references, letter case, punctuation and spacing aside."""
    hits = [normalise(text) in {normalise(r) for r in references[key]} for key, text in captions.items()]
    return sum(hits) / len(hits)


def normalise(text: str) -> str:
    """The words of a text in lower case, one space apart."""
    return " ".join(re.findall(r"\w+", text.lower()))


def check_metrics(metrics: str | Sequence[str]) -> list[str]:
    """The metrics' own names, each once; raises ConfigError for an unknown one and for one that lacks its Java."""
    known = (*SCORERS, "exact_match")
    names = [str(metric).lower().replace("-", "_") for metric in ([metrics] if isinstance(metrics, str) else metrics)]
    for name in names:
        if name not in known:
            raise ConfigError(f"metrics: {name!r} is unknown{nearest(name, known)}")
        if name in ("meteor", "spice") and not java():
            raise ConfigError(f"metrics: {name} needs `java` on the PATH; install a Java runtime or leave it out")
    return list(dict.fromkeys(names))


def _some(items: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in list(items)[:3]) + (", …" if len(items) > 3 else "") or "nothing"


def _cider(references: Captions, captions: Captions) -> Scores:
    return {"CIDEr": float(Cider().compute_score(references, captions)[0])}


def _bleu(references: Captions, captions: Captions) -> Scores:
    scores, _ = Bleu(4).compute_score(references, captions, verbose=0)
    return {f"Bleu_{n}": float(score) for n, score in enumerate(scores, start=1)}


def _rouge_l(references: Captions, captions: Captions) -> Scores:
    return {"ROUGE_L": float(Rouge().compute_score(references, captions)[0])}


def _meteor(references: Captions, captions: Captions) -> Scores:
    from pycocoevalcap.meteor.meteor import Meteor

    return {"METEOR": float(Meteor().compute_score(references, captions)[0])}


def _spice(references: Captions, captions: Captions) -> Scores:
    from pycocoevalcap.spice.spice import Spice

    try:
        return {"SPICE": float(Spice().compute_score(references, captions)[0])}
    except Exception as error:  # its download, its zip file or its Java process
        raise EvlgenError(
            f"SPICE could not run ({error}): it downloads Stanford CoreNLP once and needs Java 8 to 11; "
            "leave it out of run.metrics"
        ) from error


SCORERS: dict[str, Callable[[Captions, Captions], Scores]] = {
    "cider": _cider,
    "bleu": _bleu,
    "rouge_l": _rouge_l,
    "meteor": _meteor,
    "spice": _spice,
}
