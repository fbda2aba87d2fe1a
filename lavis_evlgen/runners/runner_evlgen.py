"""`runner_evlgen`: LAVIS's iteration runner with exact resume, on CPU, one GPU or many processes."""

import math
import os
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lavis.common.config import Config
from lavis.common.dist_utils import get_rank, get_world_size, is_main_process
from lavis.common.registry import registry
from lavis.runners.runner_base import RunnerBase
from lavis.runners.runner_iter import RunnerIter
from lavis.tasks.base_task import BaseTask
from omegaconf import OmegaConf
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from lavis_evlgen.datasets.whole_files import write_text, writes_explained
from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.registration_tools import register
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.checkpointing import CheckpointFolder, load
from lavis_evlgen.runners.distributed import on_rank_zero, usable_device
from lavis_evlgen.runners.evaluation import EvalLoader
from lavis_evlgen.runners.features import use_feature_cache
from lavis_evlgen.runners.interrupt import StopSignal
from lavis_evlgen.runners.loaders import TrainLoader
from lavis_evlgen.runners.progress import RunLog
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.sharding import replicated
from lavis_evlgen.runners.step import autocast
from lavis_evlgen.runners.trainable import SkipsEmptyBatches, load_trainable_state, optimizer_groups
from lavis_evlgen.runners.training import Training


@register("runner", "runner_evlgen")
class RunnerEvlgen(RunnerIter):
    """Trains and evaluates a model as the `run` section says (:class:`RunSettings` lists every key).

    Differences from LAVIS's runner_iter: files lie below the working directory; an iteration is one optimisation
    step; checkpoints hold the trained tensors only and resume exactly; evaluation needs no GPU.
    """

    RUN_KEYS = RunSettings.keys()

    def __init__(
        self, cfg: Config, task: BaseTask, model: nn.Module, datasets: dict[str, dict[str, Dataset]], job_id: str
    ) -> None:
        self.settings = RunSettings.from_config(cfg.run_cfg)
        RunnerBase.__init__(self, cfg, task, model, datasets, job_id)
        self.folder = CheckpointFolder(self.output_dir, self.settings.keep_checkpoints)
        self.log = RunLog(self.output_dir, is_main_process(), self.settings.tensorboard)
        self.stop = StopSignal()

    def setup_output_dir(self) -> None:
        """``output_dir/JOB_ID`` under the working directory; with auto_resume ``output_dir`` itself."""
        folder = Path(os.path.expanduser(self.settings.output_dir)).absolute()
        self.output_dir = folder if self.settings.auto_resume else folder / str(self.job_id)
        self.result_dir = self.output_dir / "result"
        try:
            self.result_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"run.output_dir: {folder} cannot be made ({error.strerror}): name another") from error
        # LAVIS's register_path raises for the second run of a process
        registry.mapping["paths"]["output_dir"] = str(self.output_dir)
        registry.mapping["paths"]["result_dir"] = str(self.result_dir)

    @cached_property
    def device(self) -> torch.device:
        return usable_device(self.settings.device, self.settings.gpu)

    @property
    def precision(self) -> str:
        return self.settings.precision_on(self.device.type)

    @property
    def use_distributed(self) -> bool:
        return get_world_size() > 1

    @property
    def sharded(self) -> bool:
        """Whether each process holds a part of the frozen weights, so that all must run them equally often."""
        return self.settings.shard != "none" and self.use_distributed

    @cached_property
    def model(self) -> nn.Module:
        """The model on its device, wrapped for training when there are several processes."""
        model = self._model.to(self.device)
        if not self.use_distributed or self.evaluate_only:
            return model
        return replicated(SkipsEmptyBatches(model), self.device)

    def unwrap_dist_model(self, model: nn.Module) -> nn.Module:
        return model.module.model if isinstance(model, DistributedDataParallel) else model

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        model = self.unwrap_dist_model(self.model)
        groups = [group for group in optimizer_groups(model, self.settings.weight_decay) if group["params"]]
        if not groups:
            raise ConfigError("the model has no trainable parameter: nothing to train (set run.evaluate: True?)")
        return torch.optim.AdamW(groups, lr=self.settings.init_lr, betas=(0.9, self.settings.beta2))

    @property
    def scaler(self) -> torch.amp.GradScaler:
        return self.training.step.scaler

    @property
    def evaluate_only(self) -> bool:
        return self.settings.evaluate

    @property
    def valid_splits(self) -> list[str]:
        return self.settings.valid_splits

    @property
    def test_splits(self) -> list[str]:
        return self.settings.test_splits

    @cached_property
    def train_loader(self) -> TrainLoader:
        splits = self.settings.train_splits
        datasets = {name: [of[s] for s in splits if s in of] for name, of in self.datasets.items()}
        return TrainLoader(datasets, self.settings, get_rank(), get_world_size())

    def eval_loader(self, split: str, saved: bool = True) -> EvalLoader:
        """Batches of an evaluation split, which exactly one data set must have.

        ``saved``: there is nothing to save, so that a stop signal may end the process between two batches.
        """
        owners = [name for name, of in self.datasets.items() if split in of]
        if not owners:
            known = sorted({each for of in self.datasets.values() for each in of})
            raise ConfigError(f"run: no data set has a split {split!r}{nearest(split, known)}")
        if len(owners) > 1:
            raise ConfigError(
                f"run: the data sets {' and '.join(owners)} all have a split {split!r}, but only one can be "
                "evaluated: rename or remove it in the annotations of the others"
            )
        dataset = self.datasets[owners[0]][split]
        of_lavis = type(self.task).__module__.startswith("lavis.")
        if self.sharded and of_lavis:
            raise ConfigError(
                f"run.shard: LAVIS's {type(self.task).__name__} runs the model more often on one process than on "
                "another; take a task of ours (captioning, vqa, gqa), or run.shard: none"
            )
        return EvalLoader(
            dataset,
            self.settings,
            get_rank(),
            get_world_size(),
            between_batches=self.training.leave_if_told if saved else lambda: None,
            empty_batches=not of_lavis,
            together=self.sharded,
            name=f"datasets.{owners[0]} ({split})",
        )

    @property
    def dataloaders(self) -> dict[str, Any]:
        """Loader of every split that the run uses."""
        splits = dict.fromkeys([*self.valid_splits, *self.test_splits])
        evaluated = {split: self.eval_loader(split) for split in splits}
        return evaluated if self.evaluate_only else {"train": self.train_loader, **evaluated}

    @property
    def _steps_per_epoch(self) -> float | None:
        length = self.train_loader.epoch_length
        return None if length is None else length / self.settings.accum_grad_iters

    @cached_property
    def max_iters(self) -> int:
        """Optimisation steps of the whole run."""
        if self.settings.max_iters:
            return self.settings.max_iters
        if not self.settings.max_epoch:
            raise ConfigError("run: set max_iters (optimisation steps) or max_epoch (passes over the training data)")
        if self._steps_per_epoch is None:
            raise ConfigError("run.max_epoch: a mixture or a stream of data has no epochs; set run.max_iters")
        return math.ceil(self.settings.max_epoch * self._steps_per_epoch)

    @cached_property
    def iters_per_inner_epoch(self) -> int:
        """Optimisation steps between two validations."""
        if self.settings.iters_per_inner_epoch:
            return self.settings.iters_per_inner_epoch
        epoch = self._steps_per_epoch
        return self.max_iters if epoch is None else min(self.max_iters, max(1, math.ceil(epoch)))

    @cached_property
    def training(self) -> Training:
        return Training(self)

    def train(self) -> dict[str, Any]:
        """Train (or, with ``run.evaluate``, only evaluate); the metrics by split, on rank 0, else an empty dict."""
        with self.stop, closing(self.log):
            self.log_config()
            self.cache_features()
            return self.evaluate() if self.evaluate_only else self.training.run()

    def evaluate(self, cur_epoch: Any = "best", skip_reload: bool = False) -> dict[str, Any]:
        """Evaluate valid_splits and test_splits; the metrics by split, on rank 0, else an empty dict.

        Weights: those of ``run.resume_ckpt_path``; with auto_resume the best (or else newest) checkpoint of the run
        folder; otherwise, and with ``skip_reload``, the model's own.
        """
        splits = dict.fromkeys([*self.valid_splits, *self.test_splits])
        if not splits:
            raise ConfigError("nothing to evaluate: run.valid_splits and run.test_splits are both empty")
        state = None if skip_reload else on_rank_zero(self._state_to_evaluate)
        if state is not None:
            load_trainable_state(self.unwrap_dist_model(self.model), state["model"], "the checkpoint")
        iters = state.get("iters", 0) if state else 0
        return self.evaluate_splits(list(splits), cur_epoch, iters)

    def _state_to_evaluate(self) -> dict[str, Any] | None:
        if self.settings.resume_ckpt_path:
            return load(self.settings.resume_ckpt_path)
        if not self.settings.auto_resume:
            return None
        latest = self.folder.best() or (self.folder.latest() or (None, None))[1]
        return latest

    def evaluate_splits(self, splits: list[str], epoch: Any, iters: int) -> dict[str, Any]:
        """Metrics of some splits, also written to the log."""
        metrics = {}
        for split in splits:
            found = self.eval_epoch(split, epoch)
            if found is not None:
                metrics[split] = found
                self.log.write({"iters": iters, "split": split, **found}, split)
        return metrics

    def eval_epoch(self, split_name: str, cur_epoch: Any, skip_reload: bool = True) -> dict[str, Any] | None:
        """Metrics of one split with the present weights; None on all ranks but the first. No RNG is disturbed."""
        ACTIVITY.enter(f"evaluating {split_name}", short=True)
        loader = self.eval_loader(split_name)
        model = self.unwrap_dist_model(self.model)
        was_training = model.training
        model.eval()
        late = self.stop.waiting(f"the evaluation of {split_name} did not end")
        with late, rng.preserved(), torch.no_grad(), autocast(self.device, self.precision):
            self.task.before_evaluation(model=model, dataset=loader.dataset)
            results = self.task.evaluation(model, loader, cuda_enabled=self.cuda_enabled)
            metrics = None
            ACTIVITY.enter(f"computing the metrics of {split_name}")
            if results is not None:
                metrics = self.task.after_evaluation(
                    val_result=results, split_name=split_name, epoch=cur_epoch, dataset=loader.dataset
                )
        model.train(was_training)
        return metrics if is_main_process() and isinstance(metrics, dict) else None

    def cache_features(self) -> None:
        """Let all splits of the run read the frozen ViT's features from ``run.feature_cache``, if it is set."""
        if not self.settings.feature_cache:
            return
        splits = [*self.valid_splits, *self.test_splits, *([] if self.evaluate_only else self.settings.train_splits)]
        model = self.unwrap_dist_model(self.model)
        folder, workers = self.settings.feature_cache, self.settings.num_workers

        def between_batches() -> None:
            ACTIVITY.move()
            self.training.leave_if_told()

        ACTIVITY.enter("computing the features of the pictures")
        seconds = use_feature_cache(
            self.datasets, dict.fromkeys(splits), model, folder, self.device, workers, between_batches
        )
        self.log.write({"iters": 0, "feature_seconds": seconds})

    def log_config(self) -> None:
        """Write the whole configuration beside the results."""
        if is_main_process():
            with writes_explained(self.output_dir):
                write_text(self.output_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(self.config.to_dict())))
