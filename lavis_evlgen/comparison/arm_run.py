"""One arm with one seed: its stages one after the other, each a run of the runner, advanced a few steps at a time."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lavis.common.dist_utils import is_main_process
from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lavis_evlgen.comparison.arms import PREVIOUS, Arm
from lavis_evlgen.comparison.frozen_parts import share_frozen_parts
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.json_text import read_json
from lavis_evlgen.launch import build_runner, lavis_config
from lavis_evlgen.peak_memory import PeakMemory
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.checkpointing import BEST, BEST_COPY, EXPORT
from lavis_evlgen.runners.distributed import on_rank_zero
from lavis_evlgen.runners.interrupt import StopSignal
from lavis_evlgen.runners.samples import to_device
from lavis_evlgen.runners.step import autocast

FACTS = "stage.json"  # what is noted of a stage that has ended
Prepare = Callable[[DictConfig], DictConfig]


class ArmRun:
    """The training of an arm with one seed.

    What it does to the random generators and to LAVIS's registered paths lasts for its own turns only, so that the
    weights are those of the arm trained alone.

    Args:
        prepare: what is done to a stage's configuration besides seed and folder (device, runner, checks).
        scored: whether captions are generated, at validations and at the end.
    """

    def __init__(
        self,
        arm: Arm,
        seed: int,
        folder: Path,
        prepare: Prepare,
        pool: dict[str, nn.Module],
        stop: StopSignal,
        scored: bool = True,
    ) -> None:
        self.arm, self.seed, self.folder = arm, seed, folder
        self.prepare, self.pool, self.stop, self.scored = prepare, pool, stop, scored
        self.stage = next((n for n in range(len(arm.stages)) if not read_facts(self.stage_folder(n))), len(arm.stages))
        self.runner: Any = None
        self._random_state: dict[str, Any] = {}
        on_rank_zero(self._check_folders)

    @property
    def finished(self) -> bool:
        return self.stage >= len(self.arm.stages)

    @property
    def is_open(self) -> bool:
        return self.runner is not None

    @property
    def iters(self) -> int:
        """Finished steps of the present stage."""
        return self.runner.training.iters if self.is_open else 0

    def turn(self, steps: int) -> None:
        """Train at most `steps` steps of the present stage; what ends with them is evaluated and noted."""
        if self.finished:
            return
        if not self.is_open:
            self._open()
        rng.restore(self._random_state)
        self._register_paths()
        training = self.runner.training
        for _ in range(steps):
            if training.done:
                break
            training.advance(self._progress, validate=self._scores_now)
        if training.done:
            self._end()
        self._random_state = rng.capture()

    def save(self) -> None:
        """Write a checkpoint of the present step, unless there is one."""
        training = self.runner.training
        if training.saved_at != training.iters:
            rng.restore(self._random_state)
            training.save()

    def close(self) -> None:
        """Free the memory; the next turn goes on from the newest checkpoint."""
        if self.is_open:
            self._stack.close()
            self.runner = None
            gc.collect()

    def stage_folder(self, number: int) -> Path:
        return stage_folder(self.arm, self.folder, number)

    @property
    def _scores_now(self) -> bool:
        """Whether the present stage is to write captions: only the last one can be asked to."""
        return self.scored and self.stage == len(self.arm.stages) - 1

    def _open(self) -> None:
        cfg = lavis_config(self._config(self.stage))
        before = rng.capture()
        self.runner = build_runner(cfg)
        section: Any = OmegaConf.to_container(cfg.model_cfg, resolve=True)
        share_frozen_parts(self.runner._model, section, self.pool)
        gc.collect()
        self.runner.stop = self.stop
        self.runner.log_config()
        self.runner.cache_features()
        self._stack = ExitStack()
        self._progress = self._stack.enter_context(self.runner.training.opened(show=False))
        self._random_state = rng.capture()
        rng.restore(before)

    def _config(self, number: int) -> DictConfig:
        """The configuration of a stage with its seed and folder."""
        config = self.arm.stages[number].config.copy()
        config.run.seed = self.seed
        config.run.output_dir = str(self.stage_folder(number))
        config.run.auto_resume = True
        if number:
            before = str(self.stage_folder(number - 1) / EXPORT)
            for key, value in config.model.items():
                if isinstance(value, str) and PREVIOUS in value:
                    config.model[key] = value.replace(PREVIOUS, before)
        return self.prepare(config)

    def _check_folders(self) -> None:
        """Raise ConfigError where a stage's folder holds a run of another configuration."""
        for number in range(len(self.arm.stages)):
            noted = self.stage_folder(number) / "config.yaml"
            if noted.is_file():
                old: Any = OmegaConf.to_container(OmegaConf.load(noted))
                new: Any = OmegaConf.to_container(OmegaConf.create(lavis_config(self._config(number)).to_dict()))
                _check_same(old, new, noted.parent)

    def _register_paths(self) -> None:
        paths = {"output_dir": self.runner.output_dir, "result_dir": self.runner.result_dir}
        registry.mapping["paths"].update({name: str(path) for name, path in paths.items()})

    def _end(self) -> None:
        """Evaluate, export, note what the report wants to know, and free the memory."""
        training, model = self.runner.training, self.runner.unwrap_dist_model(self.runner.model)
        facts = {
            "steps": training.iters,
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "soft_prompt_tokens": soft_prompt_tokens(model),
            "images_per_step": self.runner.settings.images_per_step,
            "peak_memory_gib": self._peak_memory() if self.scored else None,
        }
        facts["scores"] = training.finish(evaluate=self._scores_now)
        folder = self.stage_folder(self.stage)
        if is_main_process():
            (folder / FACTS).write_text(json.dumps(facts, indent=1, default=str) + "\n", "utf-8")
            # nothing goes on from them any more
            for old in (*self.runner.folder.numbered(), folder / BEST, folder / BEST_COPY):
                old.unlink(missing_ok=True)
        self.close()
        self.stage += 1

    def _peak_memory(self) -> float | None:
        """GiB that the tensors of one more forward and backward pass take at most, weights left out."""
        runner = self.runner
        batch = to_device(next(runner.train_loader), runner.device)
        batch = {key: value for key, value in batch.items() if key != "bad_samples"}
        extra = {"epoch": 0, "num_iters_per_epoch": runner.max_iters, "iters": 0}
        try:
            with PeakMemory() as memory:
                with autocast(runner.device, runner.precision):
                    loss = runner.task.train_step(model=runner.model, samples={**batch, **extra})
                loss.backward()
        except (RuntimeError, NotImplementedError) as error:
            logging.warning("%s: peak memory could not be measured (%s)", self.arm.name, error)
            return None
        finally:
            runner.optimizer.zero_grad(set_to_none=True)
        return round(memory.peak / 2**30, 3)


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    for section in ("model", "datasets", "run"):
        for key in sorted(old[section].keys() | new[section].keys()):
            was, now = old[section].get(key), new[section].get(key)
            if was != now:
                raise ConfigError(
                    f"{folder} holds a run with {section}.{key}: {was!r}, now it is {now!r}: "
                    "set another run.output_dir, or remove that folder"
                )


def stage_folder(arm: Arm, folder: Path, number: int) -> Path:
    """The run folder of stage 0, 1, …; that of an arm with one stage is the arm's own."""
    return folder if len(arm.stages) == 1 else folder / f"stage{number + 1}"


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What was noted of a stage that has ended; None of one that has not."""
    path = folder / FACTS
    if not path.is_file():
        return None
    facts = read_json(path, "remove it: the stage trains again")
    if not isinstance(facts.get("scores"), dict) or not isinstance(facts.get("images_per_step"), int):
        raise DataError(f"{path} is damaged (no scores or images_per_step); remove it: the stage trains again")
    return facts


def soft_prompt_tokens(model: Any) -> int | None:
    """Tokens that the language model gets for a picture, of our models and of LAVIS's BLIP-2; None without one."""
    if hasattr(model, "language"):
        return model.connector.num_tokens_out
    projection = hasattr(model, "opt_proj") or hasattr(model, "llm_proj") or hasattr(model, "t5_proj")
    return model.query_tokens.shape[1] if projection else None
