"""Shared by all tests: one thread, no hub, tiny models."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf

import lavis_evlgen  # noqa: F401  (registers everything)
from lavis_evlgen import cli

torch.set_num_threads(1)

MODELS = {"opt": "evlgen_opt", "vicuna": "evlgen_vicuna", "any": "evlgen"}
PARITY = Path(os.environ.get("EVLGEN_PARITY", Path(__file__).parent / "fixtures" / "parity"))


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Reference outputs of the official code; EVLGEN_PARITY points the tests to other ones."""
    return PARITY


@pytest.fixture(scope="session")
def reference() -> dict:
    return torch.load(PARITY / "reference.pt", weights_only=False)


@pytest.fixture(scope="session")
def tiny_config(reference):
    """Model configuration of a tiny EVLGen: ``tiny_config("opt", tome_r=3)``."""

    def build(kind: str = "opt", **overrides) -> dict:
        config = {
            "vit_model": "eva_vit",
            "vit_config": reference["vit_config"],
            "image_size": 56,
            "vit_precision": "fp32",
            "bert_model": None,
            "connector_config": reference["bert_config"],
            "tome_r": reference["tome_r"],
            "llm_precision": "fp32",
            "opt_model" if kind.endswith("opt") else "llm_model": str(
                PARITY / ("tiny_opt" if kind.endswith("opt") else "tiny_llama")
            ),
        }
        return {**config, **overrides}

    return build


@pytest.fixture(scope="session")
def tiny_model(tiny_config):
    """A seeded tiny EVLGen in eval mode: ``tiny_model("opt")``, "vicuna", "any", or for clips "video_opt", "video"."""

    def build(kind: str = "opt", seed: int = 0, **overrides):
        name = "evlgen_video" if kind.startswith("video") else MODELS[kind]
        torch.manual_seed(seed)
        config = OmegaConf.create(tiny_config(kind, **overrides))
        return registry.get_model_class(name).from_config(config).eval()

    return build


@pytest.fixture
def run_command(capsys, monkeypatch):
    """Runs a command in a folder: ``run_command(folder, "show", "a.png")`` gives (exit code, stdout, stderr)."""

    def run(folder: Path, *argv: object) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        capsys.readouterr()
        torch.manual_seed(0)  # the tiny frozen ViT has no file of weights
        return cli.main([*map(str, argv)]), *capsys.readouterr()

    return run


@pytest.fixture
def batch(reference) -> dict:
    """Three images [3, 3, 56, 56] with captions."""
    data = reference["liptome_opt"]
    return {"image": data["image"], "text_input": list(data["captions"]), "image_id": ["a", "b", "c"]}
