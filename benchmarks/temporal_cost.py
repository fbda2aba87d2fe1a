"""What the temporal contextualizer costs: parameters, time and memory beside the plain ViT, for clips of T frames.

    python benchmarks/temporal_cost.py [--frames 4 8 16] [--image-size 224] [--repeats 5] [--threads 2] [--json FILE]

A DINOv2 ViT-S/14, random weights (costs do not depend on them), one clip a batch. The variants run in turn, A B A B;
times are ratios of medians in this one run. Memory is the peak of the tensors alive together, without weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model

from lavis_evlgen.models.temporal import Contextualizer
from lavis_evlgen.models.vision import HuggingFaceTower
from lavis_evlgen.models.vit_blocks import checkpoint_blocks
from lavis_evlgen.peak_memory import PeakMemory


def vit(image_size: int) -> HuggingFaceTower:
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=384, num_attention_heads=6, patch_size=14, image_size=image_size)
    tower = HuggingFaceTower(Dinov2Model(config).eval(), image_size)
    tower.freeze()
    return tower


def variants(image_size: int) -> tuple[dict[str, Callable[[torch.Tensor], torch.Tensor]], int, int]:
    """What is timed, by name; and the parameters of ViT and contextualizer."""
    plain, wrapped, checkpointed = (vit(image_size) for _ in range(3))
    module = Contextualizer(wrapped, num_frames=4)
    checkpoint_blocks(checkpointed.encoder)
    saving = Contextualizer(checkpointed, num_frames=4)

    def step(contextualizer: Contextualizer, tower: HuggingFaceTower) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(clips: torch.Tensor) -> torch.Tensor:
            loss = contextualizer.encode(tower, clips).square().mean()
            loss.backward()
            return loss.detach()

        return run

    def through_plain(clips: torch.Tensor) -> torch.Tensor:
        plain.passes_gradient = True  # as far as anything that trains below the first block would need
        pixels = clips.flatten(0, 1).requires_grad_()
        loss = plain(pixels).square().mean()
        loss.backward()
        plain.passes_gradient = False
        return loss.detach()

    def without_gradient(run: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
        return torch.no_grad()(run)

    timed = {
        "forward, plain": without_gradient(lambda clips: plain(clips.flatten(0, 1))),
        "forward, contextualizer": without_gradient(lambda clips: module.encode(wrapped, clips)),
        "training, plain with gradient": through_plain,
        "training, contextualizer": step(module, wrapped),
        "training, contextualizer, use_grad_checkpoint": step(saving, checkpointed),
    }
    return timed, _count(plain), _count(module)


def measure(image_size: int, frames: int, repeats: int) -> dict[str, dict[str, float]]:
    timed, _, _ = variants(image_size)
    clips = torch.randn(1, frames, 3, image_size, image_size)
    rows = {}
    for name, run in timed.items():
        with PeakMemory() as memory:
            run(clips.clone())
        rows[name] = {"mib": memory.peak / 2**20}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, run in timed.items():
            began = time.perf_counter()
            run(clips.clone())
            seconds[name].append(time.perf_counter() - began)
    for name, found in seconds.items():
        rows[name]["seconds"] = statistics.median(found)
    for name, row in rows.items():
        reference = rows["forward, plain" if name.startswith("forward") else "training, plain with gradient"]
        row["time_ratio"] = row["seconds"] / reference["seconds"]
        row["memory_ratio"] = row["mib"] / reference["mib"]
    return rows


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    _, of_vit, added = variants(args.image_size)
    print(f"ViT {of_vit / 1e6:.2f}M parameters, contextualizer {added / 1e6:.2f}M ({added / of_vit:.1%})\n")
    print("| T | | seconds | time | MiB | memory |\n|---|---|---|---|---|---|")
    results = {}
    for frames in args.frames:
        results[frames] = measure(args.image_size, frames, args.repeats)
        for name, row in results[frames].items():
            print(
                f"| {frames} | {name} | {row['seconds']:.2f} | {row['time_ratio']:.2f} | {row['mib']:.0f} | "
                f"{row['memory_ratio']:.2f} |",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"vit": of_vit, "contextualizer": added, "frames": results}, indent=1))


if __name__ == "__main__":
    main()
