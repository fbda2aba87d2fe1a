"""A comparison made up so that every crossing can be worked out by hand: three arms, three seeds, one run unfinished.

Q-Former: 100 steps of 2 s; ours: 100 steps of 1 s; two stages: 100 steps of 3 s with another loss, 50 steps of 2 s.
Steps are logged a quarter slower than their median. Our loss is 1.6, 1.0, 0.6, 0.4 at steps 25, 50, 75, 100 with every
seed; Q-Former ends at 0.8, 1.0 and 0.7.
"""

import copy
import json
from pathlib import Path

BATCH = 8
SLOWER = 1.25
QFORMER_END = {42: 0.8, 43: 1.0, 44: 0.7}
TWO_STAGE_END = {42: 0.8, 44: 0.9}
SETTING = {
    "data": "30 things | one a picture",
    "images": {"train": 720, "val": 60, "test_unseen": 60},
    "vision": "hf:embedded:dinov2-small",
    "language": "embedded:smollm2-135m",
    "batch_size": BATCH,
    "precision": "bf16",
    "device": "cpu",
    "threads": 2,
    "processor": "AMD EPYC",
    "world_size": 1,
}
CLAIMS = [
    {"arm": "ours", "of": "qformer", "metric": "held_out_loss", "share_of_time": 0.45},
    {"arm": "ours", "of": "two_stage", "metric": "CIDEr", "share_of_time": 0.2, "source": "the paper"},
    {"arm": "ours", "of": "qformer", "metric": "CIDEr"},
    {"arm": "two_stage", "of": "qformer", "metric": "held_out_loss", "share_of_time": 3},
    {"arm": "ours", "of": "linear", "metric": "held_out_loss", "share_of_time": 0.5},
]


def document() -> dict:
    """The comparison as its JSON holds it."""
    ours = _arm("ours", "EVLGen, ours", [_stage("language modelling", 100, 1.0, 5)], ["model.tome_r=[128, 64]"])
    qformer = _arm("qformer", "Q-Former", [_stage("language modelling", 100, 2.0, 32)], [])
    stages = [_stage("ITC + ITM + LM", 100, 3.0, None), _stage("language modelling", 50, 2.0, 32)]
    two_stage = _arm("two_stage", "BLIP-2, two stages", stages, ["model.arch=blip2"], "baselines")
    for seed, end in QFORMER_END.items():
        losses = {25: 1.6, 50: 1.0, 75: 0.6, 100: 0.4}
        ours["runs"].append(_run(seed, ours, losses, {50: 2.0, 100: 6.0}, {"CIDEr": 6.0, "named_right": 0.8}))
        losses = {25: 2.0, 50: 1.5, 75: 1.2, 100: end}
        scores = {"CIDEr": end * 5, "named_right": 0.5}
        qformer["runs"].append(_run(seed, qformer, losses, {50: 1.0, 100: 4.0}, scores))
    for seed, end in TWO_STAGE_END.items():
        losses = {50: 0.01, 100: 0.01, 125: 1.2, 150: end}
        two_stage["runs"].append(
            _run(seed, two_stage, losses, {125: 5.0, 150: 7.0}, {"CIDEr": 7.0, "named_right": 0.9})
        )
    two_stage["runs"].insert(1, _run(43, two_stage, {50: 0.01, 100: 0.01, 125: 1.3}, {125: 4.5}, None))
    return {
        "format": 1,
        "name": "compare_demo",
        "command": "python -m lavis_evlgen.cli compare --cfg-path projects/blip2/compare_demo.yaml",
        "date": "2026-11-22",
        "versions": {"python": "3.11.7", "torch": "2.6.0"},
        "setting": copy.deepcopy(SETTING),
        "seeds": [42, 43, 44],
        "tuning": {
            "key": "run.init_lr",
            "values": [0.0003, 0.001, 0.003],
            "steps": 100,
            "split": "val",
            "metric": "held_out_loss",
            "scores": {
                "ours": {"0.0003": 1.2, "0.001": 0.9, "0.003": 1.0},
                "qformer": {"0.0003": 0.95, "0.001": 1.4, "0.003": None},
            },
            "chosen": {"ours": 0.001, "qformer": 0.0003},
        },
        "sweep": None,
        "reference": "qformer",
        "claims": copy.deepcopy(CLAIMS),
        "arms": [ours, qformer, two_stage],
    }


def swept() -> dict:
    """The same with ours and Q-Former as arms of a sweep over r."""
    found = document()
    found["sweep"] = {"key": "model.tome_r", "values": ["38", "19"], "arms": ["ours", "qformer"]}
    found["arms"], found["claims"], found["tuning"] = found["arms"][:2], None, None
    return found


def write(folder: Path, found: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(document() if found is None else found))
    return folder


def _stage(title: str, steps: int, seconds: float, tokens: int | None) -> dict:
    return {
        "title": title,
        "steps": steps,
        "trainable_parameters": 11_338_560,
        "soft_prompt_tokens": tokens,
        "seconds_per_step": seconds,
        "peak_memory_gib": 1.5,
    }


def _arm(name: str, title: str, stages: list, overrides: list[str], group: str | None = None) -> dict:
    return {"name": name, "title": title, "overrides": overrides, "group": group, "stages": stages, "runs": []}


def _run(seed: int, arm: dict, losses: dict, ciders: dict, scores: dict | None) -> dict:
    """A run with a curve {step: held-out loss} and {step: CIDEr}; unfinished without scores of the test splits."""
    curve = [
        {**_place(arm, step), "loss": None, "held_out_loss": loss, "shuffled_loss": loss + 1.5}
        for step, loss in losses.items()
    ]
    evaluations = [{**_place(arm, step), "split": "val", "scores": {"CIDEr": each}} for step, each in ciders.items()]
    run = {"seed": seed, "finished": scores is not None, "curve": curve, "evaluations": evaluations, "final": None}
    if scores is not None:
        last = curve[-1]
        kept = {"held_out_loss": last["held_out_loss"], "shuffled_loss": last["shuffled_loss"]}
        unseen = {"CIDEr": 0.5, "named_right": 0.0}
        run["final"] = {**kept, "seconds": last["seconds"], "steps": last["step"]}
        run["final"]["scores"] = {"test": scores, "test_unseen": unseen}
    return run


def _place(arm: dict, step: int) -> dict:
    first = arm["stages"][0]
    stage, before = (1, 0) if step <= first["steps"] else (2, first["steps"])
    seconds = before * first["seconds_per_step"] + (step - before) * arm["stages"][stage - 1]["seconds_per_step"]
    return {"stage": stage, "step": step, "images": BATCH * step, "seconds": SLOWER * seconds}
