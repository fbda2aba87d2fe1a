"""Run folders as `runner_evlgen` writes them, without a run."""

import json
import os
import socket
from pathlib import Path
from typing import Any

NOW = 1_800_000_000.0


def write_run(folder: Path, *records: dict[str, Any], age: float = 1.0, **run: Any) -> Path:
    """A folder whose log was written ``age`` seconds before NOW; ``run`` is its configuration's section."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(json.dumps({"run": run}))
    log = folder / "log.jsonl"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    os.utime(log, (NOW - age, NOW - age))
    return folder


def started(iters: int = 0, ago: float = 1000.0, **facts: Any) -> dict[str, Any]:
    """The record of a start; of this very process, unless ``pid`` or ``host`` say otherwise."""
    own = {"pid": os.getpid(), "host": socket.gethostname(), "max_iters": 100, "processes": 1}
    return {"iters": iters, "state": "started", **own, "time": NOW - ago, **facts}


def steps(*iters: int, loss: float = 2.0, seconds: float = 10.0, **more: Any) -> list[dict[str, Any]]:
    return [{"iters": each, "loss": loss, "lr": 1e-4, "seconds": seconds, **more} for each in iters]
