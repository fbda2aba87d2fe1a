"""A run on real tar and json data whose task writes what it is given: `torchrun mixture_run.py --cfg-path ...`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import tiny_lavis
import tiny_runs
import torch
from lavis.common.dist_utils import get_rank
from lavis.common.registry import registry

from lavis_evlgen.launch import main
from lavis_evlgen.registration_tools import register


@register("task", "recording_task")
class RecordingTask(tiny_lavis.TinyTask):
    """Notes the step, this process and the samples of every batch in drawn.RANK of the output folder."""

    def train_step(self, model: Any, samples: dict[str, Any]) -> torch.Tensor:
        step = samples["epoch"] * samples["num_iters_per_epoch"] + samples["iters"]
        path = Path(registry.get_path("output_dir")) / f"drawn.{get_rank()}"
        with path.open("a") as file:
            file.write(json.dumps({"step": step, "pid": os.getpid(), "ids": list(samples["image_id"])}) + "\n")
        return super().train_step(model, samples)


def launch_rank(*args: Any) -> None:
    tiny_runs.launch_rank(*args)


if __name__ == "__main__":
    sys.exit(main())
