"""Captioning of any data set: string ids, references from the data set itself, no Java needed."""

import inspect
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.metrics.attributes import ATTRIBUTES, attribute_scores
from lavis_evlgen.metrics.captions import DEFAULT_METRICS, check_metrics, score_captions
from lavis_evlgen.metrics.repetition import repetition
from lavis_evlgen.metrics.subsets import check_subset, subset_ids, subset_scores
from lavis_evlgen.metrics.tokenizers import JAVA_FREE, choose_tokenizer
from lavis_evlgen.registration_tools import register
from lavis_evlgen.tasks.generation import GenerationTask, Rows

logger = logging.getLogger(__name__)

# run keys that are handed to generate() only when they are set: not every LAVIS model takes them
OPTIONAL_ARGUMENTS = ("use_nucleus_sampling", "top_p", "temperature", "length_penalty", "repetition_penalty")


@register("task", "evlgen_captioning", "captioning")
class CaptioningTask(GenerationTask):
    """Trains with the model's loss; evaluates by generated captions against the data set's own references.

    It takes the place of LAVIS's ``captioning``, which scores against COCO alone and needs numeric ids and Java.
    """

    RUN_KEYS = (*GenerationTask.RUN_KEYS, *OPTIONAL_ARGUMENTS, "metrics", "metrics_tokenizer", "attributes", "subset")

    def __init__(
        self,
        num_beams: int = 5,
        max_len: int = 30,
        min_len: int = 1,
        evaluate: bool = False,
        report_metric: bool = True,
        *,
        prompt: str | None = None,
        metrics: Sequence[str] | None = None,
        metrics_tokenizer: str = "auto",
        attributes: Sequence[str] | None = None,
        subset: str | None = None,
        **optional: Any,
    ) -> None:
        """
        Args:
            num_beams: beams of the search for captions; 1 is greedy.
            max_len: most new tokens of a caption.
            min_len: fewest, the end token counted.
            evaluate: see `GenerationTask`.
            report_metric: see `GenerationTask`.
            prompt: text that the model continues, in place of its own.
            metrics: see `score_captions`; CIDEr and BLEU, which ``agg_metrics`` adds up, always come along.
            attributes: keys of the records to look for in the captions, see `attribute_scores`.
            subset: a key of the records by whose values the scores are given too; absent, it is the data set's own
                (``domain`` for nocaps).
            optional: further arguments of the model's ``generate``.
        """
        super().__init__(num_beams, max_len, min_len, evaluate, report_metric)
        self.generation = {"num_beams": num_beams, "max_length": max_len, "min_length": min_len, **optional}
        self.prompt = prompt
        self.metrics = check_metrics(["cider", "bleu", *_listed(metrics, DEFAULT_METRICS)]) if report_metric else []
        self.metrics_tokenizer = metrics_tokenizer
        if report_metric and choose_tokenizer(metrics_tokenizer) == JAVA_FREE and metrics_tokenizer == "auto":
            logger.info("there is no `java` here: captions are scored on Java-free tokens, without METEOR and SPICE")
        self.attributes = _listed(attributes, ATTRIBUTES)
        self.subset = subset

    def before_evaluation(self, model: Any, dataset: Any, **kwargs: Any) -> None:
        super().before_evaluation(model, dataset, **kwargs)
        if self.subset and self.report_metric:
            check_subset(getattr(dataset, "records", ()), self.subset)

    def valid_step(self, model: Any, samples: dict[str, Any]) -> list[dict[str, str]]:
        """Captions of a batch as ``{"image_id", "caption"}``."""
        if self.prompt is not None:
            samples = {**samples, "prompt": self.prompt}
        check_arguments(model, self.generation)
        captions = model.generate(samples, **self.generation)
        pairs = zip(samples["image_id"], captions, strict=True)
        return [{"image_id": str(image_id), "caption": caption} for image_id, caption in pairs]

    def score(self, rows: Rows, dataset: Any, split_name: str) -> dict[str, Any]:
        """Scores of the captions and ``agg_metrics``: CIDEr + BLEU-4, LAVIS's criterion."""
        captions = {key: row["caption"] for key, row in rows.items()}
        references = dataset.ground_truth() if hasattr(dataset, "ground_truth") else {}
        if not references or not captions:
            return self.unscored(split_name, "reference captions" if captions else "readable pictures")
        records = getattr(dataset, "records", ())
        score = partial(score_captions, metrics=self.metrics, tokenizer=self.metrics_tokenizer)
        scores = score(references, captions)
        ids = subset_ids(records, self.subset or str(getattr(dataset, "subset", "")))
        if ids:
            scores["subsets"] = subset_scores(ids, references, captions, scores, score)
        scores |= attribute_scores(records, captions, self.attributes) | repetition(captions, references)
        return {**scores, "agg_metrics": scores["CIDEr"] + scores["Bleu_4"]}

    def files(self, rows: Rows, dataset: Any) -> dict[str, Any]:
        """The captions; for data sets with a server also its form: a list of ``{"image_id": number, "caption"}``."""
        files = super().files(rows, dataset)
        submission = getattr(dataset, "submission", "")
        if submission and rows and all(key.isdecimal() for key in rows):
            files[submission] = [
                {"image_id": int(key), "caption": row["caption"]}
                for key, row in sorted(rows.items(), key=lambda item: int(item[0]))
            ]
        elif submission and rows:
            logger.warning("no submission file is written: the server wants the numbers of the pictures as image_id")
        return files


def _listed(value: str | Sequence[str] | None, default: Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(default if value is None else value)


def check_arguments(model: Any, arguments: dict[str, Any]) -> None:
    """Raise ConfigError for an argument that the model's ``generate`` does not take."""
    taken = inspect.signature(model.generate).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    for name in arguments:
        if name not in taken:
            raise ConfigError(f"run.{name}: {type(model).__name__}.generate() has no such option; remove the key")
