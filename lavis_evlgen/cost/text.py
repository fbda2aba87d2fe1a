"""The costs in words and columns."""

from __future__ import annotations

from typing import Any


def as_text(costs: dict[str, Any]) -> str:
    """What `estimate` found, for a terminal."""
    setting = costs["setting"]
    lines = [_setting(setting), "", *_table(costs), "", *_tokens(costs), *_connector(costs), *_memory(costs)]
    lines += _time(costs)
    return "\n".join([*lines, *(f"note: {note}" for note in costs["notes"])])


def _setting(setting: dict[str, Any]) -> str:
    frames = f" of {setting['frames']} frames" if setting["frames"] > 1 else ""
    batch = f"{setting['batch_size']} {_unit(setting)}s{frames} a GPU"
    if setting["trains"]:
        batch += f" x {setting['gpus']} GPUs x {setting['accumulation']} = {setting['images_a_step']} a step"
    return f"{setting['arch']}: texts of {setting['text_length']} tokens, {batch}, {setting['precision']}"


def _table(costs: dict[str, Any]) -> list[str]:
    rows = [["part", "trained", "frozen", "forward", "linear layers", "backward"]]
    macs = costs["macs_an_image"]
    for name in [*(name for name in macs if name != "total"), "total"]:
        parameters = costs["parameters"].get(name, {"trainable": 0, "frozen": 0})
        account = macs[name]
        counts = [parameters["trainable"], parameters["frozen"]]
        rows.append([name, *map(_short, [*counts, account["forward"], account["linear"], account["backward"]])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]) for name, *cells in rows]
    return [f"parameters, and multiply-accumulates for one {_unit(costs['setting'])}", *table]


def _tokens(costs: dict[str, Any]) -> list[str]:
    tokens = costs["tokens"]
    ending = f"; {tokens['soft_prompt']} in the soft prompt" if tokens["soft_prompt"] else ""
    return [f"tokens: {' '.join(map(str, tokens['layers']))}{ending}"]


def _connector(costs: dict[str, Any]) -> list[str]:
    connector = costs["connector"]
    if not connector["all"]:  # a projection alone
        return []
    passes = connector["passes"]
    each = f", in passes of {' + '.join(_short(each['linear']) for each in passes)}" if len(passes) > 1 else ""
    return [
        f"{connector['name']}: {_short(connector['linear'])} in linear layers alone, as the paper counts{each}; "
        f"{_short(connector['all'])} with attention and matching"
    ]


def _memory(costs: dict[str, Any]) -> list[str]:
    memory, files, setting = costs["memory_bytes"], costs["file_bytes"], costs["setting"]
    parts = f"weights {_gib(memory['weights'])} + AdamW {_gib(memory['optimiser'])} + step {_gib(memory['step'])}"
    each = memory["step"] / setting["batch_size"] / 2**20
    checkpointing = "with" if setting["use_grad_checkpoint"] else "without"
    return [
        f"memory a GPU: {_gib(memory['total'])} = {parts} "
        f"({each:.0f} MiB a {_unit(setting)}, {checkpointing} use_grad_checkpoint)",
        f"files: model.pth {_bytes(files['model.pth'])}, resume checkpoint {_bytes(files['checkpoint'])}",
    ]


def _time(costs: dict[str, Any]) -> list[str]:
    time, setting = costs["time"], costs["setting"]
    if time is None:
        return []
    unit = _unit(setting)
    steps = f", {_duration(time['hours'])} for {time['steps']} steps" if "hours" in time else ""
    return [
        f"training: {_short(time['macs_an_image'])} multiply-accumulates a {unit}; on {setting['gpus']} GPUs of "
        f"{setting['device_flops'] / 1e12:g} TFLOP/s used to {setting['utilisation']:.0%}: "
        f"{time['images_a_second']:.0f} {unit}s/s, {time['seconds_a_step']:.3g} s a step{steps}"
    ]


def _unit(setting: dict[str, Any]) -> str:
    return "clip" if setting["frames"] > 1 else "picture"


def _short(value: float) -> str:
    """Three or four digits and k, M, G or T: 11.88 G."""
    if not value:
        return "-"
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.{2 if value < 100 * size else 1}f}{unit}"
    return f"{value:.0f}"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
