"""Memory of each process with whole and with sharded frozen parts (run.shard), and of a step with checkpointed layers.

    python benchmarks/sharding_memory.py [--processes 1 2 4] [--pictures 2] [--json FILE]

The demo's model: DINOv2 ViT-S/14 and SmolLM2-135M in fp32, both embedded. One training step on the CPU with gloo.
Resident memory is counted from before the model was built, so without Python and its libraries. "building" is the peak
up to the first step; "step" the peak in it; "held" what stays between steps. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch.distributed.elastic.utils.distributed import get_free_port

import lavis_evlgen  # noqa: F401  registers the model
from lavis_evlgen.peak_memory import PeakMemory
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.sharding import built, frozen_bytes, replicated

MIB = 2**20
M_MMAP_THRESHOLD = -3  # malloc.h
STEP_PICTURES = 16


def demo_model(**overrides: Any) -> torch.nn.Module:
    cls = registry.get_model_class("evlgen")
    config = OmegaConf.load(cls.default_config_path("demo")).model
    return cls.from_config(OmegaConf.merge(config, overrides)).train()


def batch(pictures: int) -> dict[str, Any]:
    texts = ["a red circle beside a blue square on a white table"] * pictures
    return {"image": torch.randn(pictures, 3, 224, 224), "text_input": texts}


class Resident:
    """Resident memory of this process in MiB, from when this was made."""

    def __init__(self) -> None:
        self.base = psutil.Process().memory_info().rss
        self.reset_peak()

    def reset_peak(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> float:
        status = Path("/proc/self/status").read_text()
        return (int(status.split("VmHWM:")[1].split()[0]) * 1024 - self.base) / MIB

    def now(self) -> float:
        return (psutil.Process().memory_info().rss - self.base) / MIB


def measure(rank: int, world_size: int, port: int, shard: str, pictures: int, results: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    # tensors of a MiB and more go back to the system when they are freed, so that resident memory is what is in use
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MIB)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.manual_seed(0)
    memory = Resident()
    model = built(demo_model, RunSettings(device="cpu", shard=shard))
    figures = {"frozen": frozen_bytes(model)[0] / MIB, "building": memory.peak()}
    wrapped = replicated(model, torch.device("cpu"))
    memory.reset_peak()
    wrapped(batch(pictures))["loss"].backward()
    results.put(figures | {"step": memory.peak(), "held": memory.now()})
    dist.barrier()


def row(context: Any, world_size: int, shard: str, pictures: int) -> dict[str, float]:
    """The largest figures of any process."""
    port = get_free_port()
    results = context.Queue()
    args = (world_size, port, shard, pictures, results)
    processes = [context.Process(target=measure, args=(rank, *args)) for rank in range(world_size)]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return {key: max(figures[key] for figures in found) for key in found[0]}


def step_memory(pictures: int) -> dict[str, float]:
    """Peak of a step's own tensors, in MiB, without and with checkpointed layers of the language model."""
    peaks = {}
    for on in (False, True):
        torch.manual_seed(0)
        model = demo_model(llm_grad_checkpoint=on)
        with PeakMemory() as memory:
            model(batch(pictures))["loss"].backward()
        peaks["with llm_grad_checkpoint" if on else "without"] = memory.peak / MIB
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pictures", type=int, default=2, help="of each process")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lavis_evlgen.launch"])
    print("| processes | run.shard | frozen weights | building | step | held |\n|---|---|---|---|---|---|")
    rows = []
    for world_size in args.processes:
        for shard in ("none", "frozen")[: 1 if world_size == 1 else 2]:
            figures = row(context, world_size, shard, args.pictures)
            rows.append({"processes": world_size, "shard": shard, **figures})
            cells = " | ".join(f"{figures[key]:.0f} MiB" for key in ("frozen", "building", "step", "held"))
            print(f"| {world_size} | {shard} | {cells} |", flush=True)
    steps = step_memory(STEP_PICTURES)
    for name, peak in steps.items():
        print(f"tensors of a step, {STEP_PICTURES} pictures, {name}: {peak:.0f} MiB")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "step": steps}, indent=1) + "\n")


if __name__ == "__main__":
    main()
