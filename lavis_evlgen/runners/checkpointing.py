"""Files of a run that survive interruption: written beside their place and renamed, read without running code."""

import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from lavis_evlgen.errors import EvlgenError, WeightsError

BEST = "checkpoint_best.pth"
EXPORT = "model.pth"
_TEMPORARY = ".unfinished"


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write ``state`` so that ``path`` is either the old file or the whole new one; EvlgenError when it cannot be."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise EvlgenError(
            f"could not write {path}: {error}. Files written before are as they were; free some space (or set another "
            "run.output_dir) and start the same command with run.auto_resume=True"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint to the CPU; WeightsError naming the file when it is missing or damaged."""
    if not Path(path).is_file():
        raise WeightsError(f"checkpoint {path} does not exist")
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums that it writes
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:
                    raise ValueError(f"checksum of {part} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler fail in a dozen ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"checkpoint {path} is damaged or is no checkpoint: {reason}") from error
    if not isinstance(state, dict) or "model" not in state:
        raise WeightsError(f"{path} is no checkpoint: it has no entry 'model'")
    return state


class CheckpointFolder:
    """The checkpoints of one run: ``checkpoint_{iters}.pth`` (the newest ``keep`` of them) and the best one."""

    def __init__(self, path: Path, keep: int = 2) -> None:
        self.path = Path(path)
        self.keep = keep

    def clean(self) -> None:
        """Remove what a killed run was writing."""
        for leftover in self.path.glob(f"*{_TEMPORARY}"):
            leftover.unlink(missing_ok=True)

    def numbered(self) -> list[Path]:
        """Resume checkpoints, newest first."""
        found = []
        for path in self.path.glob("checkpoint_*.pth"):
            if match := re.fullmatch(r"checkpoint_(\d+)\.pth", path.name):
                found.append((int(match[1]), path))
        return [path for _, path in sorted(found, reverse=True)]

    def save(self, state: dict[str, Any]) -> Path:
        """Write the checkpoint of ``state["iters"]``, then remove those that are too old."""
        path = self.path / f"checkpoint_{state['iters']}.pth"
        save_atomically(state, path)
        for old in self.numbered()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def save_best(self, state: dict[str, Any]) -> None:
        save_atomically(state, self.path / BEST)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read; damaged ones are named in a warning."""
        for path in self.numbered():
            try:
                return path, load(path)
            except WeightsError as error:
                logging.warning("%s; going on with the one before it.", error)
        return None

    def best(self) -> dict[str, Any] | None:
        """The best checkpoint, or None when there is none or it is damaged."""
        if not (self.path / BEST).is_file():
            return None
        try:
            return load(self.path / BEST)
        except WeightsError as error:
            logging.warning("%s; the last weights are used instead.", error)
            return None


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
