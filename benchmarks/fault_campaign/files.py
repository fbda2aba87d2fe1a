"""Small real data: pictures, tars of pictures, clips, numbers."""

import io
import json
import tarfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

PICTURES, CLIPS, NUMBERS = 16, 12, 40
SHARDS, IN_SHARD = 2, 10
SIZE = 56


def picture(number: int, kind: str) -> bytes:
    """A picture file of smooth stripes and noise, another one for every number."""
    noise = np.random.default_rng(number).integers(0, 60, (SIZE, SIZE, 3), np.uint8)
    stripes = 90 + 80 * np.sin(np.arange(SIZE) / (2 + number))[:, None, None]
    buffer = io.BytesIO()
    Image.fromarray((stripes + noise).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_pictures(folder: Path) -> None:
    """Half JPEG, half PNG, and ``train.jsonl``."""
    rows = []
    for number in range(PICTURES):
        suffix, kind = (".jpg", "JPEG") if number % 2 else (".png", "PNG")
        (folder / f"picture{number}{suffix}").write_bytes(picture(number, kind))
        rows.append({"image": f"picture{number}{suffix}", "caption": f"picture number {number}"})
    write_lines(folder / "train.jsonl", rows)


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_shard(path: Path, samples: list[dict[str, bytes]]) -> None:
    """A tar of samples: file contents by name."""
    with tarfile.open(path, "w") as tar:
        for name, content in (pair for sample in samples for pair in sample.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def shard_samples(shard: int) -> list[dict[str, bytes]]:
    """The samples of a shard: picture first, then its caption."""
    numbers = range(shard * IN_SHARD, (shard + 1) * IN_SHARD)
    captions = {n: json.dumps({"caption": f"picture number {n}"}).encode() for n in numbers}
    return [{f"s{n}.jpg": picture(n, "JPEG"), f"s{n}.json": captions[n]} for n in numbers]


def write_shards(folder: Path) -> None:
    for shard in range(SHARDS):
        write_shard(folder / f"{shard}.tar", shard_samples(shard))


def write_clips(folder: Path) -> None:
    """Clips of a few frames, and ``train.jsonl``."""
    rows = []
    for number in range(CLIPS):
        with av.open(str(folder / f"clip{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1
            for shown in range(4 + number % 3):
                pixels = np.full((64, 64, 3), 15 * number + 10 * shown, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        rows.append({"video": f"clip{number}.mp4", "caption": f"clip number {number}"})
    write_lines(folder / "train.jsonl", rows)


def write_numbers(folder: Path) -> None:
    """float32 [N, 3, 4, 4] near zero."""
    numbers = np.random.default_rng(0).normal(0, 0.1, (NUMBERS, 3, 4, 4))
    np.save(folder / "numbers.npy", numbers.astype(np.float32))
