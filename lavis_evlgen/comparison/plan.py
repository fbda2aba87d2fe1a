"""The `compare` section of a yaml file: arms, seeds, what is tuned and claimed; or a sweep over one key's values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from lavis_evlgen.comparison.arms import Arm, read_arm
from lavis_evlgen.comparison.values import as_text, check_keys, list_or_empty, text_or_none, whole_numbers
from lavis_evlgen.configuration.merge import plain
from lavis_evlgen.configuration.read import SECTIONS, read_config
from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.runners.settings import RunSettings

TUNE_KEYS = ("key", "values", "steps", "seed", "arms")
CLAIM_KEYS = ("arm", "of", "metric", "share_of_time", "source")


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
    section = plain(config.pop("compare", None))
    if not section:
        raise ConfigError(f"{path} has no section `compare`: it names the arms, see projects/blip2/compare_demo.yaml")
    check_keys(section, ("seeds", "turn", "tune", "reference", "claims", "data", "arms"), "compare")
    for key in ("reference", "data"):
        text_or_none(section.get(key), f"compare.{key}")
    every = _arms(section.get("arms"), config)
    chosen = _chosen(every, arms)
    own_seeds = whole_numbers(section.get("seeds", [42]), "compare.seeds")
    seeds = whole_numbers(list(seeds), "--seeds") if seeds is not None else own_seeds
    out = Path(text_or_none(config.run.get("output_dir"), "run.output_dir") or f"outputs/{Path(path).stem}")
    plan = Plan(
        name=Path(path).stem,
        out=out,
        arms=tuple(chosen),
        seeds=tuple(seeds),
        turn=whole_numbers([section.get("turn", 10)], "compare.turn")[0] or 1,
        tune=_tuning(section.get("tune"), every, own_seeds[0]),  # the same whichever seeds are asked for
        reference=section.get("reference") or chosen[0].name,
        claims=tuple(_claim(claim, every) for claim in list_or_empty(section.get("claims"), "compare.claims")),
        data=section.get("data"),
    )
    if plan.reference not in every:
        raise ConfigError(f"compare.reference: {plan.reference!r} is no arm{nearest(plan.reference, every)}")
    if sweep is not None:
        plan = _swept(plan, sweep)
    for arm in plan.arms:
        _check_lengths(arm)
    return plan


def _arms(said: Any, base: DictConfig) -> dict[str, Arm]:
    if not isinstance(said, Mapping) or not said:
        raise ConfigError("compare.arms must name the arms: name, and what differs from the base")
    return {name: read_arm(name, arm or {}, base) for name, arm in said.items()}


def _chosen(every: dict[str, Arm], names: Iterable[str] | None) -> list[Arm]:
    for name in names or ():
        if name not in every:
            raise ConfigError(f"--arms: {name!r} is no arm{nearest(name, every)}")
    return [every[name] for name in (every if names is None else names)]


def _tuning(section: Any, arms: Mapping[str, Arm], seed: int) -> Tuning | None:
    if not section:
        return None
    check_keys(section, TUNE_KEYS, "compare.tune")
    missing = [key for key in ("key", "values", "steps") if not section.get(key)]
    if missing:
        raise ConfigError(f"compare.tune.{missing[0]} is missing: tune needs key, values and steps")
    for key in ("values", "arms"):
        list_or_empty(section.get(key), f"compare.tune.{key}")
    text_or_none(section["key"], "compare.tune.key")
    for arm in section.get("arms") or ():
        if not isinstance(arm, str) or arm not in arms:
            raise ConfigError(f"compare.tune.arms: {arm!r} is no arm{nearest(arm, arms)}")
    steps = whole_numbers([section["steps"]], "compare.tune.steps")[0]
    return Tuning(
        _full_key(section["key"]),
        tuple(section["values"]),
        steps,
        whole_numbers([section.get("seed", seed)], "compare.tune.seed")[0],
        tuple(section.get("arms") or arms),
    )


def _claim(claim: Mapping[str, Any], arms: Mapping[str, Arm]) -> dict[str, Any]:
    check_keys(claim, CLAIM_KEYS, "compare.claims")
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
        shown = as_text(value)
        name = f"{short}={re.sub(r'[^0-9A-Za-z.+-]+', '-', shown).strip('-')}"
        arm = replace(base.with_value(full, value), name=name, title=f"{short} {shown}")
        arms.append(replace(arm, overrides=(*base.overrides, f"{full}={shown}")))
    described = {"key": full, "values": [as_text(value) for value in values], "arms": [arm.name for arm in arms]}
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


def _full_key(key: str) -> str:
    """``tome_r`` is ``model.tome_r``."""
    return key if key.split(".")[0] in SECTIONS else f"model.{key}"
