"""The paper's own costs beside ours: ``python -m lavis_evlgen.cost.paper`` prints two tables in markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf

from lavis_evlgen.cost.estimate import UTILISATION, Assumptions, estimate

TOMEFORMER = {"arch": "evlgen_opt", "model_type": "pretrain_opt2.7b"}
TOMEFORMER_55M = {"arch": "evlgen_opt", "model_type": "pretrain_opt2.7b_55m"}
STAGE1 = {"arch": "blip2_stage1", "model_type": "pretrain"}
STAGE2 = {"arch": "blip2_opt", "model_type": "pretrain_opt2.7b"}
STEPS = 5000
IMAGES_A_STEP = 1600  # paper, section 4; BLIP-2's runs are taken to have had as many


@dataclass(frozen=True)
class Row:
    """A connector's multiply-accumulates by the paper (table 9), and the hours of 5,000 steps with it (table 2)."""

    name: str
    model: dict[str, Any]
    macs: float
    hours: float


ROWS = (
    Row("TomeFormer, 12 layers, r = 19", TOMEFORMER, 11.9e9, 2 + 45 / 60),
    Row("TomeFormer, 6 layers, r = 40 (55M)", TOMEFORMER_55M, 5.6e9, 2 + 35 / 60),
    Row("Q-Former, BLIP-2 stage 2", STAGE2, 6.28e9, 2 + 40 / 60),
    Row("Q-Former, BLIP-2 stage 1", STAGE1, 36.7e9, 3 + 50 / 60),
)


def costs_of(model: dict[str, Any], text_length: int = 32) -> dict[str, Any]:
    """The costs of 5,000 steps as the paper made them: 1,600 images each on 8 A100, fp16."""
    assumptions = Assumptions(text_length)
    run = {"batch_size_train": IMAGES_A_STEP // assumptions.gpus, "max_iters": STEPS, "precision": "fp16"}
    return estimate(OmegaConf.create({"model": model, "run": run}), assumptions)


def macs_of_stage1(costs: dict[str, Any]) -> dict[str, float]:
    """The linear layers of the first stage: in all its passes, and with one of the two over text alone left out.

    The passes are LAVIS's: the queries with the image; the text (for the contrast); queries and text with the image,
    three times (the pair, with another image, with another text); the text after the queries, and the vocabulary.
    """
    total, text = costs["connector"]["linear"], costs["connector"]["passes"][1]["linear"]
    return {"all passes": total, "all but a pass over text alone": total - text}


def implied_utilisation(costs: dict[str, Any], hours: float) -> float:
    """The utilisation at which the costs' steps take so many hours."""
    return costs["setting"]["utilisation"] * costs["time"]["hours"] / hours


def two_rates(found: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Utilisations of the frozen and of the trained parts that fit the paper's clock best, and the hours by them.

    Least squares of the relative errors over `ROWS`: four times, two unknowns, so a description rather than a law.
    """
    times = []
    for costs in found:
        macs, setting = costs["macs_an_image"], costs["setting"]
        each = {name: part["forward"] + part["backward"] for name, part in macs.items()}
        frozen = sum(each.get(name, 0.0) for name in ("vision", "language"))
        flops = torch.tensor([frozen, each["total"] - frozen], dtype=torch.float64) * 2 * STEPS * IMAGES_A_STEP
        times.append(flops / setting["gpus"] / setting["device_flops"] / 3600)
    hours = torch.tensor([[row.hours] for row in ROWS], dtype=torch.float64)
    slowness = torch.linalg.lstsq(torch.stack(times) / hours, torch.ones_like(hours)).solution
    return (1 / slowness).flatten().tolist(), (torch.stack(times) @ slowness).flatten().tolist()


def main() -> None:
    """Print table 9 and the clock of table 2, each beside ours."""
    found = [costs_of(row.model) for row in ROWS]
    print("| connector | paper | ours | |\n|---|---|---|---|")
    for row, costs in zip(ROWS[:-1], found, strict=False):
        print(_compare(row.name, row.macs, costs["connector"]["linear"]))
    stage1 = macs_of_stage1(found[-1]) | {"all passes, 26 tokens": costs_of(STAGE1, 26)["connector"]["linear"]}
    for passes, macs in stage1.items():
        print(_compare(f"{ROWS[-1].name}, {passes}", ROWS[-1].macs, macs))
    (frozen, trained), by_two = two_rates(found)
    titles = [f"{STEPS:,} steps of {IMAGES_A_STEP:,}", "paper", f"ours at {UTILISATION:.0%}", "the paper's utilisation"]
    titles.append(f"frozen parts at {frozen:.1%}, trained at {trained:.1%}")
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row, costs, fitted in zip(ROWS, found, by_two, strict=True):
        share, ours = implied_utilisation(costs, row.hours), costs["time"]["hours"]
        print(f"| {row.name} | {row.hours:.2f} h | {ours:.2f} h | {share:.1%} | {fitted:.2f} h |")


def _compare(name: str, paper: float, ours: float) -> str:
    return f"| {name} | {paper / 1e9:.4g} G | {ours / 1e9:.2f} G | {ours / paper - 1:+.1%} |"


if __name__ == "__main__":
    main()
