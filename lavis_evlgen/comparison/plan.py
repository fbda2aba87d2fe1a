"""The `compare` section of a yaml file: which arms there are, and the whole configuration of each of their stages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.launch import SECTIONS, read_config
from lavis_evlgen.runners.settings import RunSettings

STAGE_KEYS = ("title", *SECTIONS)
ARM_KEYS = ("group", "stages", *STAGE_KEYS)
TUNE_KEYS = ("key", "values", "steps", "seed", "arms")
CLAIM_KEYS = ("arm", "of", "metric", "share_of_time", "source")
PREVIOUS = "{previous}"  # in a value of a later stage: the weights that the stage before exported


@dataclass(frozen=True)
class Stage:
    """One training run of an arm; `config` has the sections model, datasets and run."""

    title: str
    config: DictConfig

    @property
    def steps(self) -> int:
        return int(self.config.run.max_iters)


@dataclass(frozen=True)
class Arm:
    """What is compared: one stage, or several of which the last one captions.

    `overrides` say how it differs from the base, as ``key=value``.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    overrides: tuple[str, ...] = ()
    group: str | None = None

    def with_value(self, key: str, value: Any) -> Arm:
        """The arm with one dotted key set in all its stages."""
        stages = tuple(replace(stage, config=_set(stage.config, {key: value})) for stage in self.stages)
        return replace(self, stages=stages)


@dataclass(frozen=True)
class Tuning:
    """A key whose value is chosen for every arm alike: the lowest held-out loss after `steps` steps of each stage."""

    key: str
    values: tuple[Any, ...]
    steps: int
    seed: int
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A whole comparison.

    Attributes:
        out: the folder of everything, run.output_dir of the base.
        turn: optimisation steps that an arm trains before it is another's turn.
        reference: the arm to whose quality the times of the others are measured first.
        claims: what is to be shown, see `CLAIM_KEYS`; only reported, never enforced.
        data: what the report says of the data.
        sweep: None, or the key and values whose arms these are.
    """

    name: str
    out: Path
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (42,)
    turn: int = 10
    tune: Tuning | None = None
    reference: str = ""
    claims: tuple[dict[str, Any], ...] = ()
    data: str | None = None
    sweep: dict[str, Any] | None = field(default=None)


def read_plan(
    path: str,
    options: Iterable[str] = (),
    *,
    sweep: str | None = None,
    arms: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
) -> Plan:
    """Read a yaml with a `compare` section.

    Args:
        options: ``KEY=VALUE`` for the base, or for the section as ``compare.KEY=VALUE``.
        sweep: ``KEY=VALUE,VALUE``: arms that differ in one key, in place of those of the file; the first of `arms`
            (or of the file) is what they start from.
        arms: names of the arms to train, all by default.
        seeds: in place of those of the file.

    Raises:
        ConfigError: a key or value is wrong; it is named.
    """
    config = read_config(path, list(options), further=("compare",))
    section: Any = OmegaConf.to_container(config.pop("compare", OmegaConf.create({})))
    if not section:
        raise ConfigError(f"{path} has no section `compare`: it names the arms, see projects/blip2/compare_demo.yaml")
    _check_keys(section, ("seeds", "turn", "tune", "reference", "claims", "data", "arms"), "compare")
    for key in ("reference", "data"):
        _text_or_none(section.get(key), f"compare.{key}")
    every = {name: _arm(name, said or {}, config) for name, said in _mapping(section, "arms").items()}
    chosen = _chosen(every, arms)
    own_seeds = _whole_numbers(section.get("seeds", [42]), "compare.seeds")
    seeds = _whole_numbers(list(seeds), "--seeds") if seeds is not None else own_seeds
    out = Path(_text_or_none(config.run.get("output_dir"), "run.output_dir") or f"outputs/{Path(path).stem}")
    plan = Plan(
        name=Path(path).stem,
        out=out,
        arms=tuple(chosen),
        seeds=tuple(seeds),
        turn=_whole_numbers([section.get("turn", 10)], "compare.turn")[0] or 1,
        tune=_tuning(section.get("tune"), every, own_seeds[0]),  # the same whichever seeds are asked for
        reference=section.get("reference") or chosen[0].name,
        claims=tuple(_claim(claim, every) for claim in _list(section.get("claims"), "compare.claims")),
        data=section.get("data"),
    )
    if plan.reference not in every:
        raise ConfigError(f"compare.reference: {plan.reference!r} is no arm{nearest(plan.reference, every)}")
    if sweep is not None:
        plan = _swept(plan, sweep)
    for arm in plan.arms:
        _check_lengths(arm)
    return plan


def _arm(name: str, said: Mapping[str, Any], base: DictConfig) -> Arm:
    where = f"compare.arms.{name}"
    if not re.fullmatch(r"[\w.+-]+", name) or name in (".", ".."):
        raise ConfigError(f"{where}: a name is made of letters, digits and . _ + -, since a folder is called so")
    _check_part(said, ARM_KEYS, where)
    shared = _merged(base, said)
    parts = _list(said.get("stages"), f"{where}.stages") or [{}]
    stages = []
    for number, part in enumerate(parts, start=1):
        _check_part(part, STAGE_KEYS, f"{where}.stages[{number - 1}]")
        title = part.get("title") or (f"stage {number}" if len(parts) > 1 else "language modelling")
        stages.append(Stage(title, _merged(shared, part)))
    overrides = [*_dotted(said), *(f"stage {n}: {each}" for n, part in enumerate(parts, 1) for each in _dotted(part))]
    return Arm(name, said.get("title") or name, tuple(stages), tuple(overrides), said.get("group"))


def _merged(base: DictConfig, said: Mapping[str, Any]) -> DictConfig:
    """The base with an arm's sections put in; a model section that names another `arch` stands for itself."""
    merged: dict[str, Any] = {}
    for section in SECTIONS:
        new = OmegaConf.create(said.get(section) or {})
        replaces = section == "model" and new.get("arch", base.model.get("arch")) != base.model.get("arch")
        merged[section] = new if replaces else OmegaConf.merge(base[section], new)
    return OmegaConf.create(merged)


def _dotted(said: Mapping[str, Any]) -> list[str]:
    lines = []
    for section in SECTIONS:
        for key, value in (said.get(section) or {}).items():
            nested = {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
            lines += [f"{section}.{k}={_text(v)}" for k, v in nested.items()]
    return lines


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def _chosen(every: dict[str, Arm], names: Iterable[str] | None) -> list[Arm]:
    for name in names or ():
        if name not in every:
            raise ConfigError(f"--arms: {name!r} is no arm{nearest(name, every)}")
    return [every[name] for name in (every if names is None else names)]


def _tuning(section: Any, arms: Mapping[str, Arm], seed: int) -> Tuning | None:
    if not section:
        return None
    _check_keys(section, TUNE_KEYS, "compare.tune")
    missing = [key for key in ("key", "values", "steps") if not section.get(key)]
    if missing:
        raise ConfigError(f"compare.tune.{missing[0]} is missing: tune needs key, values and steps")
    for key in ("values", "arms"):
        _list(section.get(key), f"compare.tune.{key}")
    _text_or_none(section["key"], "compare.tune.key")
    for arm in section.get("arms") or ():
        if not isinstance(arm, str) or arm not in arms:
            raise ConfigError(f"compare.tune.arms: {arm!r} is no arm{nearest(arm, arms)}")
    steps = _whole_numbers([section["steps"]], "compare.tune.steps")[0]
    return Tuning(
        _full_key(section["key"]),
        tuple(section["values"]),
        steps,
        _whole_numbers([section.get("seed", seed)], "compare.tune.seed")[0],
        tuple(section.get("arms") or arms),
    )


def _claim(claim: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict[str, Any]:
    _check_keys(claim, CLAIM_KEYS, "compare.claims")
    for key in ("arm", "of"):
        if str(claim.get(key)) not in arms:
            raise ConfigError(f"compare.claims: {claim.get(key)!r} is no arm{nearest(str(claim.get(key)), arms)}")
    return dict(claim)


def _swept(plan: Plan, sweep: str) -> Plan:
    """Arms of one key's values, named ``key=value``, in a folder of their own; their rates are not tuned."""
    key, _, text = sweep.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise ConfigError(f"--sweep {sweep}: write KEY=VALUE,VALUE, for example tome_r=19,38") from error
    if not re.fullmatch(r"[\w.]*\w", key) or not values:
        raise ConfigError(f"--sweep {sweep!r}: write KEY=VALUE,VALUE, for example tome_r=19,38")
    full, short, base = _full_key(key), key.rpartition(".")[2], plan.arms[0]
    arms = []
    for value in values:
        shown = _text(value)
        name = f"{short}={re.sub(r'[^0-9A-Za-z.+-]+', '-', shown).strip('-')}"
        arm = replace(base.with_value(full, value), name=name, title=f"{short} {shown}")
        arms.append(replace(arm, overrides=(*base.overrides, f"{full}={shown}")))
    described = {"key": full, "values": [_text(value) for value in values], "arms": [arm.name for arm in arms]}
    out = plan.out.with_name(f"{plan.out.name}_{short}")
    name = f"{plan.name}_{short}"
    return replace(
        plan, name=name, out=out, arms=tuple(arms), tune=None, reference=arms[0].name, claims=(), sweep=described
    )


def _check_lengths(arm: Arm) -> None:
    """Every stage needs its last held-out loss."""
    for stage in arm.stages:
        run = RunSettings.from_config(stage.config.run)
        if not run.max_iters:
            raise ConfigError(f"arm {arm.name}: run.max_iters is missing; a comparison counts optimisation steps")
        if not run.health_freq or run.max_iters % run.health_freq:
            raise ConfigError(
                f"arm {arm.name}: run.max_iters ({run.max_iters}) must be a multiple of run.health_freq "
                f"({run.health_freq}), at which the held-out loss is measured"
            )


def _set(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    config = config.copy()
    for key, value in values.items():
        OmegaConf.update(config, key, value, merge=False)
    return config


def _full_key(key: str) -> str:
    """``tome_r`` is ``model.tome_r``."""
    return key if key.split(".")[0] in SECTIONS else f"model.{key}"


def _mapping(section: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = section.get(key)
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"compare.{key} must name the arms: name, and what differs from the base")
    return value


def _check_part(said: Any, known: Iterable[str], where: str) -> None:
    """What an arm or a stage says: its keys, and the kinds of their values."""
    _check_keys(said, known, where)
    for key in ("title", "group"):
        _text_or_none(said.get(key), f"{where}.{key}")
    for key in SECTIONS:
        if not isinstance(said.get(key) or {}, Mapping):
            raise ConfigError(f"{where}.{key}: expected keys and values, not {str(said[key])[:60]!r}")


def _text_or_none(value: Any, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{where}: {str(value)[:60]!r}, expected a text")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise ConfigError(f"{where}: {str(value)[:60]!r}, expected a list")
    return value or []


def _check_keys(section: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where}: expected keys and values, not {str(section)[:60]!r}")
    for key in section:
        if key not in known:
            raise ConfigError(f"{where}.{key} is unknown{nearest(str(key), known)}")


def _whole_numbers(values: Any, where: str) -> list[int]:
    if not isinstance(values, list) or not values or any(type(v) is not int or not 0 <= v < 2**32 for v in values):
        raise ConfigError(f"{where}: {values!r}, expected whole numbers")
    return values
