"""Shared by all tests: one thread, no hub, the same random numbers in every run, tiny models."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers
from lavis.common.registry import registry
from omegaconf import OmegaConf

import lavis_evlgen  # noqa: F401  (registers everything)
from lavis_evlgen import cli

torch.set_num_threads(1)

for name in ("NO_PROXY", "no_proxy"):  # servers of tests are on this machine, whatever proxy it has
    os.environ[name] = ",".join(filter(None, ("127.0.0.1,localhost", os.environ.get(name))))
# the terminal's size and colours, and the job of a cluster that the tests may run in
FOREIGN = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
for name in [name for name in os.environ if name in FOREIGN or name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC_"))]:
    del os.environ[name]

MODELS = {"opt": "evlgen_opt", "vicuna": "evlgen_vicuna", "any": "evlgen"}
PARITY = Path(os.environ.get("EVLGEN_PARITY", Path(__file__).parent / "fixtures" / "parity"))


# The same examples in every run, however slow the machine; `--hypothesis-profile default` tries new ones.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis also takes numbers and words from the modules that are imported by then: which, depends on the tests
    before, and any change of the code would change the examples. The slow tests look for new ones anyway."""
    if config.option.markexpr != "slow":
        providers.is_local_module_file = lambda path: False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test, and the fixtures that it is the first to ask for, draw the same whatever ran before."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


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
