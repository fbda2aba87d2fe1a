"""What one of several processes finds when it compares a sharded tiny model with a whole one."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.sharding import as_many_everywhere, built, frozen_bytes, in_step
from lavis_evlgen.runners.trainable import LENT

ANSWERS = ["a car", "the cat", "on"]


def compare(rank: int, world_size: int, port: int, configs: dict[str, dict[str, Any]], out: str) -> None:
    """Write to ``out.RANK``, by the name of the configuration, what :func:`_compared` finds."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    found: dict[str, Any] = {name: _compared(config, rank) for name, config in configs.items()}
    found["in_step"] = [_shown(batch) for batch in in_step(_batches(rank))]
    found["as_many"] = as_many_everywhere([rank * 10 + number for number in range(1 + 2 * rank)])
    Path(f"{out}.{rank}").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def _compared(config: dict[str, Any], rank: int) -> dict[str, Any]:
    """Losses, gradients, texts and bytes of a whole model and of a sharded one with the same weights.

    Ranks have batches of different sizes, and texts of different lengths.
    """
    turn = []

    def build() -> Any:
        turn.append(time.monotonic())
        model = _model(config)
        turn.append(time.monotonic())
        return model

    whole, part = _model(config), built(build, RunSettings(device="cpu", shard="frozen"))
    generator = torch.Generator().manual_seed(rank)
    size = 3 - rank
    frames = (3,) if config["arch"] == "evlgen_video" else ()
    batch = {
        "image": torch.randn(size, 3, *frames, 56, 56, generator=generator),
        "text_input": ["a car", "the cat is on the car", "of"][:size],
    }
    found: dict[str, Any] = {"turn": turn, "losses": [], "same_gradient": []}
    for _ in range(2):
        pair = whole(batch)["loss"], part(batch)["loss"]
        for loss in pair:
            loss.backward()
        found["losses"].append([float(loss.detach()) for loss in pair])
        gradients = [[p.grad for p in model.parameters() if p.requires_grad] for model in (whole, part)]
        same = all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
        found["same_gradient"].append(same and any(bool(gradient.any()) for gradient in gradients[0]))
    found["captions"] = [
        [model.generate(batch, max_length=4 + 4 * rank, **options) for model in (whole, part)]
        for options in ({"num_beams": 1}, {"num_beams": 3, "num_captions": 2})
    ]
    found["answers"] = [
        model.predict_answers(batch, inference_method="rank", answer_list=ANSWERS) for model in (whole, part)
    ]
    found["drawn"] = []
    for model in (whole, part):
        torch.manual_seed(rank)
        found["drawn"].append(model.sample(batch, 2, max_length=3 + 3 * rank).ids.tolist())
    found["bytes"] = frozen_bytes(part)
    found["whole_bytes"] = frozen_bytes(whole)
    return found


def _model(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    values = {key: value for key, value in config.items() if key != "arch"}
    return registry.get_model_class(config["arch"]).from_config(OmegaConf.create(values)).eval()


def _batches(rank: int) -> list[dict[str, Any]]:
    """Two batches on rank 0, the second unreadable; four on the last rank, whose third is unreadable."""
    good = [{"image_id": [f"{rank}{number}"]} for number in range(2)]
    return [good[0], {"bad_samples": ["x"]}] if rank == 0 else [*good, {"bad_samples": ["y"]}, {"image_id": []}]


def _shown(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, LENT: batch[LENT]["image_id"]} if LENT in batch else batch
