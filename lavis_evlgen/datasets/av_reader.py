"""Chosen frames of a video file by PyAV, decoding no more of the file than they need."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.frame_sampling import Choose

# decoders that skip, on request, frames which no other frame needs, and those that can start at any key frame
SKIPPING = frozenset({"h264", "hevc", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4"})
SEEKABLE = SKIPPING | {"av1", "libdav1d", "mjpeg"}
UNTIMED = frozenset({"avi"})  # formats whose packets have the time of their decoding, not that of their showing
# a decoder or scaler with threads that is freed in a forked worker of a loader waits for them for ever
NO_THREADS = 1
LARGEST = 1920 * 1088  # pixels of a frame; larger ones are reduced while they are decoded, for the memory's sake
MOST_BYTES = 1 << 26  # of compressed data to keep in memory between listing and decoding; longer files are read twice


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the container says about a packet: when its frame is shown, and whether decoding may start with it."""

    time: int | None
    key: bool
    hidden: bool


def read(path: str, choose: Choose) -> np.ndarray:
    """The chosen frames, uint8 [T, H, W, 3].

    Raises:
        ClipError: no video stream, no frame, or a damaged one.
        Exception: of several kinds, where the file cannot be opened or decoded.
    """
    with _opened(path) as (container, stream):
        entries, packets = _listed(container, stream)
        times = sorted(entry.time for entry in entries if entry.time is not None and not entry.hidden)
        shown = sum(not entry.hidden for entry in entries)
        # without times, or with one time for two frames, only counting tells the frames apart
        if container.format.name not in UNTIMED and len(set(times)) == shown > 0:
            wanted = [times[index] for index in choose(shown)]
            spans = _spans(entries, set(wanted), stream.codec_context.name in SEEKABLE)
            if packets is None:
                with _opened(path) as (again, same):
                    frames = _decoded(same.codec_context, again.demux(same), spans, set(wanted))
            else:
                frames = _decoded(stream.codec_context, packets, spans, set(wanted))
            if all(time in frames for time in wanted):
                return _pictures([frames[time] for time in wanted])
    return _counted(path, choose, shown)


def measure(path: str, most_frames: int) -> tuple[int, int, float, int]:
    """Width, height, seconds and frames, by container and packets alone; counting ends one behind `most_frames`."""
    with _opened(path) as (container, stream):
        times: list[float] = []
        count = 0
        for packet in container.demux(stream):
            if packet.size:
                count += 1
                if packet.pts is not None and packet.time_base:
                    times.append(float(packet.pts * packet.time_base))
            if count > most_frames:
                break
        said = (container.duration or 0) / av.time_base
        return stream.width, stream.height, max(said, max(times, default=0) - min(times, default=0)), count


@contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of moving pictures; cover pictures of sound files are none."""
    # a playlist in the guise of a video must not reach out to a network
    options = {"protocol_whitelist": "file"}
    with av.open(path, container_options=options, metadata_errors="replace") as container:
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise ClipError("no video stream in it" + (", sound alone" if container.streams.audio else ""))
        streams[0].codec_context.thread_count = NO_THREADS
        yield container, streams[0]


def _listed(container: Any, stream: Any) -> tuple[list[_Entry], list[Any] | None]:
    """All packets of a stream in decoding order; None in place of those of a long file."""
    entries: list[_Entry] = []
    packets: list[Any] | None = []
    size = 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_corrupt:
            raise ClipError(f"damaged or cut off at frame {len(entries)}")
        entries.append(_Entry(packet.pts, packet.is_keyframe, packet.is_discard))
        size += packet.size
        if packets is not None:
            packets.append(packet)
        if size > MOST_BYTES:
            packets = None
    return entries, packets


def _spans(entries: Sequence[_Entry], wanted: set[int], seekable: bool) -> list[tuple[int, int]]:
    """First and last packet of each stretch to decode, so that every wanted frame is in one behind its key frame."""
    keys = [number for number, entry in enumerate(entries) if entry.key] if seekable else [0]
    spans: list[tuple[int, int]] = []
    for number, entry in enumerate(entries):
        if entry.hidden or entry.time not in wanted:
            continue
        start = bisect_right(keys, number) - 1
        # a frame shown before its key frame (open group of pictures) also needs the group before
        while start > 0 and (entries[keys[start]].time or 0) > entry.time:
            start -= 1
        first = keys[start] if start >= 0 else 0
        if spans and first <= spans[-1][1] + 1:
            spans[-1] = (min(spans[-1][0], first), number)
        else:
            spans.append((first, number))
    return spans


def _decoded(
    context: Any, packets: Iterable[Any], spans: Sequence[tuple[int, int]], wanted: set[int]
) -> dict[int, Any]:
    """The wanted frames by time. Frames that neither are wanted nor needed by others are skipped, which is exact."""
    frames: dict[int, Any] = {}
    remaining = list(reversed(spans))
    unneeded = "NONREF" if context.name in SKIPPING else "DEFAULT"
    numbered = enumerate(packet for packet in packets if packet.size)
    for number, packet in numbered:
        first, last = remaining[-1]
        if number < first:
            continue
        context.skip_frame = "DEFAULT" if packet.pts in wanted else unneeded
        frames.update((frame.pts, frame) for frame in context.decode(packet) if frame.pts in wanted)
        if number == last:
            frames.update((frame.pts, frame) for frame in context.decode(None) if frame.pts in wanted)
            context.flush_buffers()
            remaining.pop()
            if not remaining:
                break
    return frames


def _counted(path: str, choose: Choose, length: int) -> np.ndarray:
    """The chosen frames of a file that does not tell their times: all are decoded, and again if not ``length`` came."""
    wanted = choose(length) if length else []
    frames, count = {}, 0
    with _opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            count = number + 1
            if number in wanted:
                frames[number] = frame
    if not count:
        raise ClipError("no frame in it")
    if count != length:
        return _counted(path, choose, count)
    return _pictures([frames[number] for number in wanted])


def _pictures(frames: Sequence[Any]) -> np.ndarray:
    """Frames as RGB [T, H, W, 3] of one size, turned as they are to be shown."""
    if any(frame.is_corrupt for frame in frames):
        raise ClipError("a frame of it is damaged")
    width, height = reduced(frames[0].width, frames[0].height)
    options = {"format": "rgb24", "width": width, "height": height, "interpolation": "AREA", "threads": NO_THREADS}
    pictures = np.empty((len(frames), height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        again = number and frame is frames[number - 1]
        pictures[number] = pictures[number - 1] if again else frame.to_ndarray(**options)
    return np.ascontiguousarray(_upright(pictures, _display_matrix(frames[0])))


def reduced(width: int, height: int) -> tuple[int, int]:
    """(width, height) of decoded frames: the file's own, or an equal fraction of both that ``LARGEST`` allows."""
    factor = math.ceil(math.sqrt(width * height / LARGEST)) if width * height > LARGEST else 1
    return -(-width // factor), -(-height // factor)


def _display_matrix(frame: Any) -> np.ndarray | None:
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]].reshape(2, 2)
    return None


def _upright(pictures: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Quarter turns and mirror images of a display matrix: a pixel (x, y) is shown at (x, y) @ matrix."""
    if matrix is None:
        return pictures
    (a, b), (c, d) = matrix.tolist()
    if abs(b) > abs(a):  # what was a row becomes a column
        pictures = pictures.swapaxes(1, 2)
        a, d = c, b
    if a < 0:
        pictures = pictures[:, :, ::-1]
    return pictures[:, ::-1] if d < 0 else pictures
