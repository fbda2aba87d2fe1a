"""The `run` section of a configuration: every key that the runner reads, its type and its default."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_evlgen.errors import ConfigError, nearest
from lavis_evlgen.runners.schedule import SCHEDULES, Schedule

PRECISIONS = ("fp32", "bf16", "fp16")
MOST = 2**63  # of any number: what torch takes
SHARDINGS = ("none", "frozen")


@dataclass(frozen=True)
class RunSettings:
    """Typed values of `run`. An iteration is one optimisation step: ``accum_grad_iters`` batches on every rank."""

    runner: str = "runner_evlgen"
    task: str = "captioning"
    # length of the run
    max_iters: int = 0
    max_epoch: int = 0
    iters_per_inner_epoch: int = 0  # checkpoint and validation period; 0: one pass over the data, or max_iters
    # optimiser
    lr_sched: str = "linear_warmup_cosine_lr"
    init_lr: float = 1e-4
    min_lr: float = 0.0
    warmup_lr: float = 0.0  # negative: init_lr, that is no warm-up, as in LAVIS
    warmup_steps: int = 0
    lr_decay_rate: float = 1.0
    weight_decay: float = 0.05
    beta2: float = 0.999
    accum_grad_iters: int = 1
    max_grad_norm: float = 0.0  # 0: no clipping
    precision: str = ""  # fp32 | bf16 | fp16; empty: fp16 where `amp` is true and there is a GPU, else fp32
    amp: bool = False
    max_nan_steps: int = 10
    # data
    batch_size_train: int = 8
    batch_size_eval: int = 8
    num_workers: int = 0
    train_splits: list = field(default_factory=lambda: ["train"])
    valid_splits: list = field(default_factory=list)
    test_splits: list = field(default_factory=list)
    train_dataset_ratios: dict = field(default_factory=dict)
    use_dist_eval_sampler: bool = True
    max_bad_share: float = 0.05
    data_timeout: float = 600.0  # seconds until a batch that does not come is an error; 0: never
    feature_cache: str = ""  # folder for the frozen ViT's features; empty: the ViT runs at every step
    # files
    output_dir: str = "output"
    auto_resume: bool = False
    resume_ckpt_path: str = ""
    save_freq: int = 0  # further checkpoints every so many iterations; 0: none
    keep_checkpoints: int = 2
    evaluate: bool = False
    # what is reported
    log_freq: int = 50
    tensorboard: bool = False
    health_freq: int = 0
    health_batches: int = 4
    # where it runs
    seed: int = 42
    device: str = "cuda"
    distributed: bool = False
    world_size: int = 1
    rank: int = 0
    gpu: int = 0
    dist_url: str = "env://"
    dist_backend: str = ""
    dist_timeout: float = 1800.0
    hang_timeout: float = 900.0  # seconds until a dead or stuck rank ends the job; 0: never
    shard: str = "none"  # none | frozen: every process keeps a part of the frozen weights
    num_threads: int = 0  # torch CPU threads; 0: torch's own choice

    @classmethod
    def keys(cls) -> frozenset[str]:
        return frozenset(each.name for each in fields(cls))

    @classmethod
    def from_config(cls, run_cfg: DictConfig | Mapping[str, Any]) -> "RunSettings":
        """Read `run`; a value of the wrong kind raises ConfigError naming its key. Keys of tasks are left alone."""
        values: Any = OmegaConf.to_container(OmegaConf.create(dict(run_cfg)), resolve=True)
        known = cls.keys()
        given = {key: value for key, value in values.items() if key in known and value is not None}
        kinds = {each.name: each.type for each in fields(cls)}
        settings = cls(**{key: _convert(key, value, kinds[key]) for key, value in given.items()})
        settings._check()
        return settings

    def _check(self) -> None:
        if self.lr_sched not in SCHEDULES:
            raise ConfigError(f"run.lr_sched: unknown {self.lr_sched!r}{nearest(self.lr_sched, SCHEDULES)}")
        if self.shard not in SHARDINGS:
            raise ConfigError(f"run.shard: {self.shard!r} is unknown{nearest(self.shard, SHARDINGS)}")
        if self.precision and self.precision not in PRECISIONS:
            raise ConfigError(f"run.precision: {self.precision!r} is none of {', '.join(PRECISIONS)}")
        least = dict.fromkeys(("batch_size_train", "batch_size_eval", "accum_grad_iters", "keep_checkpoints"), 1)
        least |= dict.fromkeys(("log_freq", "health_batches", "max_nan_steps"), 1)
        least |= dict.fromkeys(("init_lr", "min_lr", "weight_decay", "beta2", "max_grad_norm", "max_bad_share"), 0)
        least |= dict.fromkeys(("iters_per_inner_epoch", "warmup_steps", "dist_timeout", "num_threads"), 0)
        least |= dict.fromkeys(("max_iters", "max_epoch", "num_workers", "health_freq", "save_freq", "seed"), 0)
        least |= dict.fromkeys(("hang_timeout", "data_timeout"), 0)
        for key, bound in least.items():
            if getattr(self, key) < bound:
                raise ConfigError(f"run.{key} must be at least {bound}, not {getattr(self, key)}")
        most: dict[str, float] = {"beta2": 1, "dist_timeout": 1e9, "hang_timeout": 1e9, "num_threads": 1e6}
        most["data_timeout"] = 1e6  # more milliseconds than the system waits for
        for key, too_much in most.items():
            if getattr(self, key) >= too_much:
                raise ConfigError(f"run.{key} must be less than {too_much:g}, not {getattr(self, key)}")
        for key in ("train_splits", "valid_splits", "test_splits"):
            for name in getattr(self, key):
                if not isinstance(name, str) or not re.fullmatch(r"[^/\\]+", name) or name in (".", ".."):
                    raise ConfigError(f"run.{key}: {name!r} cannot name a split: result files are named after it")
        for name, weight in self.train_dataset_ratios.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise ConfigError(f"run.train_dataset_ratios.{name}: {weight!r}, expected a number from 0 on")
        if self.health_freq and not self.valid_splits:
            raise ConfigError(
                "run.health_freq needs held-out pictures: name a split in run.valid_splits, or set it to 0"
            )

    @property
    def images_per_step(self) -> int:
        """Pictures of one optimisation step over all processes."""
        return self.batch_size_train * self.accum_grad_iters * self.world_size

    def precision_on(self, device_type: str) -> str:
        """fp32, bf16 or fp16 as it will be used on ``cpu`` or ``cuda``; fp16 needs a GPU."""
        wanted = self.precision or ("fp16" if self.amp else "fp32")
        return "fp32" if wanted == "fp16" and device_type != "cuda" else wanted

    def schedule(self, max_iters: int, iters_per_inner_epoch: int) -> Schedule:
        return Schedule(
            name=self.lr_sched,
            max_iters=max_iters,
            init_lr=self.init_lr,
            min_lr=self.min_lr,
            warmup_lr=self.warmup_lr,
            warmup_steps=self.warmup_steps,
            decay_rate=self.lr_decay_rate,
            decay_every=iters_per_inner_epoch,
        )


def _convert(key: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``; 5e3 is an int, "no" is not a number, and a string is not a list."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
    fits = {
        bool: isinstance(value, bool),
        int: number and float(value).is_integer(),
        float: number,
        str: isinstance(value, str),
        list: isinstance(value, list),
        dict: isinstance(value, dict),
    }
    if kind is Any:
        return value
    if kind is str and key in ("resume_ckpt_path", "feature_cache") and not value:
        return ""
    if not fits[kind]:
        raise ConfigError(f"run.{key}: {value!r:.60} is not of type {kind.__name__}")
    return kind(value)
