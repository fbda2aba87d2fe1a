"""Files of a run that survive interruption: written beside their place and renamed, read without running code."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lavis_evlgen.datasets.whole_files import UNFINISHED, unfinished
from lavis_evlgen.errors import EvlgenError, WeightsError
from lavis_evlgen.models.safe_loading import files_beside, read_plain
from lavis_evlgen.runners.data_workers import worker_deaths_held_back

BEST = "checkpoint_best.pth"
BEST_COPY = "checkpoint_best_copy.pth"
EXPORT = "model.pth"
_NUMBERED = re.compile(r"checkpoint_(\d+)\.pth")


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` so that ``path`` is either the old file or the whole new one; EvlgenError when it cannot be."""
    try:
        with unfinished(path) as temporary, open(temporary, "wb") as file:
            with worker_deaths_held_back():
                torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise EvlgenError(
            f"could not write {path}: {_cause(error)}. Files written before are as they were; free some space (or set "
            "another run.output_dir) and start the same command with run.auto_resume=True"
        ) from error


def _cause(error: BaseException) -> BaseException:
    """The system's error, which torch hides behind one about the position in the file."""
    while not isinstance(error, OSError) and error.__context__ is not None:
        error = error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU; WeightsError naming the file when it is missing or damaged."""
    if not os.path.isfile(path):
        raise WeightsError(f"checkpoint {path} does not exist{files_beside(path)}")
    try:
        state = read_plain(path)
    except ValueError as error:
        raise WeightsError(f"checkpoint {path} is damaged or is no checkpoint: {error}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise WeightsError(f"{path} is no checkpoint: it has no entry 'model'")
    weights = state["model"]
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in weights.items()
    ):
        raise WeightsError(f"{path} is no checkpoint: its entry 'model' holds other things than tensors by name")
    return state


@contextmanager
def restoring(path: Path | str) -> Iterator[None]:
    """Whatever a checkpoint lacks, or holds in another kind than ours, becomes a WeightsError that names it."""
    try:
        yield
    except EvlgenError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path} does not hold what a run goes on from ({error!r}): delete it, or set another run.output_dir"
        ) from error


class CheckpointFolder:
    """The checkpoints of one run: ``checkpoint_{iters}.pth`` (the newest ``keep`` of them) and the best one."""

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.keep = keep

    def clean(self) -> None:
        """Remove what a killed run was writing."""
        for leftover in self.path.glob(f"*{UNFINISHED}"):
            leftover.unlink(missing_ok=True)

    def numbered(self) -> list[Path]:
        """Resume checkpoints, newest first."""
        found = [path for path in self.path.glob("checkpoint_*.pth") if _NUMBERED.fullmatch(path.name)]
        return sorted(found, key=_iters, reverse=True)

    def save(self, state: dict[str, Any]) -> Path:
        """Write the checkpoint of ``state["iters"]``, then remove those that are too old.

        One of a later step is damaged, or the run would have gone on from it: it does not count.
        """
        path = self.path / f"checkpoint_{state['iters']}.pth"
        save_atomically(state, path)
        for old in [each for each in self.numbered() if _iters(each) <= state["iters"]][self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def save_best(self, state: dict[str, Any]) -> None:
        """Write the best one twice: no older one could take its place, as with the numbered ones, if it is damaged."""
        for name in (BEST, BEST_COPY):
            save_atomically(state, self.path / name)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read; damaged ones are named in a warning."""
        for path in self.numbered():
            try:
                return path, load(path)
            except WeightsError as error:
                logging.warning("%s; going on with the one before it.", error)
        return None

    def best(self) -> dict[str, Any] | None:
        """The best checkpoint or its copy, or None when there is none or both are damaged."""
        for name, otherwise in ((BEST, f"taking {BEST_COPY}"), (BEST_COPY, "going on as if there were none")):
            if (self.path / name).is_file():
                try:
                    return load(self.path / name)
                except WeightsError as error:
                    logging.warning("%s; %s.", error, otherwise)
        return None


def _iters(path: Path) -> int:
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else -1


def check_same_model(saved: dict[str, Any], configured: dict[str, Any], path: Path) -> None:
    """Raise WeightsError naming the differing keys when a checkpoint was trained with another `model` section."""
    old, new = saved.get("model", {}), configured.get("model", {})
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        changes = ", ".join(f"model.{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in differing)
        raise WeightsError(
            f"{path} was trained with another configuration ({changes}): set another run.output_dir for a new run, "
            "or put the configuration back"
        )
