"""From a configuration to all that it costs: sizes, multiply-accumulates, memory, files, time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lavis.common.registry import registry
from omegaconf import DictConfig

from lavis_evlgen.configuration.check import check_config
from lavis_evlgen.configuration.read import read_config
from lavis_evlgen.cost.measure import Measured, measure
from lavis_evlgen.cost.skeleton import build_skeleton, model_section
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.runners.settings import RunSettings

A100_BF16 = 312e12
UTILISATION = 0.4  # what the paper's own clock for EVLGen means; `python -m lavis_evlgen.cost.paper` shows it


@dataclass(frozen=True)
class Assumptions:
    """What a configuration does not say.

    Attributes:
        text_length: tokens of a text, special ones included; None takes the configuration's max_txt_len.
        device_flops: floating-point operations a second that a GPU is built for; a multiply-accumulate is two.
        utilisation: the share of them that training reaches.
        gpus: processes, each with its own batch.

    Raises:
        ConfigError: a number that cannot be.
    """

    text_length: int | None = None
    device_flops: float = A100_BF16
    utilisation: float = UTILISATION
    gpus: int = 8

    def __post_init__(self) -> None:
        if self.text_length is not None and self.text_length < 1:
            raise ConfigError(f"--text-length {self.text_length}: a text has at least one token")
        if self.device_flops <= 0 or not 0 < self.utilisation <= 1 or self.gpus < 1:
            raise ConfigError(
                f"--device-flops {self.device_flops:g} --utilisation {self.utilisation:g} --gpus {self.gpus}: "
                "the first must be above 0, the second above 0 and at most 1, the third at least 1"
            )


def estimate_file(path: str, options: list[str], assumptions: Assumptions) -> dict[str, Any]:
    """`estimate` of a yaml file, which is checked as before a run.

    Raises:
        ConfigError: also for what is wrong with the file.
    """
    config = read_config(path, options, further=("compare",))
    compares = config.pop("compare", None) is not None
    if config.model.get("arch") in registry.list_models():
        check_config(config)
    costs = estimate(config, assumptions)
    if compares:
        costs["notes"].append("the costs of the base; those of an arm come with its overrides as --options")
    return costs


def estimate(config: DictConfig, assumptions: Assumptions) -> dict[str, Any]:
    """The costs as plain values, in the order in which they are printed; docs/cost.md says what each one means.

    Args:
        config: a checked configuration with the sections model and run.

    Raises:
        ConfigError: a wrong key or value, a model that is not ours, or a part without a configuration here.
    """
    model_class, keys, notes = model_section(config)
    run = RunSettings.from_config(config.run)
    precision = run.precision_on("cuda")
    trains = not run.evaluate
    text_length = assumptions.text_length or keys.get("max_txt_len") or 32
    num_frames = keys.get("num_frames", 4)
    batch = run.batch_size_train if trains else run.batch_size_eval
    model = build_skeleton(model_class, keys)
    of_clips = getattr(model, "temporal", None) is not None
    from_features = bool(run.feature_cache) and trains and not of_clips
    found = measure(
        model,
        batch,
        text_length,
        num_frames=num_frames,
        half=precision != "fp32",
        from_features=from_features,
        trains=trains,
    )
    setting = {
        "arch": config.model.arch,
        "text_length": text_length,
        "frames": num_frames if of_clips else 1,
        "trains": trains,
        "precision": precision,
        "use_grad_checkpoint": bool(keys.get("use_grad_checkpoint")),
        "feature_cache": from_features,
        "batch_size": batch,
        "accumulation": run.accum_grad_iters,
        "gpus": assumptions.gpus,
        "images_a_step": batch * run.accum_grad_iters * assumptions.gpus,
        "device_flops": assumptions.device_flops,
        "utilisation": assumptions.utilisation,
    }
    time, time_notes = _time(found, setting, run)
    return {
        "setting": setting,
        **_sizes(found),
        "connector": _connector(found),
        "tokens": {"layers": found.tokens, "soft_prompt": found.prompt_tokens},
        "memory_bytes": _memory(found, trains),
        "file_bytes": _files(found),
        "time": time,
        "notes": [*notes, *time_notes],
    }


def _sizes(found: Measured) -> dict[str, Any]:
    """Parameters and multiply-accumulates by part, and their sums."""
    parameters = {name: {"trainable": p.trainable, "frozen": p.frozen} for name, p in found.parameters.items()}
    macs = {name: asdict(account) for name, account in found.macs.items()}
    for parts in (parameters, macs):
        parts["total"] = {key: sum(part[key] for part in parts.values()) for key in next(iter(parts.values()))}
    return {"parameters": parameters, "macs_an_image": macs}


def _connector(found: Measured) -> dict[str, Any]:
    account = found.macs[found.connector]
    passes = [{"linear": call.linear, "all": call.forward} for call in found.calls]
    return {"name": found.connector, "linear": account.linear, "all": account.forward, "passes": passes}


def _memory(found: Measured, trains: bool) -> dict[str, int]:
    """Bytes on one GPU; AdamW keeps two moments of what trains."""
    weights = sum(each.trainable_bytes + each.frozen_bytes for each in found.parameters.values())
    moments = 2 * sum(each.trainable_bytes for each in found.parameters.values()) if trains else 0
    memory = {"weights": weights, "optimiser": moments, "step": found.step_bytes}
    return {**memory, "total": sum(memory.values())}


def _files(found: Measured) -> dict[str, int]:
    """The exported weights, and what a run resumes from: weights and both moments, in fp32."""
    weights = 4 * sum(each.trainable for each in found.parameters.values())
    return {"model.pth": weights, "checkpoint": 3 * weights}


def _time(found: Measured, setting: dict[str, Any], run: RunSettings) -> tuple[dict[str, float] | None, list[str]]:
    """Speed and duration of training, and why one of them is missing."""
    if not setting["trains"]:
        return None, ["run.evaluate: nothing is trained, and writing the texts is not counted"]
    macs = sum(account.forward + account.backward for account in found.macs.values())
    macs -= found.macs["vision"].forward if setting["feature_cache"] else 0
    speed = setting["gpus"] * setting["device_flops"] * setting["utilisation"] / (2 * macs)
    time = {"macs_an_image": macs, "images_a_second": speed, "seconds_a_step": setting["images_a_step"] / speed}
    notes = []
    if setting["precision"] == "fp32":
        notes.append("run.precision is fp32, in which an A100 does 19.5e12, or with TF32 156e12: set --device-flops")
    if setting["feature_cache"]:
        notes.append("run.feature_cache: the ViT runs once over the data; this is in its row, not in the time")
    if run.task == "evlgen_scst":
        return time, [*notes, "run.task evlgen_scst: drawing captions is not counted, so there is no duration"]
    if not run.max_iters:
        return time, [*notes, "run.max_iters is not set, and epochs depend on the data: --options run.max_iters=N"]
    return {**time, "steps": run.max_iters, "hours": run.max_iters * time["seconds_a_step"] / 3600}, notes
