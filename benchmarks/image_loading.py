"""Pictures read from tar shards, decoded and augmented per second of one core: ours beside LAVIS's own pipeline.

    python benchmarks/image_loading.py                          # the embedded pictures
    python benchmarks/image_loading.py --pictures DIR           # your own photos, whatever their size

The pictures are packed as JPEGs whose shorter side is 256 to 500 pixels. Both pipelines then read the same shards with
the same processors (LAVIS's blip2_image_train to 224 pixels, blip_caption) and the same shuffle buffer in this one
process and thread, in short turns, A B A B, once their buffers are full. LAVIS's is LaionDataset. Before that, both
must give the same pixels for the same captions where nothing is random.
"""

import argparse
import io
import json
import random
import statistics
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lavis.datasets.datasets.laion_dataset import LaionDataset
from lavis.processors.blip_processors import Blip2ImageTrainProcessor, BlipCaptionProcessor, BlipImageEvalProcessor
from PIL import Image
from tqdm import tqdm

from lavis_evlgen.datasets.shard_writer import SUFFIXES, Entry, write_shards
from lavis_evlgen.datasets.streams import ImageCaptionStream
from lavis_evlgen.embedded import pictures
from lavis_evlgen.errors import DataError

SIDES = (256, 500)
BUFFER = 1000  # samples in the shuffle buffers of both


def make_shards(found: list[Path], folder: Path, count: int, size: int) -> list[str]:
    """``count`` JPEGs of the pictures, over and over, each time in another size and part, in shards of ``size``."""
    rng = random.Random(0)
    entries = []
    (folder / "jpeg").mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), desc="JPEGs", disable=None):
        path = folder / "jpeg" / f"{number:06d}.jpg"
        side, quality = rng.randint(*SIDES), rng.randint(75, 95)
        if not path.exists():
            path.write_bytes(jpeg(found[number % len(found)], side, quality))
        entries.append(Entry(path.name, path, {"caption": f"picture number {number}"}))
    written = write_shards(entries, str(folder / "{:05d}.tar"), size=size)
    return [str(folder / f"{number:05d}.tar") for number in range(written.shards)]


def jpeg(path: Path, side: int, quality: int) -> bytes:
    """A picture on white, its shorter side scaled to ``side``."""
    picture = Image.open(path).convert("RGBA")
    scale = side / min(picture.size)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
    ground = Image.new("RGBA", picture.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(ground, picture).convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def ours(shards: list[str], processor: Any) -> Iterator[dict[str, Any]]:
    stream = ImageCaptionStream(shards, processor, BlipCaptionProcessor())
    stream.set_position(0, readers={})  # as the runner reads it
    return iter(stream)


def lavis(shards: list[str], processor: Any) -> Iterator[dict[str, Any]]:
    return iter(LaionDataset(processor, BlipCaptionProcessor(), shards).inner_dataset)


def compare_pixels(shards: list[str], count: int) -> int:
    """Number of pictures that both pipelines gave; raises DataError when one of them differs."""
    processor = BlipImageEvalProcessor(224)
    first = {item["text_input"]: item["image"] for item in islice(ours(shards, processor), count)}
    shared = 0
    for item in islice(lavis(shards, processor), count):
        other = first.get(item["text_input"])
        if other is not None:
            shared += 1
            if not torch.equal(other, item["image"]):
                raise DataError(f"{item['text_input']}: other pixels")
    return shared


def turn(items: Iterator[Any], count: int) -> tuple[float, float]:
    """(pictures a second, pictures a second of processor time)."""
    began, worked = time.perf_counter(), time.process_time()
    for _ in islice(items, count):
        pass
    return count / (time.perf_counter() - began), count / (time.process_time() - worked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="default: the embedded ones")
    parser.add_argument("--folder", type=Path, default=Path("outputs/image_loading"), help="default: %(default)s")
    parser.add_argument("--shards", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=300, help="pictures a shard (default: %(default)s)")
    parser.add_argument("--count", type=int, default=40, help="pictures a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="turns of each (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = args.pictures or pictures.build(args.folder / "drawn", train=720, val=0, test=0, unseen=0)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    shards = make_shards(found, args.folder, args.shards * args.size, args.size)
    print(f"{args.shards * args.size} JPEGs of {len(found)} pictures", flush=True)
    print(f"{compare_pixels(shards, 1000)} pictures compared, equal pixels", flush=True)
    processor = Blip2ImageTrainProcessor(224)
    pipelines = {"ours": ours(shards, processor), "lavis": lavis(shards, processor)}
    for items in pipelines.values():
        turn(items, BUFFER)
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in pipelines}
    for _ in tqdm(range(args.rounds), desc="rounds", disable=None):
        for name, items in pipelines.items():
            speeds[name].append(turn(items, args.count))
    report: dict[str, Any] = {"turns": args.rounds, "pictures_a_turn": args.count}
    for part, unit in enumerate(("s", "cpu_s")):
        for name, each in speeds.items():
            report[f"{name}_per_{unit}"] = round(statistics.median(speed[part] for speed in each), 1)
        ratios = [a[part] / b[part] for a, b in zip(speeds["ours"], speeds["lavis"], strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        report[f"ratio_{unit}"] = {"median": round(quartiles[1], 3), "quartiles": [round(q, 3) for q in quartiles[::2]]}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
