"""Faults of numbers: pictures with NaN in them, alone or so many in a row that the run must stop."""

from pathlib import Path

import numpy as np

from lavis_evlgen.runners.samples import EpochBatches

from . import files
from .cases import kind
from .runs import USER_ERROR, Failed, Run
from .setups import RUN, numbers
from .workplace import Workplace

SEED = 42
BATCH: int = RUN["batch_size_train"]


def _order(epoch: int) -> list[int]:
    """The indices of an epoch in their order."""
    return EpochBatches(files.NUMBERS, BATCH, SEED).order(epoch).tolist()


def _poison(path: Path, indices: list[int]) -> None:
    content = np.load(path)
    content[indices, 0, 0, 0] = np.nan
    np.save(path, content)


def _indices(step: int) -> list[int]:
    """The samples of a step, from 1."""
    epoch, batch = divmod(step - 1, files.NUMBERS // BATCH)
    return _order(epoch)[batch * BATCH : (batch + 1) * BATCH]


def _without(place: Workplace, steps: list[int]) -> Run:
    """The run on intact data from which the batches of these steps were taken."""
    config = numbers(place.data("numbers"))
    times = {step: (step - 1) // (files.NUMBERS // BATCH) for step in steps}
    config["datasets"]["fault_numbers"]["leave_out"] = [[times[step], i] for step in steps for i in _indices(step)]
    run = Run(place.folder / "left_out", config)
    place.runs.append(run)
    if any(codes := run.finish()):
        raise Failed(f"the run without the steps {steps} ended with {codes}: {run.last_words()}")
    return run


@kind("NaN batch", 8, "numbers")
def nan_batch(place: Workplace) -> str:
    """Steps on such a batch are skipped, nothing else changes: the run equals one from which these batches were taken.

    Here and below that comparison leaves out gradient norms: a skipped step's is NaN in the one and 0 in the other.
    """
    data = place.copied_data("numbers")
    poisoned = place.rng.sample(range(files.NUMBERS), place.rng.randint(1, 2))
    _poison(data / "numbers.npy", poisoned)
    run = place.run("numbers", data=data, max_nan_steps=100)
    place.kill(run, "numbers")
    if any(codes := run.finish()):
        raise Failed(f"ended with {codes}: {run.last_words()}")
    steps = [step for step in range(1, run.steps_wanted + 1) if set(poisoned) & set(_indices(step))]
    skipped = [row["iters"] for row in run.records() if row.get("skipped")]
    if skipped != steps:
        raise Failed(f"skipped the steps {skipped}, not {steps}")
    place.compare(run, _without(place, steps), ignore=("grad_norm",))
    return f"{len(steps)} steps"


@kind("NaN batches in a row", 6, "numbers")
def nan_in_a_row(place: Workplace) -> str:
    """Too many stop the run. With the data mended it goes on as if they had never been.

    Where a checkpoint was written within the row, the steps before it stay skipped, and those alone.
    """
    data = place.copied_data("numbers")
    intact = (data / "numbers.npy").read_bytes()
    run = place.run("numbers", data=data)
    most = run.config["run"]["max_nan_steps"]
    first = place.rng.randint(1, files.NUMBERS // BATCH - most + 1)
    row = list(range(first, first + most))
    _poison(data / "numbers.npy", [place.rng.choice(_indices(step)) for step in row])
    code = run.finish()[0]
    if code != USER_ERROR or "in a row" not in run.last_words():
        raise Failed(f"{most} such steps in a row ended the run with {code}: {run.last_words()}")
    (data / "numbers.npy").write_bytes(intact)
    saved = max((int(path.stem.split("_")[1]) for path in run.out.glob("checkpoint_[0-9]*.pth")), default=0)
    stay = [step for step in row if step <= saved]
    if not stay:
        place.recover(run, place.reference("numbers"))
        return "all steps done again"
    place.recover(run, _without(place, stay), ignore=("grad_norm",))
    return "checkpoint within the row"
