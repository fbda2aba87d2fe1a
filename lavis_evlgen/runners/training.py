"""The training loop: steps, reports, checkpoints, validation, and going on where an interrupted run stopped."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis.common.dist_utils import get_world_size, is_main_process

from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.bad_samples import BadSampleTally
from lavis_evlgen.runners.checkpointing import BEST, EXPORT, restoring, save_atomically
from lavis_evlgen.runners.data_workers import worker_deaths_named
from lavis_evlgen.runners.distributed import on_rank_zero
from lavis_evlgen.runners.health import TrainingHealth
from lavis_evlgen.runners.interrupt import EXIT_CODE
from lavis_evlgen.runners.not_finite import check_row, note_samples
from lavis_evlgen.runners.progress import Progress
from lavis_evlgen.runners.resume import NO_BEST, find_checkpoint, full_state, restore, weights
from lavis_evlgen.runners.run_events import end_noted, note_start, warnings_noted
from lavis_evlgen.runners.schedule import Schedule
from lavis_evlgen.runners.sharding import in_step
from lavis_evlgen.runners.step import StepResult, TrainStep
from lavis_evlgen.runners.trainable import load_trainable_state
from lavis_evlgen.runners.usage import TokenCounter, memory
from lavis_evlgen.runners.verdict import Verdict

if TYPE_CHECKING:
    from lavis_evlgen.runners.runner_evlgen import RunnerEvlgen


class Training:
    """One training run of a runner; ``iters`` counts finished optimisation steps."""

    def __init__(self, runner: "RunnerEvlgen") -> None:
        self.runner = runner
        self.settings = runner.settings
        self.iters = 0
        self.finished = False
        self.best: dict[str, Any] = NO_BEST
        self.saved_at = -1
        self.verdict = Verdict(self.settings.warmup_steps)
        self._step: TrainStep | None = None
        self._health: TrainingHealth | None = None

    @cached_property
    def _tokens(self) -> TokenCounter:
        return TokenCounter(self.runner.unwrap_dist_model(self.runner.model), self.runner.device)

    @cached_property
    def tally(self) -> BadSampleTally:
        return BadSampleTally(self.settings.max_bad_share, *self.runner.train_loader.pass_sizes)

    @cached_property
    def _schedule(self) -> Schedule:
        return self.settings.schedule(self.runner.max_iters, self.runner.iters_per_inner_epoch)

    @property
    def step(self) -> TrainStep:
        if self._step is None:
            self._step = TrainStep(
                self.runner.model,
                self.runner.task.train_step,
                self.runner.optimizer,
                self.runner.device,
                self.runner.precision,
                self.settings.max_grad_norm,
            )
        return self._step

    def run(self) -> dict[str, Any]:
        """Train to the end, then evaluate test_splits; the last metrics by split, on rank 0."""
        metrics: dict[str, Any] = {}
        with self.opened() as progress:
            if self.iters and self._period_ends() and not self._validated():
                metrics |= self._validate()
            while not self.done:
                metrics |= self.advance(progress)
            return metrics | self.finish()

    @contextmanager
    def opened(self, show: bool = True) -> Iterator[Progress]:
        """Take up the newest checkpoint; after the block data and log are closed. ``show``: say how it goes."""
        runner = self.runner
        show = show and is_main_process()
        # on every rank: the first look at the optimiser makes the processes meet
        count = sum(p.numel() for group in runner.optimizer.param_groups for p in group["params"])
        if show:
            logging.info(
                "training %.2fM parameters for %d steps on %s (%s) into %s",
                count / 1e6, runner.max_iters, runner.device, runner.precision, runner.output_dir,
            )  # fmt: skip
        # runs that take turns in one process would note each other's warnings
        with warnings_noted(runner.log, lambda: self.iters) if show else nullcontext():
            self.resume()
            note_start(runner.log, self.iters, runner.max_iters, get_world_size())
            runner.unwrap_dist_model(runner.model).train()
            progress = Progress(runner.max_iters, self.iters, self.settings.log_freq, show)
            try:
                with progress, end_noted(runner.log, self), worker_deaths_named():
                    yield progress
            finally:
                runner.train_loader.close()
                runner.log.close()

    @property
    def done(self) -> bool:
        return self.iters >= self.runner.max_iters

    def advance(self, progress: Progress, validate: bool = True) -> dict[str, Any]:
        """One optimisation step and what is due after it; the metrics by split where that is a validation."""
        result = self._train_step(progress, self._schedule.apply(self.runner.optimizer, self.iters))
        self._check_health()
        self._save_if_due(result.stop)
        return self._validate() if validate and self._period_ends() else {}

    def _train_step(self, progress: Progress, lr: float) -> StepResult:
        """One optimisation step with everything that is reported about it."""
        runner = self.runner
        began = time.perf_counter()
        ACTIVITY.enter("waiting for data", self.iters + 1, short=True)
        with runner.stop.waiting():
            batches = [next(runner.train_loader) for _ in range(self.settings.accum_grad_iters)]
        waited = time.perf_counter() - began
        if runner.sharded:
            batches = list(in_step(batches))
        for batch in batches:
            self.tally.show(batch)
        inner = runner.iters_per_inner_epoch
        extra = {"epoch": self.iters // inner, "num_iters_per_epoch": inner, "iters": self.iters % inner}
        with self._tokens.counting():
            result = self.step(batches, extra, stop=runner.stop.requested)
        self.iters += 1
        self.tally.add(result.samples, result.bad)
        seconds = time.perf_counter() - began
        speed = progress.update(self.iters, result.loss, lr, result.samples, seconds, waited)
        record = {"iters": self.iters, "loss": result.loss, "lr": lr, "grad_norm": result.grad_norm}
        if result.skipped:
            record["skipped"] = True
            why = "its loss or gradient was not finite" if result.samples else "none of its samples could be read"
            logging.warning("step %d was skipped: %s (%d so far)", self.iters, why, self.step.nan_steps)
        if speed is not None:
            speed |= self._tokens.per_second(speed["seconds"]) | memory(runner.device)
            speed |= {"nan_steps": self.step.nan_steps, "bad_samples": self.tally.bad}
            if hasattr(runner.task, "train_metrics"):  # further figures of the steps since the last record
                record |= runner.task.train_metrics()
            runner.log.write({**record, **speed})
        if result.not_finite:
            note_samples(runner.output_dir, self.iters, result.own_loss, batches)
            check_row(self.step.nan_steps_in_a_row, self.settings.max_nan_steps, runner.output_dir)
        return result

    def _period_ends(self) -> bool:
        return self.iters % self.runner.iters_per_inner_epoch == 0 or self.iters == self.runner.max_iters

    def _check_health(self) -> None:
        """Held-out loss with right and with shuffled pictures, every ``health_freq`` steps."""
        if not self.settings.health_freq or self.iters % self.settings.health_freq:
            return
        ACTIVITY.enter("checking whether the model looks at the pictures")
        runner = self.runner
        if self._health is None:
            loader = runner.eval_loader(runner.valid_splits[0], saved=False)
            batches = math.ceil(self.settings.health_batches / get_world_size())
            with runner.stop.waiting():
                self._health = TrainingHealth(loader, batches, runner.device, runner.precision)
        found = self._health(runner.unwrap_dist_model(runner.model), runner.task.train_step)
        if found is not None:
            self._judge(found)
            runner.log.write({"iters": self.iters, **found}, "health")
            logging.info(
                "step %d  held-out loss %.4f, with shuffled pictures %.4f (gap %.4f)",
                self.iters, found["held_out_loss"], found["shuffled_loss"], found["gap"],
            )  # fmt: skip

    def _judge(self, figures: dict[str, Any]) -> None:
        """Warn of what figures on held-out pictures say about the run."""
        for warning in self.verdict.note(self.iters, figures):
            if is_main_process():
                logging.warning(warning)

    def _validate(self) -> dict[str, Any]:
        """Metrics of valid_splits; the first split decides which checkpoint is the best."""
        runner, metrics = self.runner, {}
        for number, split in enumerate(runner.valid_splits):
            runner.log.note(self.iters, state="evaluating", what=split)
            found = runner.eval_epoch(split, self.iters)
            if found is None:
                continue
            if number == 0:
                self._note_best(found)
                self._judge(found)
            metrics[split] = found
            runner.log.write({"iters": self.iters, "split": split, **found}, split)
            logging.info("step %d  %s: %s", self.iters, split, found)
        return metrics

    def _validated(self) -> bool:
        """Whether the log already holds this step's validation: a run may be stopped between both."""
        splits = self.runner.valid_splits
        return on_rank_zero(lambda: all(self.runner.log.has_evaluation(self.iters, split) for split in splits))

    def _note_best(self, metrics: dict[str, Any]) -> None:
        """Keep the weights when ``agg_metrics`` is higher than ever before. Rank 0 only."""
        value = float(metrics.get("agg_metrics", math.nan))
        if math.isnan(value) or (self.best["metric"] is not None and value <= self.best["metric"]):
            return
        self.best = {"metric": value, "iters": self.iters}
        self.runner.folder.save_best(weights(self.runner) | {"iters": self.iters, "best": self.best})

    def _save_if_due(self, stop: bool) -> None:
        every = self.settings.save_freq
        if stop or self._period_ends() or (every and self.iters % every == 0):
            self.save()
        if stop:
            self.leave()

    def save(self) -> None:
        """Write a checkpoint of this step. Every rank must call it: each adds its random state."""
        ACTIVITY.enter("writing a checkpoint")
        state = full_state(self)
        path = on_rank_zero(lambda: str(self.runner.folder.save(state)))
        self.saved_at = self.iters
        logging.info("saved %s", path)

    def leave(self) -> None:
        """End the process after a stop signal, saying how to go on."""
        path = self.runner.output_dir / f"checkpoint_{self.saved_at}.pth"
        how, state = "the same command again", f"{path} holds the state"
        if self.saved_at < 0:
            state = "nothing had to be saved"
        elif not self.settings.auto_resume:
            how = f"--options run.resume_ckpt_path={path}"
        if is_main_process():
            logging.warning("stopped after step %d; %s. Go on with %s.", self.iters, state, how)
        raise SystemExit(EXIT_CODE)

    def leave_if_told(self) -> None:
        """Between batches of an evaluation or of features: the state was saved before."""
        if self.runner.stop.requested:
            self.leave()

    def resume(self) -> None:
        """Take up the newest readable checkpoint (auto_resume) or the given one, if there is any."""
        ACTIVITY.enter("reading the newest checkpoint")
        found = on_rank_zero(lambda: find_checkpoint(self.runner))
        if found is not None:
            path, state = found
            with restoring(path):
                restore(self, state, path)
            logging.info("going on after step %d of %s", self.iters, path)
        for record in self.runner.log.rewind(self.iters):
            if record.get("iters") == self.iters and record.get("split") in self.runner.valid_splits[:1]:
                self.verdict.note(self.iters, record)  # the checkpoint was written before the step's validation

    def finish(self, evaluate: bool = True) -> dict[str, Any]:
        """Take the best weights if validation chose some, export them, evaluate test_splits; the metrics by split."""
        runner = self.runner
        ACTIVITY.enter("writing the trained weights")
        best = on_rank_zero(runner.folder.best) if self._has_best() else None
        if best is not None:
            load_trainable_state(runner.unwrap_dist_model(runner.model), best["model"], BEST)
        on_rank_zero(self._export)
        splits = runner.test_splits if evaluate else []
        if splits:
            runner.log.note(self.iters, state="evaluating", what=", ".join(splits))
        metrics = runner.evaluate_splits(splits, "best" if best else self.iters, self.iters)
        runner.log.note(self.iters, state="finished")
        self.finished = True
        return metrics

    def _has_best(self) -> bool:
        return on_rank_zero(lambda: self.best["metric"] is not None)

    def _export(self) -> str:
        state = weights(self.runner)
        state["model"] = {k: v.float() if v.is_floating_point() else v for k, v in state["model"].items()}
        path = Path(self.runner.output_dir) / EXPORT
        save_atomically({"model": state["model"], "config": state["config"]}, path)
        logging.info("exported the trained weights to %s", path)
        return str(path)
