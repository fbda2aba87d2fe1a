"""LAVIS's own runners drive our models, as far as a machine without a GPU allows.

Two parts of LAVIS need CUDA whatever the device is, and are replaced here: PrefetchLoader's side stream and the
gathering of statistics on "cuda". Everything else (runner, task loop, optimiser, checkpoints, gloo) is LAVIS's.
"""

import pytest
import torch
import torch.distributed as dist
from lavis.common.logger import SmoothedValue
from lavis.runners import runner_base
from omegaconf import OmegaConf
from reports.finished_run import datasets, make_data

from lavis_evlgen import launch


class PlainLoader:
    """PrefetchLoader without its CUDA stream."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)

    def __len__(self):
        return len(self.loader)

    def __getattr__(self, name):
        return getattr(self.loader, name)


@pytest.fixture
def gloo(monkeypatch):
    monkeypatch.setattr(runner_base, "PrefetchLoader", PlainLoader)
    monkeypatch.setattr(SmoothedValue, "synchronize_between_processes", lambda self: None)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("runner", "length"),
    [("runner_iter", {"max_iters": 4, "iters_per_inner_epoch": 2}), ("runner_base", {"max_epoch": 2})],
)
def test_stock_runners_train_and_evaluate(tmp_path, tiny_config, monkeypatch, gloo, runner, length):
    files = make_data(tmp_path / "pictures", {"train": 6, "val": 2, "test": 2}, labels=False)
    config = {
        "model": {"arch": "evlgen", "model_type": "custom", **tiny_config("any")},
        "datasets": datasets(tmp_path / "pictures", files),
        "run": {
            "runner": runner,
            "task": "captioning",
            "lr_sched": "linear_warmup_cosine_lr",
            "init_lr": 1e-3,
            "min_lr": 1e-4,
            "weight_decay": 0.05,
            "batch_size_train": 2,
            "batch_size_eval": 2,
            "num_workers": 0,
            "max_len": 4,
            "min_len": 1,
            "num_beams": 2,
            "output_dir": str(tmp_path / "out"),
            "evaluate": False,
            "train_splits": ["train"],
            "valid_splits": ["val"],
            "test_splits": ["test"],
            "device": "cpu",
            "seed": 1,
            **length,
        },
    }
    OmegaConf.save(OmegaConf.create(config), tmp_path / "stock.yaml")
    monkeypatch.chdir(tmp_path)
    launch.start(["--cfg-path", "stock.yaml", "--stock-runner"], evaluate=False)
    assert not dist.is_initialized()
    (folder,) = (tmp_path / "out").iterdir()
    best = torch.load(folder / "checkpoint_best.pth", weights_only=True)
    assert best["optimizer"]["state"] and any(name.startswith("connector.") for name in best["model"])
    assert '"val_agg_metrics"' in (folder / "log.txt").read_text()
    assert list((folder / "result").glob("test*.json"))
