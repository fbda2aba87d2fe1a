"""What tasks share whose models write texts: texts of all processes are collected, written to files, and scored."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lavis.common.dist_utils import is_dist_avail_and_initialized, is_main_process
from lavis.common.registry import registry
from lavis.tasks.base_task import BaseTask
from tqdm import tqdm

from lavis_evlgen.datasets.whole_files import write_text, writes_explained
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.runners.distributed import gathered, on_rank_zero
from lavis_evlgen.runners.samples import to_device
from lavis_evlgen.runners.trainable import LENT
from lavis_evlgen.tasks.loss_parts import LossParts

logger = logging.getLogger(__name__)

Rows = dict[str, dict[str, Any]]


class GenerationTask(LossParts, BaseTask):
    """Trains with the model's loss; evaluates by the texts that the model writes for a split.

    A subclass gives the texts of a batch (``valid_step``) and their scores (:meth:`score`).
    """

    RUN_KEYS: tuple[str, ...] = ("num_beams", "max_len", "min_len", "prompt", "evaluate", "report_metric")
    id_key = "image_id"
    """The key of samples and results that tells one from another."""
    nouns = "captions"

    def __init__(self, num_beams: int, max_len: int, min_len: int, evaluate: bool, report_metric: bool) -> None:
        """
        Args:
            num_beams, max_len, min_len: how texts are generated (lengths in tokens).
            evaluate: accepted for LAVIS's sake; the runner reads it.
            report_metric: False only writes the texts.
        """
        super().__init__()
        if num_beams < 1 or max_len < 1 or not 0 <= min_len <= max_len:
            raise ConfigError(
                f"run.num_beams={num_beams}, max_len={max_len}, min_len={min_len}: "
                "need num_beams >= 1 and 0 <= min_len <= max_len"
            )
        self.evaluate = evaluate
        self.report_metric = report_metric
        self._dataset: Any = None
        self._skipped: list[str] = []

    @classmethod
    def setup_task(cls, cfg: Any) -> "GenerationTask":
        """The task as the ``run`` section says; keys that are absent or null have the defaults of ``__init__``."""
        return cls(**{key: cfg.run_cfg[key] for key in cls.RUN_KEYS if cfg.run_cfg.get(key) is not None})

    def train_step(self, model: torch.nn.Module, samples: dict[str, Any]) -> torch.Tensor:
        if "bad_samples" in samples and "text_input" not in samples:
            raise DataError(f"no sample of a batch could be read, e.g. {samples['bad_samples'][0]}")
        return super().train_step(model, samples)

    def before_evaluation(self, model: torch.nn.Module, dataset: Any, **kwargs: Any) -> None:
        """Remember the split: its references are needed when its texts are there."""
        self._dataset = dataset
        if hasattr(model, "before_evaluation"):
            super().before_evaluation(model, dataset, **kwargs)

    @torch.no_grad()
    def evaluation(self, model: torch.nn.Module, data_loader: Any, cuda_enabled: bool = True) -> list[dict[str, Any]]:
        """What :meth:`valid_step` gives for this rank's share of a split, on the model's own device.

        ``cuda_enabled`` is LAVIS's and not needed.
        """
        dataset = getattr(data_loader, "dataset", None)
        if hasattr(dataset, "ground_truth"):
            self._dataset = dataset
        self._skipped = []
        device = next(model.parameters()).device
        results: list[dict[str, Any]] = []
        for samples in tqdm(data_loader, desc=self.nouns, leave=False, disable=not is_main_process()):
            self._skipped.extend(samples.get("bad_samples", ()))
            if self.id_key in samples:
                results.extend(self.valid_step(getattr(model, "module", model), to_device(samples, device)))
            elif LENT in samples:  # with sharded weights the others wait for this pass
                self.valid_step(getattr(model, "module", model), to_device(samples[LENT], device))
        if is_dist_avail_and_initialized():
            dist.barrier()
        return results

    def after_evaluation(
        self, val_result: list[dict[str, Any]], split_name: str, epoch: int | str, dataset: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Write the texts of all ranks, score them, and give every rank the scores.

        Files: ``{split}_epoch{epoch}.json`` in the result folder, with ``..._skipped.json`` beside it where pictures
        could not be read; a line of scores in ``evaluate.txt`` of the output folder.

        Returns:
            Scores and ``agg_metrics``, which chooses the best checkpoint (0.0, with a ``note``, where nothing can be
            scored).
        """
        parts = gathered((val_result, self._skipped))
        rows = {row[self.id_key]: row for part, _ in parts for row in part}  # samplers repeat some
        skipped = sorted({path for _, part in parts for path in part})
        dataset = self._dataset if dataset is None else dataset
        return on_rank_zero(lambda: self._report(rows, skipped, dataset, split_name, epoch))

    def score(self, rows: Rows, dataset: Any, split_name: str) -> dict[str, Any]:
        """Scores of the texts, ``agg_metrics`` among them."""
        raise NotImplementedError

    def files(self, rows: Rows, dataset: Any) -> dict[str, Any]:
        """Contents of the result files, by what follows ``{split}_epoch{epoch}`` in their names."""
        return {"": list(rows.values())}

    def _report(
        self, rows: Rows, skipped: list[str], dataset: Any, split_name: str, epoch: int | str
    ) -> dict[str, Any]:
        name = f"{split_name}_epoch{epoch}"
        folder = Path(registry.get_path("result_dir"))
        with writes_explained(folder):
            for suffix, content in {**self.files(rows, dataset), **({"_skipped": skipped} if skipped else {})}.items():
                path = folder / f"{name}{suffix}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, json.dumps(content, ensure_ascii=False, indent=0))
        if skipped:
            logger.warning("%s: %d pictures could not be read and are not scored", split_name, len(skipped))
        scores = self.score(rows, dataset, split_name) if self.report_metric else {"agg_metrics": 0.0}
        scores["skipped"] = len(skipped)
        with writes_explained(folder), open(Path(registry.get_path("output_dir")) / "evaluate.txt", "a") as log:
            log.write(json.dumps({split_name: {"epoch": epoch, **scores}}) + "\n")
        logger.info("%s, epoch %s: %s", split_name, epoch, json.dumps(scores))
        return scores

    def unscored(self, split_name: str, lack: str) -> dict[str, Any]:
        """The scores of a split that lacks something."""
        logger.warning("the split %s has no %s: nothing is scored, agg_metrics is 0.0", split_name, lack)
        return {"agg_metrics": 0.0, "note": f"no {lack}"}
