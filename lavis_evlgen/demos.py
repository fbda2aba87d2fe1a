"""The demos behind ``evlgen demo``: data, training, report with one command, to be repeated when interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavis_evlgen.errors import ConfigError, EvlgenError, nearest
from lavis_evlgen.json_text import read_json

# the ways of joining frames that the video demo compares: name, what differs in the model section
ARMS: dict[str, dict[str, Any]] = {
    "contextualizer": {"temporal": "contextualizer", "time_embedding": False},
    "time_embedding": {"temporal": "contextualizer", "time_embedding": True},
    "centered_time_embedding": {"temporal": "contextualizer", "time_embedding": True, "centered": True},
    "mean": {"temporal": "mean", "time_embedding": False},
    "concat": {"temporal": "concat", "time_embedding": False},
}
# what the recipe of projects/demo/video.yaml learns in its steps: of BabyAI's missions the short ones that change the
# room, and nothing else in it; with all four and one thing more, 4 % of captions were right after 300 steps
CLIPS: dict[str, Any] = {"train": 300, "val": 20, "test": 60, "unseen": 60, "others": 0, "verbs": ("open", "pick up")}


def picture_demo(out: Path, options: Sequence[str] = (), **data: Any) -> dict[str, Any]:
    """What ``make demo`` does: draw the pictures (``data`` as `pictures.build` takes it), train, write the report."""
    from lavis_evlgen.embedded.pictures import build
    from lavis_evlgen.reports.run_report import write_report

    pictures = build(out / "data", **data)
    paths = [f"datasets.image_caption.images={pictures}", *_annotations("image_caption", pictures)]
    paths += [f"run.feature_cache={out / 'features'}", f"run.output_dir={out}"]
    _train(project_file("train.yaml"), [*paths, *options], "the picture demo")
    return write_report(out, command=_command())


def video_demo(
    out: Path, arms: Sequence[str] = tuple(ARMS), precision: str = "auto", options: Sequence[str] = (), **data: Any
) -> dict[str, Any]:
    """Film the clips, train projects/demo/video.yaml once an arm, at equal steps and seeds, and report all in one.

    Args:
        out: the folder of everything; an arm's run is the folder of its name below it. Arms that are there are kept.
        arms: of ARMS.
        precision: fp32, bf16, or auto: whichever multiplies matrices faster on this processor.
        options: ``KEY=VALUE`` for every arm's configuration.
        data: in place of CLIPS, see :func:`lavis_evlgen.embedded.episodes.build`.

    Raises:
        ConfigError: an unknown arm; a folder of an arm that was made with other options. EvlgenError: an arm failed.
    """
    from lavis_evlgen.embedded.episodes import build
    from lavis_evlgen.reports.video_demo import write_video_report

    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"--arms: {arm!r} is unknown{nearest(arm, ARMS)}")
    clips = build(out / "data", **CLIPS | data)
    spec = (clips / "spec.json").read_text("utf-8")
    if precision == "auto":
        precision = _precision_so_far(out) or faster_precision()
    print(f"precision {precision}", flush=True)
    number = [f"model.{key}_precision={precision}" for key in ("vit", "llm")] + [f"run.precision={precision}"]
    shared = [f"datasets.video_caption.videos={clips}", *_annotations("video_caption", clips), *number, *options]
    for arm in arms:
        how = [f"model.{key}={str(value).lower()}" for key, value in ARMS[arm].items()]
        _train_arm(out / arm, [*shared, *how, f"run.output_dir={out / arm}"], spec)
    return write_video_report(out, command=_command())


def faster_precision() -> str:
    """``bf16`` where this processor multiplies bf16 matrices faster than fp32 ones, else ``fp32``."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        tokens, weights = torch.randn(1024, 384).to(dtype), torch.randn(1536, 384).to(dtype)
        times = []
        for _ in range(12):
            began = time.perf_counter()
            torch.nn.functional.linear(tokens, weights)
            times.append(time.perf_counter() - began)
        return min(times)

    return "bf16" if seconds(torch.bfloat16) < seconds(torch.float32) else "fp32"


def project_file(name: str) -> Path:
    """A yaml of projects/demo, below the working directory or beside the package.

    Raises:
        ConfigError: there is none, as in a wheel.
    """
    for root in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (path := root / "projects" / "demo" / name).is_file():
            return path
    raise ConfigError(f"projects/demo/{name} is not here: run the demo in a checkout of the repository")


def _annotations(builder: str, data: Path) -> list[str]:
    files = sorted(data.glob("*.jsonl"))
    return [f"datasets.{builder}.annotations.{file.stem}={file}" for file in files]


def _train_arm(folder: Path, options: list[str], spec: str) -> None:
    """Train one arm, or leave it as it is when it has been trained with the same yaml, options and clips."""
    from lavis_evlgen.reports.arms import ARM_FILE

    yaml = project_file("video.yaml")
    asked = {"yaml": yaml.read_text("utf-8"), "options": options, "clips": json.loads(spec)}
    begun, done = folder / "begun.json", folder / ARM_FILE
    if begun.is_file() and read_json(begun, f"remove {folder}") != asked:
        raise ConfigError(
            f"{folder} was made with other options, clips or another yaml; choose another --out, or remove it"
        )
    if done.is_file():
        print(f"{folder} is trained already", flush=True)
        return
    print(f"training {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(json.dumps(asked, indent=1) + "\n", "utf-8")
    peak = _train(yaml, options, folder.name)
    done.write_text(json.dumps({"arm": folder.name, "peak_memory_gib": peak}) + "\n", "utf-8")


def _train(yaml: Path, options: Sequence[str], name: str) -> float:
    """Train in a process of its own; its peak memory in GiB."""
    # waiting threads sleep instead of spinning: on a busy machine spinning stalls steps for seconds
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    command = [sys.executable, "-m", "lavis_evlgen.train", "--cfg-path", str(yaml), "--options", *options]
    with subprocess.Popen(command, env=environment) as process, _passing_on_stops(process):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode in (143, -signal.SIGTERM):
        raise SystemExit(143)
    if process.returncode:
        raise EvlgenError(f"the training of {name} ended with code {process.returncode}; what it said stands above")
    scale = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return round(usage.ru_maxrss * scale / 2**30, 2)


@contextlib.contextmanager
def _passing_on_stops(process: subprocess.Popen) -> Iterator[None]:
    """SIGTERM goes on to the training, which saves its state first."""
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _precision_so_far(out: Path) -> str | None:
    """The precision of the arms that are there already: all must have the same."""
    for begun in sorted(out.glob("*/begun.json")):
        options = read_json(begun, f"remove {begun.parent}").get("options", [])
        return next(option.split("=")[1] for option in options if option.startswith("run.precision="))
    return None


def _command() -> str:
    return " ".join(["python -m lavis_evlgen.cli", *sys.argv[1:]])
