"""The models behind the page: loaded as `evlgen caption` loads them, with one copy of equal frozen weights."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis.common.registry import registry

from lavis_evlgen.embedded.about import about
from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.loading import load_by_options
from lavis_evlgen.models.evlgen import EVLGen
from lavis_evlgen.models.tomeformer import TomeFormer
from lavis_evlgen.token_reduction import fewest_tokens, stretched_schedule


@dataclass(frozen=True)
class Served:
    """A model that people can ask.

    Attributes:
        name: what the page calls it; differs from that of all others.
        model, process, device: as `load_by_options` gives them.
        shipped: whether it is the trained model that comes with the package.
    """

    name: str
    model: Any
    process: Any
    device: Any
    shipped: bool = False

    @property
    def takes_clips(self) -> bool:
        return self.model.temporal is not None

    @property
    def visual_tokens(self) -> int:
        """L, what the connector sees of a picture at once."""
        return self.model.vision.num_tokens

    @property
    def trained_tokens(self) -> int:
        """L', what the connector was trained to leave of them."""
        return self.model.connector.num_tokens_out

    @property
    def fewest_tokens(self) -> int | None:
        """The smallest token budget; None for a connector whose number of tokens is fixed."""
        connector = self.model.connector
        if not isinstance(connector, TomeFormer):
            return None
        return fewest_tokens(self.visual_tokens, len(connector.layers), protect_cls=connector.protect_cls)

    def schedule(self, tokens: int) -> list[int]:
        """r of every layer that leaves so many tokens, in the proportions of the schedule of training.

        Raises:
            ConfigError: the connector cannot leave so many.
        """
        connector = self.model.connector
        if not isinstance(connector, TomeFormer):
            raise ConfigError(f"tokens: {self.name} always gives {self.trained_tokens}")
        return stretched_schedule(connector.schedule, self.visual_tokens, tokens, protect_cls=connector.protect_cls)

    def with_budget(self, tokens: int | None) -> Any:
        """The model with another number of tokens: it shares all weights, and the model itself stays as it is."""
        if tokens is None or tokens == self.trained_tokens:
            return self.model
        other = _shallow(self.model)
        other.connector = _shallow(self.model.connector)
        other.connector.schedule = self.schedule(tokens)
        other.connector.num_tokens_out = tokens
        return other

    def parts(self) -> str:
        """One line: what looks, what merges, what writes."""
        config = self.model.configuration or {}
        language = next((config[key] for key in ("llm_model", "opt_model") if config.get(key)), None)
        looks, writes = (_title(name) for name in (config.get("vit_model"), language))
        kind = type(self.model.connector).__name__
        return f"{looks} → {self.visual_tokens} tokens → {kind} → {self.trained_tokens} tokens → {writes}"


def load_served(args: argparse.Namespace) -> list[Served]:
    """The model that --model, --model-type and --checkpoint name, then those of --beside.

    Raises:
        ConfigError: one of them is unknown, or no model of this package. WeightsError: weights are missing.
    """
    asked = [args, *(_beside(args, each) for each in args.beside)]
    served: list[Served] = []
    for each in asked:
        model, process, device = load_by_options(each.model, each.model_type, each.checkpoint, each.device)
        if not isinstance(model, EVLGen):
            raise ConfigError(
                f"serve: {type(model).__name__} is no model of this package; the page can show only these"
            )
        kind = f"{each.model or 'evlgen'} {each.model_type or model.default_model_type}"
        name = "/".join(Path(each.checkpoint).absolute().parts[-2:]) if each.checkpoint else kind
        same = sum(other.name.split(" #")[0] == name for other in served)
        shipped = not each.checkpoint and kind == "evlgen demo"
        served.append(Served(f"{name} #{same + 1}" if same else name, model, process, device, shipped))
    share_frozen(each.model for each in served)
    return served


def share_frozen(models: Iterable[Any]) -> int:
    """Let models use one copy of the frozen weights that are equal, name by name; the bytes saved."""
    kept: dict[tuple[Any, ...], list[Any]] = {}
    saved = 0
    for model in models:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                continue
            alike = kept.setdefault((name, parameter.shape, parameter.dtype, parameter.device), [])
            same = next((each for each in alike if each is not parameter and each.equal(parameter)), None)
            if same is None:
                alike.append(parameter)
            elif same.data_ptr() != parameter.data_ptr():
                parameter.data = same.data
                saved += parameter.numel() * parameter.element_size()
    return saved


def budgets(served: Served) -> list[int]:
    """Token budgets to choose from, in steps of about the square root of two; the one of training is among them."""
    least, most = served.fewest_tokens, served.visual_tokens
    if least is None:
        return [served.trained_tokens]
    steps = {round(least * 2 ** (step / 2)) for step in range(32)}
    return sorted({served.trained_tokens, most, *(step for step in steps if step < most)})


def find(served: Sequence[Served], name: str | None) -> Served:
    """The model of that name, the first without one; ConfigError if there is none."""
    if name is None:
        return served[0]
    found = next((each for each in served if each.name == name), None)
    if found is None:
        raise ConfigError(f"model {name!r} is not served here{nearest(name, [each.name for each in served])}")
    return found


def _beside(args: argparse.Namespace, asked: str) -> argparse.Namespace:
    """The options of a model that is named by one word: a checkpoint, TYPE or MODEL:TYPE."""
    if Path(asked).expanduser().exists():
        return argparse.Namespace(model=None, model_type=None, checkpoint=asked, device=args.device)
    model, _, model_type = asked.rpartition(":")
    model = model or args.model or "evlgen"
    cls = registry.get_model_class(model)
    if cls is None:
        raise ConfigError(
            f"--beside {asked}: model {model!r} is not registered{nearest(model, registry.list_models())}"
        )
    if model_type not in cls.PRETRAINED_MODEL_CONFIG_DICT:
        known = nearest(model_type, cls.PRETRAINED_MODEL_CONFIG_DICT)
        raise ConfigError(f"--beside {asked}: there is no such file, and no such type of the model {model}{known}")
    return argparse.Namespace(model=model, model_type=model_type, checkpoint=None, device=args.device)


def _shallow(module: Any) -> Any:
    """A module with the same parts, of which one can be replaced without the first module noticing."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other


def _title(name: Any) -> str:
    known = about(name)
    return known.title if known else Path(str(name).removeprefix("hf:")).name
