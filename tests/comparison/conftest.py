"""A comparison of tiny models that train in milliseconds."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parent.parent / "runners"))

import tiny_runs

torch.set_num_threads(1)

ARMS = {
    "plain": {"title": "as it is"},
    "wide": {"model": {"width": 32}},
    "two": {
        "stages": [
            {"title": "first", "run": {"max_iters": 4}},
            {"title": "second", "run": {"init_lr": 0.02}},
        ]
    },
}


@pytest.fixture
def comparison(tmp_path: Path) -> Callable[..., str]:
    """Writes a yaml with the given `compare` section; its path. Output goes to tmp_path/NAME."""

    def write(name: str = "tiny", run: dict[str, Any] | None = None, **compare: Any) -> str:
        section = {"arms": ARMS, "seeds": [1], "turn": 3, **compare}
        content = {
            "model": {"arch": "tiny", "model_type": "default"},
            "datasets": {"tiny_data": {"train": 40}},
            "run": {
                **tiny_runs.RUN,
                "output_dir": str(tmp_path / name),
                "valid_splits": ["val"],
                "test_splits": ["test_unseen"],
                "health_freq": 4,
                "health_batches": 3,
                "log_freq": 2,
                **(run or {}),
            },
            "compare": {key: value for key, value in section.items() if value is not None},
        }
        path = tmp_path / f"{name}.yaml"
        OmegaConf.save(OmegaConf.create(content), path)
        return str(path)

    return write
