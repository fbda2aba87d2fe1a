"""What the frozen ViT's features on disk gain, in the demo's setting: `python benchmarks/feature_cache.py`

DINOv2 ViT-S/14 and SmolLM2-135M, batches of 8 embedded pictures of 224 pixels, the demo's optimiser. One model is
trained by turns, A B A B: on pictures, which the ViT sees at every step, and on features from disk. A step is what the
runner times: waiting for the batch, forward, backward, update. The same batch must give the same loss either way.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from lavis.common.registry import registry
from lavis.tasks import setup_task
from omegaconf import OmegaConf

from lavis_evlgen import launch
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.embedded import pictures
from lavis_evlgen.runners.features import use_feature_cache
from lavis_evlgen.runners.loaders import TrainLoader
from lavis_evlgen.runners.step import TrainStep

ROOT = Path(__file__).parent.parent


class Trainer:
    """The parts of a run that a step needs, on pictures or on features."""

    def __init__(self, config: Any, runner: Any, step: TrainStep, features: Path | None) -> None:
        cfg = launch.lavis_config(config)
        datasets = {
            name: registry.get_builder_class(name)(section).build_datasets()
            for name, section in cfg.datasets_cfg.items()
        }
        self.cache_seconds = 0.0
        if features:
            self.cache_seconds = use_feature_cache(datasets, ["train"], runner._model, str(features), runner.device)
        self.loader = TrainLoader({name: [of["train"]] for name, of in datasets.items()}, runner.settings)
        self.pictures = sum(len(of["train"]) for of in datasets.values())
        self.step = step

    def __call__(self) -> tuple[float, float]:
        """(seconds that the step waited for its batch, seconds of the step)."""
        began = time.perf_counter()
        batch = next(self.loader)
        waited = time.perf_counter() - began
        self.step([batch], {"epoch": 0, "iters": 0, "num_iters_per_epoch": 1})
        return waited, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/feature_cache"), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="run.num_workers (default: %(default)s)")
    args = parser.parse_args()
    folder = args.folder.absolute()
    data = pictures.build(folder / "data", things=4, train=96, val=24, test=0, unseen=0)
    shutil.rmtree(folder / "features", ignore_errors=True)  # computing them is part of the figures
    annotations = {split: str(data / f"{split}.jsonl") for split in ("train", "val")} | {
        "test": None,
        "test_unseen": None,
    }
    config = read_config(str(ROOT / "projects/demo/train.yaml"), [f"run.num_workers={args.workers}"])
    config.datasets.image_caption.merge_with({"images": str(data), "annotations": annotations})
    config.run.output_dir = str(folder / "run")
    launch.fill_in(config.run, launch.Placement(), evaluate=False)
    launch.choose_runner(config.run, stock=False)
    launch.check_config(config)
    launch.seed_everything(42)
    cfg = launch.lavis_config(OmegaConf.create(OmegaConf.to_container(config)))
    task = setup_task(cfg)
    runner = registry.get_runner_class("runner_evlgen")(cfg, task, task.build_model(cfg), {}, "benchmark")
    model = runner.model.train()
    step = TrainStep(model, task.train_step, runner.optimizer, runner.device, runner.precision, max_grad_norm=1.0)
    trainers = {
        "vit": Trainer(config, runner, step, None),
        "cached": Trainer(config, runner, step, folder / "features"),
    }

    losses = compare(trainers, model, task)
    for trainer in trainers.values():
        trainer()  # what happens once only
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    waited: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(args.rounds):
        for name, trainer in trainers.items():
            found = [trainer() for _ in range(args.steps)]
            waited[name] += [wait for wait, _ in found]
            seconds[name].append(sum(whole for _, whole in found) / args.steps)
            print(f"round {number + 1}, {name}: {seconds[name][-1]:.3f} s a step", flush=True)
    ratios = [a / b for a, b in zip(seconds["vit"], seconds["cached"], strict=True)]
    shares = {name: sum(waited[name]) / (args.steps * sum(seconds[name])) for name in trainers}
    cached = trainers["cached"]
    gained = statistics.median(seconds["vit"]) - statistics.median(seconds["cached"])
    report = {
        "threads": torch.get_num_threads(),
        "losses_of_one_batch": losses,
        "vit_step_s": round(statistics.median(seconds["vit"]), 3),
        "cached_step_s": round(statistics.median(seconds["cached"]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(each, 2) for each in ratios],
        "data_wait_vit": round(shares["vit"], 4),
        "data_wait_cached": round(shares["cached"], 4),
        "longest_wait_cached_ms": round(1000 * max(waited["cached"]), 1),
        "cache_s_a_picture": round(cached.cache_seconds / cached.pictures, 3),
        "passes_until_it_pays": round(
            cached.cache_seconds / cached.pictures / (gained / runner.settings.batch_size_train), 2
        ),
    }
    for trainer in trainers.values():
        trainer.loader.close()
    print(json.dumps(report, indent=1))


@torch.no_grad()
def compare(trainers: dict[str, Trainer], model: Any, task: Any) -> list[float]:
    """Losses of the same batch with the ViT and with its cached features."""
    model.eval()
    losses = [float(task.train_step(model=model, samples=next(each.loader))) for each in trainers.values()]
    model.train()
    return [round(loss, 5) for loss in losses]


if __name__ == "__main__":
    main()
