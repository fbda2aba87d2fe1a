"""What text-guided reduction costs and saves in a ViT-B, and how well one block of look-ahead finds the official set.

    python benchmarks/elip_cost.py [--image-size 224 256] [--batch 4] [--repeats 5] [--threads 1] [--json FILE]

Forward and backward of LAVIS's ViT (its output squared), random weights, as costs do not depend on them. Variants run
in turn, A B A B; times are ratios of medians in this one run, least and largest those of single rounds; processor time
suffers less from other work on the machine than wall time. Memory is the peak of the tensors alive together, without
weights and their gradients.

Agreement: on the same tokens, at each of the three reductions, the share of the official kept (and of the official
fused) patches that the one-block look-ahead keeps (fuses) too, beside what a random choice would give; and the same for
the patches that are left at the end, each form having gone its own way. With random weights and random guides, and with
trained ones: the embedded DINOv2 ViT-S/14 on composed pictures, guided by MiniLM's CLS of their captions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lavis.models.vit import VisionTransformerEncoder
from PIL import Image
from torch import Tensor
from torchvision import transforms
from transformers import BertModel, BertTokenizer

from lavis_evlgen.embedded import pictures
from lavis_evlgen.embedded.weights import minilm
from lavis_evlgen.models.elip.clip import cls_guide
from lavis_evlgen.models.elip.guidance import Guidance
from lavis_evlgen.models.elip.start import load_vit
from lavis_evlgen.models.elip.vit import TextGuidedViT
from lavis_evlgen.peak_memory import PeakMemory

FORMS = {"official": Guidance(), "one block": Guidance(lookahead=1)}


def vit(image_size: int, **options: Any) -> TextGuidedViT:
    torch.manual_seed(0)
    return TextGuidedViT.guide_with(VisionTransformerEncoder(img_size=image_size, **options), Guidance())


def steps(encoder: TextGuidedViT, images: Tensor, guide: Tensor) -> dict[str, Callable[[], None]]:
    """A training step in the ViT for each variant, by name."""

    def step(guidance: Guidance | None) -> Callable[[], None]:
        def run() -> None:
            encoder.guidance = guidance or Guidance()
            with encoder.guided_by(None if guidance is None else guide):
                encoder.forward_features(images).square().mean().backward()

        return run

    return {"parent": step(None), **{name: step(guidance) for name, guidance in FORMS.items()}}


def cost(image_size: int, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    encoder = vit(image_size).train()
    images, guide = torch.randn(batch, 3, image_size, image_size), torch.randn(batch, encoder.embed_dim)
    variants = steps(encoder, images, guide)
    variants["parent"]()  # gradients are there from now on, and caches are warm
    rows: dict[str, dict[str, float]] = {}
    for name, run in variants.items():
        with PeakMemory() as memory:
            run()
        rows[name] = {"mib": memory.peak / 2**20}
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    seconds: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in variants} for clock in clocks}
    for _ in range(repeats):
        for name, run in variants.items():
            began = {clock: now() for clock, now in clocks.items()}
            run()
            for clock, now in clocks.items():
                seconds[clock][name].append(now() - began[clock])
    for name, row in rows.items():
        for clock, found in seconds.items():
            ratios = [own / parent for own, parent in zip(found[name], found["parent"], strict=True)]
            row[f"{clock}_seconds"] = statistics.median(found[name])
            row[f"{clock}_ratio"] = statistics.median(found[name]) / statistics.median(found["parent"])
            row[f"{clock}_least"], row[f"{clock}_largest"] = min(ratios), max(ratios)
        row["memory_ratio"] = row["mib"] / rows["parent"]["mib"]
    return rows


@torch.no_grad()
def agreement(encoder: TextGuidedViT, images: Tensor, guide: Tensor) -> list[dict[str, float | str]]:
    """One row a reduction, on the tokens of the official form, and one for the patches left at the end."""
    final = {}
    for name, guidance in FORMS.items():
        encoder.guidance = guidance
        encoder.finish(encoder.begin(images), guide)
        final[name] = _left(encoder)
    encoder.guidance = FORMS["official"]
    tokens = encoder.begin(images)
    num_patches, blocks, rows = tokens.shape[1] - 1, list(encoder.blocks), []
    for number, position in enumerate(encoder.guidance.positions):
        chosen = {
            name: guidance.reduction(number, tokens, guide, blocks, num_patches) for name, guidance in FORMS.items()
        }
        stays = {name: each.target[:, 1:] < each.num_out - 1 for name, each in chosen.items()}
        rows.append({"where": f"before block {position}", **_overlap(stays["official"], stays["one block"])})
        tokens = chosen["official"].apply(tokens)
        end = [*encoder.guidance.positions[1:], len(blocks)][number]
        for block in blocks[position:end]:
            tokens = block(tokens)
    rows.append({"where": "patches left at the end", **_overlap(final["official"], final["one block"])})
    return rows


def _left(encoder: TextGuidedViT) -> Tensor:
    """[B, N0], whether a patch is still a token of its own (it may have been fused and the fused token kept)."""
    source = encoder.source_map()
    assert source is not None
    return source.sizes().gather(1, source.target)[:, 1:] == 1


def _overlap(official: Tensor, other: Tensor) -> dict[str, float]:
    """Shares [of what `official` keeps, of what it fuses] that `other` keeps or fuses as well, and by chance."""
    kept, fused = official.sum().item(), (~official).sum().item()
    return {
        "kept": (official & other).sum().item() / kept,
        "kept_by_chance": other.float().mean().item(),
        "fused": (~official & ~other).sum().item() / fused,
        "fused_by_chance": (~other).float().mean().item(),
    }


def trained(count: int) -> tuple[TextGuidedViT, Tensor, Tensor]:
    """DINOv2 ViT-S/14 in LAVIS's ViT, pictures, and guides of their captions."""
    encoder = vit(224, patch_size=14, embed_dim=384, num_heads=6)
    load_vit(encoder, "embedded:dinov2-small")
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    process = transforms.Compose([transforms.ToTensor(), normalise])
    with tempfile.TemporaryDirectory() as folder:
        data = pictures.build(Path(folder, "data"), train=0, val=0, test=count, unseen=0, two_things=0.5)
        rows = [json.loads(line) for line in (data / "test.jsonl").read_text("utf-8").splitlines()]
        images = torch.stack([process(Image.open(data / row["image"]).convert("RGB")) for row in rows])
    tokens = BertTokenizer.from_pretrained(str(minilm()))(
        [row["caption"][0] for row in rows], padding=True, return_tensors="pt"
    )
    text = BertModel.from_pretrained(str(minilm()), add_pooling_layer=False)
    return encoder.eval(), images, cls_guide(text, **tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, nargs="+", default=[224, 256])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=32, help="for the agreement")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results: dict[str, Any] = {"options": {**vars(args), "json": None}, "cost": {}, "agreement": {}}
    print("| px | variant | seconds | time (least … largest) | processor time (least … largest) | MiB | memory |")
    print("|---|---|---|---|---|---|---|")
    for image_size in args.image_size:
        results["cost"][image_size] = cost(image_size, args.batch, args.repeats)
        for name, row in results["cost"][image_size].items():
            times = " | ".join(
                f"{row[f'{clock}_ratio']:.3f} ({row[f'{clock}_least']:.3f} … {row[f'{clock}_largest']:.3f})"
                for clock in ("wall", "processor")
            )
            print(
                f"| {image_size} | {name} | {row['wall_seconds']:.2f} | {times} | {row['mib']:.0f} | "
                f"{row['memory_ratio']:.3f} |",
                flush=True,
            )
    print("\n| weights | where | kept alike (by chance) | fused alike (by chance) |\n|---|---|---|---|")
    torch.manual_seed(1)
    random = (vit(224).eval(), torch.randn(args.pictures, 3, 224, 224), torch.randn(args.pictures, 768))
    for name, case in (("random ViT-B", random), ("DINOv2 ViT-S/14", trained(args.pictures))):
        results["agreement"][name] = agreement(*case)
        for row in results["agreement"][name]:
            print(
                f"| {name} | {row['where']} | {row['kept']:.3f} ({row['kept_by_chance']:.3f}) | "
                f"{row['fused']:.3f} ({row['fused_by_chance']:.3f}) |",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
