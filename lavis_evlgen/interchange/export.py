"""A run's model as a folder: `cli export`."""

from __future__ import annotations

from pathlib import Path

from lavis_evlgen.errors import WeightsError
from lavis_evlgen.interchange.card import model_card
from lavis_evlgen.interchange.checkpoint import Checkpoint
from lavis_evlgen.interchange.folder import write_folder
from lavis_evlgen.interchange.records import read_records
from lavis_evlgen.models.safe_loading import files_beside
from lavis_evlgen.runners.checkpointing import BEST, EXPORT


def export(source: str | Path, out: str | Path, *, dtype: str = "fp32", license_name: str | None = None) -> Path:
    """Write the folder of a run's model, and a card from the run's records; no frozen part is loaded.

    Args:
        source: the run's output folder (its model.pth, or checkpoint_best.pth while it runs), or a checkpoint in it.
        out: the folder to write.
        dtype: of the weights: fp32, fp16 or bf16.
        license_name: of the weights, as the hub names licences; None leaves it open.

    Raises:
        WeightsError: there is no checkpoint, it is damaged, or a weight does not fit the dtype. ConfigError: the
            checkpoint does not say of which model it is. DataError: a record of the run is damaged.
    """
    path = checkpoint_of(Path(source).expanduser())
    checkpoint = Checkpoint.read(str(path), "export")
    files = checkpoint.files()
    out = Path(out).expanduser()
    records = read_records(path.parent, checkpoint.config)
    card = model_card(out.name, files, checkpoint.weights, dtype, records, license_name)
    return write_folder(out, files, checkpoint.weights, dtype, card)


def checkpoint_of(source: Path) -> Path:
    """The checkpoint that a run's output folder is exported by; a file is itself."""
    if not source.is_dir():
        return source
    for name in (EXPORT, BEST):
        if (source / name).is_file():
            return source / name
    raise WeightsError(f"{source} has no {EXPORT} and no {BEST} yet{files_beside(source)}")
