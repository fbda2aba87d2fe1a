"""Short runs of BLIP-2's tiny models by our runner: four steps and an evaluation on eight pictures."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from reports.finished_run import datasets

from lavis_evlgen import launch

SPLITS = {"train": 8, "val": 4}
RUN = {
    "task": "captioning",
    "max_iters": 4,
    "iters_per_inner_epoch": 4,
    "batch_size_train": 4,
    "batch_size_eval": 4,
    "init_lr": 1e-3,
    "max_len": 6,
    "num_beams": 2,
    "health_freq": 4,
    "health_batches": 1,
    "valid_splits": ["val"],
    "device": "cpu",
    "num_threads": 1,
    "seed": 1,
    "auto_resume": True,
}


def train(
    folder: Path, files: dict[str, str], model: dict[str, Any], out: str = "out", **run: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train into folder/out on what `make_data` wrote into the folder; metrics, and the records of log.jsonl."""
    run = {**RUN, "output_dir": str(folder / out), **run}
    path = folder / f"{out}.yaml"
    OmegaConf.save(OmegaConf.create({"model": model, "datasets": datasets(folder, files), "run": run}), path)
    metrics = launch.start(["--cfg-path", str(path)], evaluate=False)
    return metrics, [json.loads(line) for line in (folder / out / "log.jsonl").read_text().splitlines()]
