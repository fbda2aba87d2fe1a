"""Tiny models in checkpoints that hold all their weights, so that a server of its own process says the same."""

import argparse

import pytest
import torch
from page.server import Server

from lavis_evlgen.page.captioner import Captioner
from lavis_evlgen.page.served import load_served
from lavis_evlgen.token_reduction import token_counts

NORMAL = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


@pytest.fixture(scope="session")
def checkpoints(tiny_config, tiny_model, tmp_path_factory):
    """Files by name: ``image``, ``other`` (another connector, the same frozen parts) and ``video``."""
    folder = tmp_path_factory.mktemp("served")
    kinds = {"image": ("any", "evlgen", "blip_image_eval"), "video": ("video", "evlgen_video", "evlgen_video_eval")}
    files = {}
    for name in ("image", "other", "video"):
        kind, arch, processor = kinds.get(name, kinds["image"])
        model = tiny_model(kind)
        if name == "other":
            torch.nn.init.normal_(model.prompt_proj.weight, generator=torch.Generator().manual_seed(1))
        processor = {"name": processor, "image_size": 56, **NORMAL}
        files[name] = folder / f"{name}.pth"
        config = {"model": {**tiny_config(kind), "arch": arch}, "preprocess": {"vis_processor": {"eval": processor}}}
        torch.save({"model": model.state_dict(), "config": config}, files[name])
    return files


def served_options(checkpoint, *beside) -> argparse.Namespace:
    return argparse.Namespace(
        model=None, model_type=None, checkpoint=str(checkpoint), device="cpu", beside=[str(each) for each in beside]
    )


def tokens_by_layer(served, tokens: int) -> list[int]:
    """Tokens before the connector's first layer and after each."""
    protect = served.model.connector.protect_cls
    return token_counts(served.visual_tokens, served.schedule(tokens), protect_cls=protect)


@pytest.fixture(scope="session")
def served(checkpoints):
    """The three of them: (image, other, video)."""
    return load_served(served_options(*checkpoints.values()))


@pytest.fixture(scope="session")
def captioner(served):
    captioner = Captioner(served)
    yield captioner
    captioner.close()


@pytest.fixture(scope="session")
def server(checkpoints, tmp_path_factory):
    """A server of the models ``image`` and ``other`` that takes files up to 2 MB."""
    options = ("--checkpoint", str(checkpoints["image"]), "--beside", str(checkpoints["other"]), "--max-mb", "2")
    server = Server(tmp_path_factory.mktemp("server"), *options)
    yield server
    server.process.kill()
    server.process.wait()
