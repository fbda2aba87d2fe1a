"""Embedded clips: an episode and its reverse are the same frames, files give them back, building is repeatable."""

import importlib.util
import json
from itertools import chain

import av
import numpy as np
import pytest
import torch

pytest.importorskip("minigrid")

from lavis_evlgen.datasets.frame_sampling import sample_frames
from lavis_evlgen.datasets.video_reading import read_clip
from lavis_evlgen.embedded import episodes
from lavis_evlgen.embedded.clips import write_clip
from lavis_evlgen.embedded.episodes import CELL, HOLD, MOMENTS, build, film, moments
from lavis_evlgen.embedded.gridworld import CELLS, NEAREST_START, solve
from lavis_evlgen.embedded.missions import WORDINGS, Item, Mission
from lavis_evlgen.errors import ConfigError, DataError
from lavis_evlgen.processors.video import VideoEvalProcessor

SMALL = {"train": 8, "val": 0, "test": 4, "unseen": 4}
BALL, KEY, DOOR = Item("yellow", "ball"), Item("blue", "key"), Item("green", "door")
COLOURS = {"yellow": (255, 255, 0), "blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def read(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text("utf-8").splitlines()]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cells(frame, colour):
    """(row, column) of the cells with pixels of a pure colour."""
    rows, columns = np.nonzero((frame == np.array(COLOURS[colour])).all(axis=2))
    return set(zip((rows // CELL).tolist(), (columns // CELL).tolist(), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("clips") / "made", **SMALL)


@pytest.mark.parametrize("verb", WORDINGS)
def test_babyai_says_what_we_say(verb):
    mission = Mission(verb, {"open": (DOOR,), "put next to": (BALL, KEY)}.get(verb, (BALL,)))
    sentence, frames, acts = solve(mission, 1, CELL)
    assert sentence == mission.caption()
    assert len(acts) == {"go to": 0, "put next to": 2}.get(verb, 1) and all(0 < act < len(frames) for act in acts)
    assert {frame.shape for frame in frames} == {(CELLS * CELL, CELLS * CELL, 3)}


def test_a_mission_is_seen_to_be_done():
    seen = film(Mission("pick up", (BALL,), (KEY,)), "a")
    assert len(seen) == MOMENTS
    assert [len(cells(frame, "yellow")) for frame in seen] == [1, 1, 1, 0]
    assert [len(cells(frame, "blue")) for frame in seen] == [1, 1, 1, 1]
    seen = film(Mission("open", (DOOR,)), "a")
    shown = [int((frame[..., 1] > 60 + frame[..., 0].astype(int)).sum()) for frame in seen]  # greenish
    assert shown[0] == shown[1] == shown[2] > 2 * shown[3] > 0, "an open door is a line at the cell's edge"
    seen = film(Mission("put next to", (BALL, KEY)), "a")
    (key,), (before,), (after,) = (
        cells(frame, c) for frame, c in ((seen[0], "blue"), (seen[0], "yellow"), (seen[3], "yellow"))
    )
    assert np.abs(np.subtract(after, key)).sum() == 1 < np.abs(np.subtract(before, key)).sum()
    assert [len(cells(frame, "yellow")) for frame in seen] == [1, 0, 0, 1], "what is carried is not seen"


def test_the_agent_begins_away_from_its_goal_and_ends_beside_it():
    for seed in range(5):
        _, frames, _ = solve(Mission("go to", (BALL,)), seed, CELL)
        (ball,) = cells(frames[0], "yellow")
        (first,), (last,) = cells(frames[0], "red"), cells(frames[-1], "red")
        assert np.abs(np.subtract(first, ball)).sum() >= NEAREST_START > np.abs(np.subtract(last, ball)).sum() == 1


def test_nothing_but_the_room_is_drawn():
    """MiniGrid lights up what the agent sees, which would point at where it is going."""
    frame = film(Mission("go to", (BALL,)), "a")[0]
    floor = [tuple(frame[row * CELL + 7, column * CELL + 7].tolist()) for row in range(1, 7) for column in range(1, 7)]
    assert floor.count((0, 0, 0)) == 34


def test_moments():
    assert moments(10, []) == [0, 3, 6, 9] and moments(2, []) == [0, 0, 0, 1]
    assert moments(10, [9]) == [0, 4, 8, 9]
    assert moments(20, [8, 19]) == [0, 8, 18, 19]


def test_records(folder):
    rows = {split: read(folder, split) for split in ("train", "test", "test_unseen")}
    assert {split: len(found) for split, found in rows.items()} == {"train": 16, "test": 8, "test_unseen": 8}
    assert not (folder / "val.jsonl").exists()
    for forwards, backwards in zip(rows["train"][::2], rows["train"][1::2], strict=True):
        assert (forwards["caption"], forwards["mirror_caption"]) == (backwards["mirror_caption"], backwards["caption"])
        assert (forwards["backwards"], backwards["backwards"]) == (False, True)
        assert backwards["image_id"] == f"{forwards['image_id']}_reversed"
        assert forwards["mission"] == backwards["mission"] and forwards["things"] == backwards["things"]
    everything = list(chain.from_iterable(rows.values()))
    for row in everything:
        assert " a " not in row["caption"] and all(f"the {thing}" in row["caption"] for thing in row["things"])
        assert all(phrase in row["caption"] for phrase in row["verb"])
    first = rows["train"][0]
    assert (first["video"], first["image_id"], first["verb"]) == ("train/000000.mp4", "train_000000", ["go to"])
    assert len({row["image_id"] for row in everything}) == 32
    assert "MiniGrid 3" in (folder / "ATTRIBUTION.txt").read_text("utf-8")


def test_what_is_held_out_is_in_no_training_caption(folder):
    seen = {thing for row in read(folder, "train") + read(folder, "test") for thing in row["things"]}
    assert all(row["things"][0] not in seen for row in read(folder, "test_unseen"))
    known, unseen = ({row["caption"] for row in read(folder, split)} for split in ("train", "test_unseen"))
    assert not known & unseen


def test_a_clip_and_its_reverse_are_the_same_frames(folder):
    for row in read(folder, "train")[::2]:
        forwards, backwards = (
            read_clip(folder / name, MOMENTS) for name in (row["video"], row["video"].replace(".", "_reversed."))
        )
        assert torch.equal(forwards, backwards.flip(0)) and not torch.equal(forwards, backwards)
        assert forwards.shape == (MOMENTS, CELLS * CELL, CELLS * CELL, 3)


def test_every_uniform_sampling_of_four_frames_sees_each_moment_once():
    length = MOMENTS * HOLD
    whole = {
        "the middle of each part": sample_frames(length, MOMENTS, "uniform"),
        "its beginning, as LAVIS does": np.arange(0, length, length / MOMENTS).astype(int),
        "its end": np.arange(0, length, length / MOMENTS).astype(int) + HOLD - 1,
        "from the first to the last frame": np.linspace(0, length - 1, MOMENTS).round().astype(int),
    }
    assert all([index // HOLD for index in frames] == [0, 1, 2, 3] for frames in whole.values())


def test_files_are_mp4_and_hold_the_very_frames(folder, tmp_path):
    with av.open(str(folder / "train/000001.mp4")) as file:
        (stream,) = file.streams
        assert ("mp4" in file.format.name, stream.codec_context.name, stream.frames) == (True, "h264", MOMENTS * HOLD)
        assert (stream.width, stream.height, float(stream.duration * stream.time_base)) == (112, 112, 2.0)
    noise = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    write_clip(tmp_path / "noise.mp4", noise)
    assert np.array_equal(read_clip(tmp_path / "noise.mp4", 5).numpy(), noise)


@pytest.mark.parametrize(
    ("temporal", "sees_order"), [("mean", False), ("contextualizer", False), ("time_embedding", True), ("concat", True)]
)
def test_only_some_models_can_tell_a_clip_from_its_reverse(folder, tiny_model, temporal, sees_order):
    """To the others both are the same, so that whatever they answer is right for half of the clips."""
    timed = temporal == "time_embedding"
    how = "contextualizer" if timed else temporal
    model = tiny_model("video", temporal=how, time_embedding=timed)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.startswith("temporal."):  # alpha starts at zero, where nothing would show
            parameter.data = torch.randn(parameter.shape, generator=generator)
    process = VideoEvalProcessor(image_size=56, num_frames=MOMENTS)
    clips = torch.stack([process(folder / name) for name in ("train/000002.mp4", "train/000002_reversed.mp4")])
    with torch.no_grad():
        prompts = model.soft_prompt({"video": clips})
    difference = (prompts[0] - prompts[1]).abs().max() / prompts.abs().max()
    assert difference > 1e-2 if sees_order else difference < 1e-5


def test_building_again_gives_the_same_bytes(folder, tmp_path):
    assert files(build(tmp_path / "again", **SMALL)) == files(folder)


def test_building_again_does_nothing_and_another_spec_rebuilds(tmp_path):
    out = build(tmp_path / "made", train=2, val=0, test=0, unseen=0)
    marker = out / "marker"
    marker.touch()
    before = (out / "train/000001.mp4").read_bytes()
    assert build(out, train=2, val=0, test=0, unseen=0) == out and marker.exists()
    build(out, train=2, val=0, test=0, unseen=0, seed=1)
    assert not marker.exists() and (out / "train/000001.mp4").read_bytes() != before
    build(out, train=2, val=0, test=0, unseen=0, verbs=["open"])
    assert {row["mission"] for row in read(out, "train")} == {"open"}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_broken_off_build_leaves_nothing_simulated(tmp_path, monkeypatch):
    """The interruption is simulated: writing the third clip raises it."""
    written = []

    def interrupted(path, frames):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_clip(path, frames)

    monkeypatch.setattr(episodes, "write_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "made", **SMALL)
    assert list(tmp_path.iterdir()) == [] and len(written) == 2


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not made by"):
        build(tmp_path, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_options_that_do_not_fit(tmp_path):
    with pytest.raises(ConfigError, match="train=-1"):
        build(tmp_path / "a", train=-1)
    with pytest.raises(ConfigError, match="not all 0"):
        build(tmp_path / "a", train=0, val=0, test=0, unseen=0)
    with pytest.raises(ConfigError, match="others=9"):
        build(tmp_path / "a", others=9)
    assert list(tmp_path.iterdir()) == []


def test_without_minigrid_simulated(tmp_path, monkeypatch):
    """The package's absence is simulated."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "minigrid" else find_spec(name))
    with pytest.raises(DataError, match="pip install minigrid"):
        build(tmp_path / "a", **SMALL)
