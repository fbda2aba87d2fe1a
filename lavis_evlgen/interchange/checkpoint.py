"""A checkpoint of a run: its weights, and what it says of model and processors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lavis.common.registry import registry
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from lavis_evlgen.errors import ConfigError, WeightsError, first_line, nearest
from lavis_evlgen.interchange.files import ModelFiles
from lavis_evlgen.interchange.json_files import check_plain
from lavis_evlgen.models.checkpoints import read_file
from lavis_evlgen.tasks.question_answering import question_prompt


@dataclass(frozen=True)
class Checkpoint:
    """A file that `runner_evlgen` wrote.

    Attributes:
        path: for messages.
        config: the whole configuration of the run.
        weights: the tensors that train, by name.
    """

    path: str
    config: DictConfig
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, path: str, key: str = "--checkpoint") -> Checkpoint:
        """Read a checkpoint.

        Raises:
            WeightsError: it is missing or damaged. ConfigError: it does not say of which model it is.
        """
        content = read_file(path, key)
        config, weights = content.get("config"), content.get("model")
        if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
            raise ConfigError(f"{key} {path} does not say of which model it is: add --model and --model-type")
        check_plain(path, config)
        sections = [config.get(name) for name in ("run", "datasets", "preprocess")]
        if not all(isinstance(each or {}, dict) for each in [*sections, *_values(config.get("datasets"))]):
            raise WeightsError(f"{key}: {path!r} is damaged: a section of its configuration holds no keys")
        if not isinstance(weights, dict) or not all(isinstance(each, Tensor) for each in weights.values()):
            raise WeightsError(f"{key}: {path!r} is damaged: its entry 'model' holds other things than tensors")
        try:
            return cls(path, OmegaConf.create(config), weights)
        except OmegaConfBaseException as error:
            raise WeightsError(f"{key}: {path!r} is damaged: its configuration {first_line(error)}") from error

    @property
    def model_class(self) -> Any:
        arch = str(self.config.model.get("arch"))
        found = registry.get_model_class(arch)
        if found is None:
            raise ConfigError(f"{self.path}: model {arch!r} is not registered{nearest(arch, registry.list_models())}")
        return found

    @property
    def values(self) -> dict[str, Any]:
        """The model section, with nothing to load."""
        values: Any = OmegaConf.to_container(self.config.model, resolve=True)
        return {**values, "load_pretrained": False, "load_finetuned": False}

    @property
    def preprocess(self) -> dict[str, Any]:
        """The processors of the run's data set, or else of its model type."""
        found: Any = OmegaConf.to_container(self.config.get("preprocess") or OmegaConf.create(), resolve=True)
        datasets: Any = OmegaConf.to_container(self.config.get("datasets") or OmegaConf.create(), resolve=True)
        for section in ("vis_processor", "text_processor"):
            used = [data[section] for data in datasets.values() if (data or {}).get(section)]
            if used:
                found[section] = used[0]
        return {section: of for section, of in found.items() if of}

    @property
    def question_prompt(self) -> str | None:
        """How the run asked its questions; None if it captioned."""
        return question_prompt(self.config)

    def files(self) -> ModelFiles:
        """What the json files of a model's folder would say. ConfigError for a model that cannot be saved as one."""
        found = self.model_class
        if not hasattr(found, "save_pretrained"):
            raise ConfigError(f"{self.path} is of {self.config.model.arch}, which is no model of this package")
        return ModelFiles.of(found, self.values, self.preprocess, self.question_prompt)

    def build(self) -> Any:
        """The model."""
        model = self.model_class.from_config(self.values)
        model.load_checkpoint(self.path)
        model.preprocess = self.preprocess
        model.question_prompt = self.question_prompt
        return model


def _values(section: Any) -> list[Any]:
    return list(section.values()) if isinstance(section, dict) else []
