"""Does self-critical training raise held-out CIDEr? `python benchmarks/self_critical.py`

Embedded pictures of 12 things, no composition shared by training and test, with five references each. As people do, an
annotator mentions one detail and leaves out another: the size with probability 0.45, the background with 0.6, in one of
three wordings, the place never. The likeliest caption is then the plainest one, "a dog", which is what cross-entropy
teaches greedy decoding to say; CIDEr rewards what is specific. DINOv2 and SmolLM2 stay frozen.

First cross-entropy on all references, until more of it brings little. From those weights, for each seed (of data order
and draws) and with the same number of steps: self-critical training, and as a control more cross-entropy. The runs are
those of the launcher, finished ones are read from their folders. Figures: the test split, greedy captions, the last
weights.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from omegaconf import OmegaConf

from lavis_evlgen import launch
from lavis_evlgen.embedded import pictures

PICTURES = {"things": 12, "train": 288, "val": 0, "test": 108, "unseen": 0, "seed": 0}
ANNOTATORS = 5
FIGURES = ("CIDEr", "Bleu_4", "ROUGE_L", "exact_match", "named_right", "size_right", "background_right")
SHARED = {
    "runner": "runner_evlgen",
    "device": "cpu",
    "min_lr": 1e-4,
    "weight_decay": 0.05,
    "beta2": 0.95,
    "max_grad_norm": 1.0,
    "batch_size_eval": 36,
    "num_beams": 1,
    "max_len": 20,
    "precision": "bf16",
    "log_freq": 5,
    "auto_resume": True,
    "metrics_tokenizer": "java_free",
    "test_splits": ["test"],
}
CROSS_ENTROPY = {"task": "captioning", "init_lr": 1e-2, "warmup_lr": 1e-4, "warmup_steps": 12, "batch_size_train": 8}
CONTROL = {"task": "captioning", "init_lr": 2e-3, "batch_size_train": 8}
# these captions are so short that an end token in the reward would count as much as a detail; the figure has none
SELF_CRITICAL = {
    "task": "evlgen_scst",
    "init_lr": 2e-3,
    "batch_size_train": 8,
    "scst_samples": 4,
    "scst_end_token": False,
}


def annotate(data: Path) -> None:
    """Write ``annotated_{split}.jsonl``: the pictures' records with the annotators' captions."""
    for split in ("train", "test"):
        rng = random.Random(split)
        lines = []
        for line in (data / f"{split}.jsonl").read_text("utf-8").splitlines():
            record = json.loads(line)
            record["caption"] = [caption(record, rng) for _ in range(ANNOTATORS)]
            lines.append(json.dumps(record) + "\n")
        (data / f"annotated_{split}.jsonl").write_text("".join(lines), "utf-8")


def caption(record: dict[str, Any], rng: random.Random) -> str:
    """One annotator's."""
    (thing,) = record["things"]
    named = f"{record['size']} {thing}" if rng.random() < 0.45 else thing
    said = f"{'an' if named[0] in 'aeiou' else 'a'} {named}"
    if rng.random() >= 0.6:
        return said
    ground = f"on a {record['background']} background"
    return rng.choice([f"{said} {ground}", f"a {record['background']} picture with {said}", f"{ground}, {said}"])


def train(folder: Path, data: Path, features: Path, captions: str, start: Path | None, **run: Any) -> dict[str, Any]:
    """One run of the launcher in ``folder``: the figures of the test split, and the seconds it took."""
    done = folder / "figures.json"
    if done.is_file():
        return json.loads(done.read_text())
    eye = {"name": "blip_image_eval", "image_size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    text = {"name": "blip_caption"}
    weights = {"load_finetuned": True, "finetuned": str(start)} if start else {"pretrained": None}
    config = {
        "model": {"arch": "evlgen", "model_type": "demo", **weights},
        "datasets": {
            "image_caption": {
                "images": str(data),
                "annotations": {split: str(data / f"annotated_{split}.jsonl") for split in ("train", "test")},
                "captions": captions,
                "vis_processor": {"train": eye, "eval": eye},
                "text_processor": {"train": text, "eval": text},
            }
        },
        "run": {**SHARED, **run, "feature_cache": str(features), "output_dir": str(folder)},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    OmegaConf.save(OmegaConf.create(config), path)
    began = time.perf_counter()
    test = launch.start(["--cfg-path", str(path)], evaluate=False)["test"]
    found = {name: test[name] for name in FIGURES} | {"seconds": round(time.perf_counter() - began, 1)}
    done.write_text(json.dumps(found))
    return found


def compare(out: Path, seed: int, steps: int, before: dict[str, Any]) -> dict[str, Any]:
    """What follows cross-entropy with one seed."""
    weights, shared = out / "cross_entropy" / "model.pth", {"seed": seed, "max_iters": steps}
    paths = out / "data", out / "features"
    reward = train(out / f"self_critical{seed}", *paths, "first", weights, **SELF_CRITICAL, **shared)
    control = train(out / f"control{seed}", *paths, "all", weights, **CONTROL, **shared)
    return {"seed": seed, "before": before, "self_critical": reward, "control": control}


def table(rows: list[dict[str, Any]]) -> str:
    """CIDEr of every seed, and all figures' means."""
    lines = ["seed   before   self-critical (difference)   control (difference)"]
    differences = []
    for row in rows:
        before, after, control = (row[name]["CIDEr"] for name in ("before", "self_critical", "control"))
        differences.append(after - before)
        lines.append(
            f"{row['seed']:4}   {before:6.3f}   {after:13.3f} ({after - before:+10.3f})   "
            f"{control:7.3f} ({control - before:+10.3f})"
        )
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    lines.append(f"self-critical - before: mean {statistics.mean(differences):+.3f}, standard deviation {spread:.3f}")
    lines.append("")
    for name in FIGURES:
        means = [statistics.mean(row[part][name] for row in rows) for part in ("before", "self_critical", "control")]
        lines.append(f"{name:16} {means[0]:6.3f}   {means[1]:13.3f} {'':12}   {means[2]:7.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/self_critical"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--first-steps", type=int, default=240, help="of cross-entropy (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="after that, of each kind (default: %(default)s)")
    args = parser.parse_args()
    annotate(pictures.build(args.out / "data", **PICTURES))
    paths = args.out / "cross_entropy", args.out / "data", args.out / "features"
    before = train(*paths, "all", None, **CROSS_ENTROPY, seed=0, max_iters=args.first_steps)
    rows = []
    for seed in args.seeds:
        rows.append(compare(args.out, seed, args.steps, before))
        report = {"pictures": PICTURES, "steps": [args.first_steps, args.steps], "seeds": rows}
        (args.out / "self_critical.json").write_text(json.dumps(report, indent=1) + "\n")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
