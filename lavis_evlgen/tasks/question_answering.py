"""Visual question answering on any data set: fine-tuning on answers, open-ended and ranked answers, their scores."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lavis.common.registry import registry
from omegaconf import DictConfig

from lavis_evlgen.asking import is_question_prompt
from lavis_evlgen.datasets.questions import read_answer_list
from lavis_evlgen.errors import ConfigError, DataError, nearest
from lavis_evlgen.metrics.vqa import score_answers
from lavis_evlgen.registration_tools import register
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.tasks.generation import GenerationTask, Rows

logger = logging.getLogger(__name__)

METHODS = ("generate", "rank")
TRAIN = "train"  # run.answer_list: the answers of the training splits


@register("task", "evlgen_vqa", "vqa", "gqa")
class QuestionAnsweringTask(GenerationTask):
    """Trains on answers to questions; evaluates by the data set's own rule (VQA v2, OK-VQA, GQA or exact match).

    It takes the place of LAVIS's ``vqa`` and ``gqa``: ids may be any text, splits may lack answers, no result file
    overwrites another, and answers to test splits are written as their servers want them.
    """

    RUN_KEYS = (
        *GenerationTask.RUN_KEYS,
        "inference_method",
        "num_ans_candidates",
        "answer_list",
        "length_penalty",
        "lemmatize",
    )
    id_key = "question_id"
    nouns = "answers"

    def __init__(
        self,
        num_beams: int = 3,
        max_len: int = 10,
        min_len: int = 1,
        evaluate: bool = False,
        report_metric: bool = True,
        *,
        prompt: str = "",
        inference_method: str = "generate",
        num_ans_candidates: int = 128,
        answer_list: str | Sequence[str] | None = None,
        length_penalty: float | None = None,
        lemmatize: bool | None = None,
    ) -> None:
        """
        Args:
            num_beams: see `GenerationTask`, as for the next four.
            max_len: most new tokens of an answer.
            min_len: fewest, the end token counted.
            evaluate: whether this is an evaluation without training.
            report_metric: false only writes the answers.
            prompt: what a question becomes, in training and evaluation, such as ``"Question: {} Short answer:"``.
            inference_method: ``generate``, or ``rank`` to choose the likeliest answer of a list.
            num_ans_candidates: how many answers of the list are ranked, by their first tokens; 0 for all.
            answer_list: the list: a file, ``train`` for the answers of the training splits (the most frequent first),
                or the answers themselves. Absent, it is the data set's own.
            length_penalty: of beam search, where it is not to be the model's own.
            lemmatize: whether answers are reduced to base forms; absent, as the data set says (OK-VQA: yes).
        """
        super().__init__(num_beams, max_len, min_len, evaluate, report_metric)
        if prompt and not is_question_prompt(prompt):
            raise ConfigError(f"run.prompt: {prompt!r} must hold {{}} once, where the question goes")
        if inference_method not in METHODS:
            raise ConfigError(
                f"run.inference_method: {inference_method!r} is unknown{nearest(inference_method, METHODS)}"
            )
        self.prompt = prompt
        self.method = inference_method
        self.answer_list = answer_list if answer_list is None or isinstance(answer_list, str) else list(answer_list)
        self.lemmatize = lemmatize
        self.arguments: dict[str, Any] = {
            "num_beams": num_beams,
            "max_len": max_len,
            "min_len": min_len,
            "inference_method": inference_method,
            "num_ans_candidates": num_ans_candidates,
            "prompt": prompt,
        }
        if length_penalty is not None:
            self.arguments["length_penalty"] = length_penalty
        self._candidates: list[str] | None = None

    def build_datasets(self, cfg: Any) -> dict[str, Any]:
        datasets = super().build_datasets(cfg)
        if self.method == "rank" and self.answer_list == TRAIN:
            splits = RunSettings.from_config(cfg.run_cfg).train_splits
            self.answer_list = _answers_of([of[split] for of in datasets.values() for split in splits if split in of])
        return datasets

    def train_step(self, model: torch.nn.Module, samples: dict[str, Any]) -> torch.Tensor:
        if self.prompt and "text_input" in samples:
            samples = {**samples, "text_input": [self.prompt.format(question) for question in samples["text_input"]]}
        return super().train_step(model, samples)

    def evaluation(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        self._candidates = None  # another split may have another list
        return super().evaluation(*args, **kwargs)

    def valid_step(self, model: Any, samples: dict[str, Any]) -> list[dict[str, Any]]:
        """Answers of a batch as ``{"question_id", "image_id", "question", "answer"}``."""
        if not hasattr(model, "predict_answers"):
            raise ConfigError(
                f"run.task: {type(model).__name__} has no predict_answers(), so it cannot answer questions"
            )
        lemmatize = getattr(self._dataset, "lemmatize", False) if self.lemmatize is None else self.lemmatize
        if self.method == "rank" and self._candidates is None:
            self._candidates = self._answers_to_rank()
        asked = {**samples, "apply_lemmatizer": lemmatize}
        answers = model.predict_answers(samples=asked, answer_list=self._candidates, **self.arguments)
        columns = (_texts(samples["question_id"]), _texts(samples["image_id"]), samples["text_input"], answers)
        return [
            {"question_id": key, "image_id": image_id, "question": question, "answer": answer}
            for key, image_id, question, answer in zip(*columns, strict=True)
        ]

    def score(self, rows: Rows, dataset: Any, split_name: str) -> dict[str, Any]:
        """Accuracy in percent, also by type, and ``agg_metrics``: the accuracy."""
        answers = {key: row["answer"] for key, row in rows.items()}
        if not answers:
            return self.unscored(split_name, "readable pictures")
        if not (hasattr(dataset, "ground_truth") and answers.keys() & dataset.ground_truth().keys()):
            return self.unscored(split_name, "ground truth")
        scores = score_answers(dataset.records, answers, dataset.scoring, self.method == "generate")
        return {**scores, "agg_metrics": scores["accuracy"]}

    def files(self, rows: Rows, dataset: Any) -> dict[str, Any]:
        """The answers with their questions; for data sets with a server also its form, with "" where none was given."""
        files = super().files(rows, dataset)
        if getattr(dataset, "server", ""):
            given = {question.question_id: "" for question in dataset.records}
            given |= {key: row["answer"] for key, row in rows.items()}
            files["_submission"] = [_submitted(dataset.server, *pair) for pair in given.items()]
        return files

    def _answers_to_rank(self) -> list[str]:
        """The list that answers of the present split are chosen from."""
        if isinstance(self.answer_list, str):
            return read_answer_list(self.answer_list)
        if self.answer_list is not None:
            return self.answer_list
        own = getattr(self._dataset, "candidates", None)
        if own is None:
            raise ConfigError(
                "run.inference_method: rank needs answers to choose from; set run.answer_list to a file of answers, to "
                f"a list, or to `{TRAIN}` for the answers of the training split"
            )
        return own()


def question_prompt(config: Mapping[str, Any]) -> str | None:
    """How a run's configuration has questions asked, {} being the question; None where its task captions."""
    run = config.get("run")
    if not isinstance(run, Mapping | DictConfig) or not isinstance(run.get("task"), str):
        return None
    task = registry.get_task_class(run["task"])
    if not (isinstance(task, type) and issubclass(task, QuestionAnsweringTask)):
        return None
    prompt = run.get("prompt") or "{}"
    return prompt if is_question_prompt(prompt) else None


def _texts(ids: Any) -> list[str]:
    """Ids of a batch as texts; LAVIS's own data sets give numbers as a tensor."""
    return [str(each) for each in (ids.tolist() if isinstance(ids, torch.Tensor) else ids)]


def _answers_of(datasets: Sequence[Any]) -> list[str]:
    """The different answers of data sets, the most frequent first."""
    counts = Counter(answer for of in datasets for answers in of.ground_truth().values() for answer in answers)
    if not counts:
        raise DataError(f"run.answer_list: {TRAIN} finds no answers; no data set has a split of run.train_splits")
    return [answer for answer, _ in counts.most_common()]


def _submitted(form: str, question_id: str, answer: str) -> dict[str, Any]:
    """An answer as VQA's server (also for OK-VQA) or GQA's wants it."""
    if form == "gqa":
        return {"questionId": question_id, "prediction": answer}
    return {"question_id": int(question_id) if question_id.isdecimal() else question_id, "answer": answer}
