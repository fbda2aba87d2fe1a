"""What a checkpoint holds, which one a run goes on from, and how it is put back."""

import logging
import math
from typing import TYPE_CHECKING, Any

from lavis.common.dist_utils import get_rank, get_world_size, is_main_process

from lavis_evlgen.errors import WeightsError
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.checkpointing import BEST, check_same_model, load, restoring
from lavis_evlgen.runners.distributed import gathered
from lavis_evlgen.runners.trainable import load_trainable_state, trainable_state
from lavis_evlgen.versions import versions

if TYPE_CHECKING:
    from lavis_evlgen.runners.runner_evlgen import RunnerEvlgen
    from lavis_evlgen.runners.training import Training

NO_BEST = {"metric": None, "iters": 0}


def weights(runner: "RunnerEvlgen") -> dict[str, Any]:
    """The trained tensors with the configuration and the versions that made them."""
    model = runner.unwrap_dist_model(runner.model)
    return {"model": trainable_state(model), "config": runner.config.to_dict(), "versions": versions()}


def full_state(training: "Training") -> dict[str, Any]:
    """Everything that :func:`restore` needs. Every rank must call it: each adds its random state."""
    return weights(training.runner) | {
        "optimizer": training.runner.optimizer.state_dict(),
        "scaler": training.step.scaler.state_dict(),
        "iters": training.iters,
        "rng": gathered(rng.capture()),
        "loader": training.runner.train_loader.state_dict(),
        "best": training.best,
        "tally": training.tally.state_dict(),
        "nan_steps": [training.step.nan_steps, training.step.nan_steps_in_a_row],
        "verdict": training.verdict.state_dict(),
    }


def find_checkpoint(runner: "RunnerEvlgen") -> tuple[str, dict[str, Any]] | None:
    """Path and content of what to go on from: the newest readable checkpoint of the run folder (auto_resume), or
    resume_ckpt_path; None for a fresh start. Removes what a killed run was writing. For rank 0.
    """
    runner.folder.clean()
    if runner.settings.auto_resume and runner.folder.numbered():
        latest = runner.folder.latest()
        if latest is None:
            raise WeightsError(
                f"no checkpoint in {runner.output_dir} can be read: delete them, or set another run.output_dir"
            )
        path, state = latest
        with restoring(path):
            check_same_model(state["config"], runner.config.to_dict(), path)
        best = runner.folder.best()
        with restoring(runner.folder.path / BEST):
            state["best"] = best["best"] if best and best["iters"] <= state["iters"] else NO_BEST
        return str(path), state
    if runner.settings.resume_ckpt_path:
        return runner.settings.resume_ckpt_path, {**load(runner.settings.resume_ckpt_path), "best": NO_BEST}
    return None


def restore(training: "Training", state: dict[str, Any], path: str) -> None:
    """Put a checkpoint back into model, optimiser, data and random generators; WeightsError when it does not fit."""
    missing = sorted({"optimizer", "scaler", "iters", "rng", "loader"} - state.keys())
    if missing:
        raise WeightsError(
            f"{path} holds weights only (no {', '.join(missing)}), so training cannot go on from it: "
            "give it as the model's weights (model.finetuned with model.load_finetuned: True)"
        )
    if type(state["iters"]) is not int or state["iters"] < 0:
        raise WeightsError(f"{path} is not a checkpoint of lavis_evlgen: its step is {state['iters']!r}")
    runner = training.runner
    load_trainable_state(runner.unwrap_dist_model(runner.model), state["model"], path)
    try:
        runner.optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise WeightsError(f"{path}: its optimiser does not fit this model's trained parameters: {error}") from error
    if state["scaler"]:  # that of another precision is empty
        training.step.scaler.load_state_dict(state["scaler"])
    training.iters = training.saved_at = state["iters"]
    training.best = state["best"]
    training.verdict.load_state_dict(state.get("verdict", {}))
    training.tally.load_state_dict(state.get("tally", {}))
    training.step.nan_steps, training.step.nan_steps_in_a_row = state.get("nan_steps", (0, 0))
    changes = runner.train_loader.load_state_dict(state["loader"], path)
    _restore_end(training)
    if (changed := _restore_random(training, state)) is not None:
        changes.append(changed)
    if changes and is_main_process():
        batch = state["config"]["run"].get("batch_size_train", "unknown size")
        logging.warning(
            "%s was written by %s with batches of %s, now %s with batches of %d: %s.",
            path, _processes(len(state["rng"])), batch, _processes(get_world_size()),
            runner.settings.batch_size_train, "; ".join(changes),
        )  # fmt: skip


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _restore_end(training: "Training") -> None:
    """With ``max_epoch`` the passes are what counts, also where some of them had other batches."""
    runner, settings = training.runner, training.settings
    left = runner.train_loader.batches_until(settings.max_epoch)
    if not settings.max_iters and left is not None:
        runner.max_iters = training.iters + math.ceil(left / settings.accum_grad_iters)


def _restore_random(training: "Training", state: dict[str, Any]) -> str | None:
    """The random numbers of this rank; of a rank that was not there, new ones. What is different now, for the log."""
    if get_rank() < len(state["rng"]):
        rng.restore(state["rng"][get_rank()])
    else:
        rng.seed(rng.derived_seed(training.settings.seed, get_rank(), training.iters))
    return "random numbers differ" if len(state["rng"]) != get_world_size() else None
