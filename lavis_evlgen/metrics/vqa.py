"""Accuracy of answers as VQA v2 and GQA count it, in percent.

The rules of VQA v2 are those of its official evaluation code, of which LAVIS ships a copy (``lavis.common.vqa_tools``,
equal to the official one but for its layout): that code itself is called here.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from statistics import fmean
from types import SimpleNamespace
from typing import Any, Protocol

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its regular expressions have invalid escapes
    from lavis.common.vqa_tools.vqa_eval import VQAEval

from lavis_evlgen.errors import ConfigError, DataError, nearest

Scores = dict[str, Any]

DECIMALS = 10  # the official code rounds to two by default
LEAST_ANNOTATORS = 4  # with fewer, not even an answer that all of them gave is fully right


class Answered(Protocol):
    """A question with its annotators' answers."""

    question_id: str
    answers: list[str]
    question_type: str
    answer_type: str


def score_answers(
    questions: Iterable[Answered], answers: Mapping[str, str], scoring: str = "auto", normalised: bool = True
) -> Scores:
    """Accuracy of one answer per question, over the questions that have both an answer and annotators' answers.

    Args:
        questions: what was asked.
        answers: the model's answer by question_id.
        scoring: ``vqa``, ``gqa``, ``match`` (the functions below), or ``auto``: vqa where every question has at least
            four annotators' answers, else match.
        normalised: False takes the model's answers as they are where the rule is GQA's, as LAVIS does with answers that
            were chosen from a list.

    Returns:
        ``accuracy`` in percent, ``questions``, how many were scored, and ``scoring``, the rule; where questions have
        types, ``per_answer_type`` and ``per_question_type``. GQA has ``exact_match`` as well.

    Raises:
        ConfigError: unknown scoring. DataError: no answer belongs to a question with annotators' answers.
    """
    asked = [question for question in questions if question.answers and question.question_id in answers]
    if not asked:
        raise DataError(f"no answer belongs to a question of the split; question_ids of answers: {list(answers)[:3]}")
    if scoring == "auto":
        scoring = "vqa" if min(len(question.answers) for question in asked) >= LEAST_ANNOTATORS else "match"
    extra: Scores = {}
    if scoring == "vqa":
        shares = vqa_shares(asked, answers)
    elif scoring == "match":
        shares = match_shares(asked, answers)
    elif scoring == "gqa":
        shares = equal_shares(asked, answers, normaliser() if normalised else str)
        extra = {"exact_match": _percent(equal_shares(asked, answers, str))}
    else:
        raise ConfigError(f"scoring: {scoring!r} is unknown{nearest(scoring, ('auto', 'vqa', 'gqa', 'match'))}")
    return {
        "accuracy": _percent(shares),
        **extra,
        **_per_type(asked, shares, "answer_type"),
        **_per_type(asked, shares, "question_type"),
        "questions": len(asked),
        "scoring": scoring,
    }


def vqa_shares(asked: Iterable[Answered], answers: Mapping[str, str]) -> dict[str, float]:
    """VQA v2's accuracy of each question: min(agreeing annotators / 3, 1), averaged over leaving each annotator out.

    The model's answers are normalised: punctuation, articles, number words, contractions.
    """
    truth = {
        question.question_id: {
            "answers": [{"answer_id": number, "answer": text} for number, text in enumerate(question.answers, start=1)],
            "question_type": question.question_type,
            "answer_type": question.answer_type,
        }
        for question in asked
    }
    evaluation = VQAEval(n=DECIMALS)
    evaluation.vqa = SimpleNamespace(qa=truth)
    evaluation.vqaRes = SimpleNamespace(qa={key: {"answer": answers[key]} for key in truth})
    with redirect_stdout(io.StringIO()):  # it draws a bar, 100 questions a time
        evaluation.evaluate(list(truth))
    return {key: percent / 100 for key, percent in evaluation.evalQA.items()}


def match_shares(asked: Iterable[Answered], answers: Mapping[str, str]) -> dict[str, float]:
    """1 for each question whose answer equals one of the annotators', both normalised by VQA's rules, else 0."""
    clean = normaliser()
    return {
        question.question_id: float(clean(answers[question.question_id]) in set(map(clean, question.answers)))
        for question in asked
    }


def equal_shares(
    asked: Iterable[Answered], answers: Mapping[str, str], clean: Callable[[str], str]
) -> dict[str, float]:
    """1 for each question whose cleaned answer is GQA's answer to the letter, else 0.

    GQA's own evaluation takes answers as they are; LAVIS, and with it the papers, normalises open-ended ones by VQA's
    rules before.
    """
    return {
        question.question_id: float(clean(answers[question.question_id]) == question.answers[0]) for question in asked
    }


def normaliser() -> Callable[[str], str]:
    """VQA's official normalisation of one answer."""
    rules = VQAEval()

    def clean(answer: str) -> str:
        answer = answer.replace("\n", " ").replace("\t", " ").strip()
        return rules.processDigitArticle(rules.processPunctuation(answer))

    return clean


def _per_type(asked: Iterable[Answered], shares: Mapping[str, float], attribute: str) -> Scores:
    """``{"per_ATTRIBUTE": {type: percent}}``, or nothing where no question has a type."""
    types: dict[str, list[float]] = {}
    for question in asked:
        types.setdefault(getattr(question, attribute), []).append(shares[question.question_id])
    figures = {name: round(100 * fmean(found), DECIMALS) for name, found in sorted(types.items()) if name}
    return {f"per_{attribute}": figures} if figures else {}


def _percent(shares: Mapping[str, float]) -> float:
    return round(100 * fmean(shares.values()), DECIMALS)
