"""What a checkpoint holds, which one a run goes on from, and how it is put back."""

import logging
from typing import TYPE_CHECKING, Any

from lavis.common.dist_utils import get_rank, get_world_size

from lavis_evlgen.errors import WeightsError
from lavis_evlgen.runners import rng
from lavis_evlgen.runners.checkpointing import check_same_model, load
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
        check_same_model(state["config"], runner.config.to_dict(), path)
        best = runner.folder.best()
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
    runner = training.runner
    load_trainable_state(runner.unwrap_dist_model(runner.model), state["model"], path)
    runner.optimizer.load_state_dict(state["optimizer"])
    training.step.scaler.load_state_dict(state["scaler"])
    runner.train_loader.load_state_dict(state["loader"])
    training.iters = training.saved_at = state["iters"]
    training.best = state["best"]
    if len(state["rng"]) == get_world_size():
        rng.restore(state["rng"][get_rank()])
    else:
        logging.warning(
            "%s was written by %d processes, now there are %d: training goes on, with other random numbers.",
            path, len(state["rng"]), get_world_size(),
        )  # fmt: skip
