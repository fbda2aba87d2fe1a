"""Clips with bytes changed, in the containers that collections are made of, and texts that pretend to be clips."""

from typing import Any

import pytest
import torch
import video_files
from guard import put
from hypothesis import strategies as st
from mutations import damaged

from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.video_reading import read_clip

KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "a.mkv": {},
    "a.avi": {"codec": "mpeg4"},
}
SAME = {"fflags": "+bitexact"}  # the same bytes in every run: Matroska files hold a random number otherwise


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """(name, content) of small clips."""
    folder = tmp_path_factory.mktemp("clips")
    for name, how in KINDS.items():
        video_files.write_clip(folder / name, 8, container_options=SAME, **how)
    return [(name, (folder / name).read_bytes()) for name in KINDS]


def check(guard: Any, name: str, data: bytes) -> Any:
    found = guard.read(read_clip, put(guard.inside / name, data), 3)
    if isinstance(found, ClipError):
        return found
    assert found.dtype == torch.uint8 and found.ndim == 4 and len(found) == 3 and found.shape[3] == 3
    return found


def test_bytes(fuzz, guard, clips):
    cases = st.sampled_from(clips).flatmap(lambda clip: st.tuples(st.just(clip[0]), damaged(clip[1])))
    fuzz(lambda case: check(guard, *case), cases, 40)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        "#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"file:///etc/passwd\"\n#EXTINF:1,\nfile:///etc/passwd\n",
        "ffconcat version 1.0\nfile /etc/passwd\n",
        "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.sdp"])
def test_texts_that_name_other_places(guard, name, text):
    assert isinstance(check(guard, name, text.encode()), ClipError)
