"""A model's folder: the names of its files, and what config.json and preprocessor_config.json say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.registry import registry

import lavis_evlgen
from lavis_evlgen.asking import is_question_prompt
from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.interchange.json_files import check_known, read_object
from lavis_evlgen.interchange.names import portable
from lavis_evlgen.interchange.preprocess import check_preprocess, complete
from lavis_evlgen.models.config import check_keys

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
CARD = "README.md"
LIBRARY = "lavis_evlgen"

FORMAT = 1  # raised when versions before could not read the folder
PARTS = ("vit_model", "vit_weights", "bert_model", "opt_model", "llm_model")
"""The model keys that name frozen parts, and the BERT that a connector has its shape from."""
_ELSEWHERE = "arch model_type load_pretrained pretrained load_finetuned finetuned connector_weights"
ELSEWHERE = frozenset(_ELSEWHERE.split())
"""Model keys that config.json does not hold: which model it is stands beside them, its weights in the folder."""
_KEYS = (
    "model_type",
    "architectures",
    "library_name",
    "library_version",
    "format",
    "torch_dtype",
    "model",
    "question_prompt",
)


@dataclass(frozen=True)
class ModelFiles:
    """What the two json files of a folder say.

    Attributes:
        arch: the registered name of the model; `model_type` in config.json, where Hugging Face has it.
        values: its model keys, without `ELSEWHERE`.
        preprocess: the sections `vis_processor` and `text_processor`, as in a model type's yaml.
        question_prompt: how questions were asked in training, {} being the question; None if none were.
    """

    arch: str
    values: dict[str, Any]
    preprocess: dict[str, Any]
    question_prompt: str | None = None

    @classmethod
    def of(
        cls,
        model_class: type,
        values: Mapping[str, Any],
        preprocess: Mapping[str, Any],
        question_prompt: str | None = None,
    ) -> ModelFiles:
        """Those of a model of a registered class, by the model keys that built it and its processors.

        Raises:
            ConfigError: the class is not registered, or a processor is not known.
        """
        names = registry.mapping["model_name_mapping"].items()
        arch = next((name for name, each in names if each is model_class), None)
        if arch is None:
            raise ConfigError(f"{model_class.__name__} is not registered: config.json could not name it")
        kept = {key: value for key, value in values.items() if key not in ELSEWHERE}
        parts = {key: portable(kept[key]) for key in PARTS if isinstance(kept.get(key), str)}
        return cls(arch, kept | parts, complete(preprocess), question_prompt)

    @classmethod
    def read(cls, folder: Path) -> ModelFiles:
        """Read the json files of a folder.

        Raises:
            ConfigError: a file is missing or damaged, of a newer version, or has an unknown key or name.
        """
        path = folder / CONFIG
        content = read_object(path)
        check_known(path, content, _KEYS)
        if (written := content.get("format")) != FORMAT:
            raise ConfigError(f"{path}: format {written!r} is not known to this version; update lavis_evlgen")
        arch, values = str(content.get("model_type")), content.get("model")
        known = {name for name in registry.list_models() if hasattr(registry.get_model_class(name), "save_pretrained")}
        if arch not in known:
            raise ConfigError(f"{path}: model_type: {arch!r} is no model of this package{nearest(arch, known)}")
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: the key 'model' holds no model keys")
        try:
            check_keys(values, registry.get_model_class(arch).CONFIG_KEYS - ELSEWHERE)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        prompt = content.get("question_prompt")
        if prompt is not None and not is_question_prompt(prompt):
            raise ConfigError(f"{path}: question_prompt: {prompt!r} must hold {{}} once, where the question goes")
        preprocess = read_object(folder / PREPROCESSOR)
        check_preprocess(preprocess, folder / PREPROCESSOR)
        return cls(arch, values, preprocess, prompt)

    @property
    def model_class(self) -> Any:
        return registry.get_model_class(self.arch)

    def config(self, torch_dtype: str) -> dict[str, Any]:
        """The content of config.json; `torch_dtype` is the weights', for example float16."""
        asked = {} if self.question_prompt is None else {"question_prompt": self.question_prompt}
        return {
            "model_type": self.arch,
            "architectures": [self.model_class.__name__],
            "library_name": LIBRARY,
            "library_version": lavis_evlgen.__version__,
            "format": FORMAT,
            "torch_dtype": torch_dtype,
            **asked,
            "model": self.values,
        }
