"""Captioning of any data set: string ids, references from the data set itself, no Java needed."""

import inspect
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized, is_main_process
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask
from tqdm import tqdm

from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.metrics.attributes import ATTRIBUTES, attribute_scores
from lavis_evlgen.metrics.captions import DEFAULT_METRICS, check_metrics, score_captions
from lavis_evlgen.metrics.tokenizers import choose_tokenizer
from lavis_evlgen.registration_tools import register
from lavis_evlgen.runners.distributed import gathered, on_rank_zero
from lavis_evlgen.runners.samples import to_device

logger = logging.getLogger(__name__)

# run keys that are handed to generate() only when they are set: not every LAVIS model takes them
OPTIONAL_ARGUMENTS = ("use_nucleus_sampling", "top_p", "temperature", "length_penalty", "repetition_penalty")


@register("task", "evlgen_captioning", "captioning")
class CaptioningTask(BaseTask):
    """Trains with the model's loss; evaluates by generated captions against the data set's own references.

    It takes the place of LAVIS's ``captioning``, which scores against COCO alone and needs numeric ids and Java.
    """

    RUN_KEYS = (
        "num_beams",
        "max_len",
        "min_len",
        *OPTIONAL_ARGUMENTS,
        "prompt",
        "evaluate",
        "report_metric",
        "metrics",
        "metrics_tokenizer",
        "attributes",
    )

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
        **optional: Any,
    ) -> None:
        """
        Args:
            num_beams, max_len, min_len, optional: how captions are generated (lengths in tokens).
            evaluate: accepted for LAVIS's sake; the runner reads it.
            report_metric: False only writes the captions.
            prompt: text that the model continues, in place of its own.
            metrics: see :func:`score_captions`; CIDEr and BLEU, which ``agg_metrics`` adds up, always come along.
            attributes: keys of the records to look for in the captions, see :func:`attribute_scores`.
        """
        super().__init__()
        if num_beams < 1 or max_len < 1 or not 0 <= min_len <= max_len:
            raise ConfigError(
                f"run.num_beams={num_beams}, max_len={max_len}, min_len={min_len}: "
                "need num_beams >= 1 and 0 <= min_len <= max_len"
            )
        self.generation = {"num_beams": num_beams, "max_length": max_len, "min_length": min_len, **optional}
        self.evaluate = evaluate
        self.report_metric = report_metric
        self.prompt = prompt
        self.metrics = check_metrics(["cider", "bleu", *_listed(metrics, DEFAULT_METRICS)]) if report_metric else []
        self.metrics_tokenizer = metrics_tokenizer
        if report_metric:
            choose_tokenizer(metrics_tokenizer)
        self.attributes = _listed(attributes, ATTRIBUTES)
        self._dataset: Any = None
        self._skipped: list[str] = []

    @classmethod
    def setup_task(cls, cfg: Any) -> "CaptioningTask":
        """The task as the ``run`` section says; keys that are absent or null have the defaults of ``__init__``."""
        return cls(**{key: cfg.run_cfg[key] for key in cls.RUN_KEYS if cfg.run_cfg.get(key) is not None})

    def train_step(self, model: torch.nn.Module, samples: dict[str, Any]) -> torch.Tensor:
        if "bad_samples" in samples and "text_input" not in samples:
            raise DataError(f"no sample of a batch could be read, e.g. {samples['bad_samples'][0]}")
        return super().train_step(model, samples)

    def before_evaluation(self, model: torch.nn.Module, dataset: Any, **kwargs: Any) -> None:
        """Remember the split: its references are needed when its captions are there."""
        self._dataset = dataset
        if hasattr(model, "before_evaluation"):
            super().before_evaluation(model, dataset, **kwargs)

    @torch.no_grad()
    def evaluation(self, model: torch.nn.Module, data_loader: Any, cuda_enabled: bool = True) -> list[dict[str, str]]:
        """Captions of this rank's share of a split as ``{"image_id", "caption"}``, on the model's own device.

        ``cuda_enabled`` is LAVIS's and not needed.
        """
        dataset = getattr(data_loader, "dataset", None)
        if hasattr(dataset, "ground_truth"):
            self._dataset = dataset
        self._skipped = []
        device = next(model.parameters()).device
        results: list[dict[str, str]] = []
        for samples in tqdm(data_loader, desc="captioning", leave=False, disable=not is_main_process()):
            self._skipped.extend(samples.get("bad_samples", ()))
            if "image_id" in samples:
                results.extend(self.valid_step(model, to_device(samples, device)))
        if is_dist_avail_and_initialized():
            dist.barrier()
        return results

    def valid_step(self, model: Any, samples: dict[str, Any]) -> list[dict[str, str]]:
        model = getattr(model, "module", model)
        if self.prompt is not None:
            samples = {**samples, "prompt": self.prompt}
        _check_arguments(model, self.generation)
        captions = model.generate(samples, **self.generation)
        pairs = zip(samples["image_id"], captions, strict=True)
        return [{"image_id": str(image_id), "caption": caption} for image_id, caption in pairs]

    def after_evaluation(
        self, val_result: list[dict[str, str]], split_name: str, epoch: int | str, dataset: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Write the captions of all ranks, score them, and give every rank the scores.

        Files: ``{split}_epoch{epoch}.json`` in the result folder, with ``..._skipped.json`` beside it where pictures
        could not be read; a line of scores in ``evaluate.txt`` of the output folder.

        Returns:
            Scores and ``agg_metrics`` (CIDEr + BLEU-4, LAVIS's criterion; 0.0, with a ``note``, without references).
        """
        parts = gathered((val_result, self._skipped))
        captions = {row["image_id"]: row["caption"] for part, _ in parts for row in part}  # samplers repeat some
        skipped = sorted({path for _, part in parts for path in part})
        dataset = self._dataset if dataset is None else dataset
        return on_rank_zero(lambda: self._report(captions, skipped, dataset, split_name, epoch))

    def _report(
        self, captions: dict[str, str], skipped: list[str], dataset: Any, split_name: str, epoch: int | str
    ) -> dict[str, Any]:
        folder = Path(registry.get_path("result_dir"))
        name = f"{split_name}_epoch{epoch}"
        _write(folder / f"{name}.json", [{"image_id": key, "caption": text} for key, text in captions.items()])
        if skipped:
            _write(folder / f"{name}_skipped.json", skipped)
            logger.warning("%s: %d pictures could not be read and are not scored", split_name, len(skipped))
        scores = self._score(captions, dataset, split_name) if self.report_metric else {"agg_metrics": 0.0}
        scores["skipped"] = len(skipped)
        with open(Path(registry.get_path("output_dir")) / "evaluate.txt", "a") as log:
            log.write(json.dumps({split_name: {"epoch": epoch, **scores}}) + "\n")
        logger.info("%s, epoch %s: %s", split_name, epoch, json.dumps(scores))
        return scores

    def _score(self, captions: dict[str, str], dataset: Any, split_name: str) -> dict[str, Any]:
        references = dataset.ground_truth() if hasattr(dataset, "ground_truth") else {}
        if not references or not captions:
            lack = "reference captions" if captions else "readable pictures"
            logger.warning("the split %s has no %s: nothing is scored, agg_metrics is 0.0", split_name, lack)
            return {"agg_metrics": 0.0, "note": f"no {lack}"}
        scores = score_captions(references, captions, self.metrics, self.metrics_tokenizer)
        scores |= attribute_scores(getattr(dataset, "records", ()), captions, self.attributes)
        return {**scores, "agg_metrics": scores["CIDEr"] + scores["Bleu_4"]}


def _listed(value: str | Sequence[str] | None, default: Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(default if value is None else value)


def _check_arguments(model: Any, arguments: dict[str, Any]) -> None:
    taken = inspect.signature(model.generate).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    for name in arguments:
        if name not in taken:
            raise ConfigError(f"run.{name}: {type(model).__name__}.generate() has no such option; remove the key")


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=0), encoding="utf-8")
