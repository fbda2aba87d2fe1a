"""Pictures with questions and answers as map-style data sets: one item per question."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import torch

from lavis_evlgen.datasets.bad_samples import BadSample, collate, split_bad
from lavis_evlgen.datasets.image_text import CachedPictures
from lavis_evlgen.datasets.questions import Question
from lavis_evlgen.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

Choice = Literal["random", "most_common", "all"]
Answers = dict[str, list[str]]


class QuestionFiles(CachedPictures):
    """Questions about pictures; ``records`` holds them.

    Attributes:
        candidates: gives the answers to choose from when answers are ranked; None where the data set has no such list.
        scoring: how answers are scored: ``vqa``, ``gqa``, ``match``, or ``auto`` (by the number of annotators).
        server: the server's form of answers, ``vqa`` or ``gqa``; "" for data sets without a server.
        lemmatize: score answers by their base forms, as OK-VQA is.
    """

    records: list[Question]  # type: ignore[assignment]
    candidates: Callable[[], list[str]] | None = None
    scoring = "auto"
    server = ""
    lemmatize = False
    FIELDS: tuple[str, ...] = ()

    def __init__(
        self,
        vis_processor: Callable[[Any], Any] | None = None,
        text_processor: Callable[[str], str] | None = None,
        vis_root: str = ".",
        questions: Iterable[Question] = (),
    ) -> None:
        """``text_processor`` is applied to questions, never to answers; ``vis_root`` is the pictures' folder."""
        super().__init__(vis_processor, text_processor, vis_root)
        self.records = list(questions)

    def ground_truth(self) -> Answers:
        """All annotators' answers by question_id, as they stand in the files, of the questions that have any."""
        return {question.question_id: list(question.answers) for question in self.records if question.answers}

    def _asked(self, index: int) -> dict[str, Any] | BadSample:
        question = self.records[index]
        visual = self._visual(index)
        if isinstance(visual, BadSample):
            return replace(visual, fields=(*visual.fields, "question_id", *self.FIELDS))
        return {
            **visual,
            "text_input": self._text(question.question),
            "image_id": question.image_id,
            "question_id": question.question_id,
        }


class QuestionAnswerDataset(QuestionFiles):
    """For training: ``{"image", "text_input", "text_output", "image_id", "question_id", "answers", "weights"}``.

    ``text_output`` is one answer. Which ones the loss sees is said by ``answers``:

    - ``random``: one of the annotators', drawn anew with torch's generator each time;
    - ``most_common``: the one that most annotators gave;
    - ``all``: every different one, weighted by the share of annotators who gave it, as LAVIS trains BLIP. ``random``
      has the same expectation at the cost of one answer.

    Batches hold answers as LAVIS's do, too: ``answer`` (a flat list), ``weight`` (the weights, 1-D) and ``n_answers``
    (answers of each question, [B]).
    """

    FIELDS = ("text_output", "answers", "weights")

    def __init__(self, *args: Any, answers: Choice = "random", **kwargs: Any) -> None:
        if answers not in get_args(Choice):
            raise ConfigError(f"answers: {answers!r} is unknown; use {', '.join(get_args(Choice))}")
        super().__init__(*args, **kwargs)
        self.choice = answers
        asked = len(self.records)
        self.records = [question for question in self.records if question.answers]
        if not self.records:
            raise DataError(f"none of the {asked} questions to train on has an answer")
        if len(self.records) < asked:
            logger.warning("%d of %d questions have no answer and are left out", asked - len(self.records), asked)

    def __getitem__(self, index: int) -> dict[str, Any] | BadSample:
        asked = self._asked(index)
        if isinstance(asked, BadSample):
            return asked
        answers = self._answers(self.records[index])
        return {**asked, "text_output": next(iter(answers)), "answers": list(answers), "weights": [*answers.values()]}

    def _answers(self, question: Question) -> dict[str, float]:
        """The answers to train on with their weights, which add up to 1."""
        if self.choice == "all":
            counts = Counter(question.answers)
            return {answer: count / counts.total() for answer, count in counts.most_common()}
        if self.choice == "most_common":
            return {question.most_common: 1.0}
        return {question.answers[int(torch.randint(len(question.answers), ()))]: 1.0}

    def collater(self, samples: Sequence[Any]) -> dict[str, Any]:
        good, _ = split_bad(samples)
        # lists of different lengths, which torch's collation refuses
        rest = [
            {key: sample[key] for key in sample if key not in ("answers", "weights")}
            if isinstance(sample, dict) else sample
            for sample in samples
        ]  # fmt: skip
        batch = collate(rest)
        if not good:
            return batch
        return {
            **batch,
            "answer": [answer for sample in good for answer in sample["answers"]],
            "weight": torch.tensor([weight for sample in good for weight in sample["weights"]]),
            "n_answers": torch.tensor([len(sample["answers"]) for sample in good]),
        }


class QuestionEvalDataset(QuestionFiles):
    """For evaluation: ``{"image", "text_input", "image_id", "question_id", "instance_id"}``, or a BadSample.

    ``text_output``, the most common answer, is there as well if every question of the split has answers; it serves the
    held-out loss.
    """

    FIELDS = ("text_output",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        without = sum(not question.answers for question in self.records)
        self.answered = not without
        if without:
            logger.warning("%d of %d questions have no answer; these are not scored", without, len(self.records))

    def __getitem__(self, index: int) -> dict[str, Any] | BadSample:
        asked = self._asked(index)
        if isinstance(asked, BadSample):
            return asked
        answer = {"text_output": self.records[index].most_common} if self.answered else {}
        return {**asked, **answer, "instance_id": str(index)}
