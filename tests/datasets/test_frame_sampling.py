import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavis_evlgen.datasets.frame_sampling import SAMPLINGS, sample_frames, spread
from lavis_evlgen.errors import ConfigError

LENGTHS = st.integers(1, 2000)
COUNTS = st.integers(1, 64)


@given(LENGTHS, COUNTS, st.sampled_from(SAMPLINGS))
def test_exactly_so_many_frames_in_order_of_any_clip(length, count, sampling):
    frames = sample_frames(length, count, sampling)
    assert len(frames) == count
    assert frames == sorted(frames)
    assert frames[0] >= 0 and frames[-1] < length
    assert all(type(frame) is int for frame in frames)
    if length >= count and (sampling != "headtail" or count <= length // 2 * 2):
        assert len(set(frames)) == count, "a frame twice although there are enough"
    if count >= length:
        assert set(frames) == set(range(length)), "a frame left out although there is room"


@given(LENGTHS, COUNTS)
def test_uniform_takes_the_middle_of_equal_segments(length, count):
    for segment, frame in enumerate(sample_frames(length, count)):
        # frame f covers the time [f, f + 1) of the clip; the segment's middle lies in it
        assert frame <= (segment + 0.5) * length / count < frame + 1


def test_uniform_by_hand():
    assert sample_frames(100, 4) == [12, 37, 62, 87]
    assert sample_frames(4, 4) == [0, 1, 2, 3]
    assert sample_frames(3, 4) == [0, 1, 1, 2]
    assert sample_frames(1, 4) == [0, 0, 0, 0]
    # LAVIS takes 0, 25, 50, 75 of 100 frames, and 8 frames of 16 where 7 are asked for
    assert sample_frames(16, 7) == [1, 3, 5, 8, 10, 12, 14]


@given(st.integers(2, 500), COUNTS)
def test_headtail_takes_half_from_each_half(length, count):
    frames = sample_frames(length, count, "headtail")
    assert sum(frame < length // 2 for frame in frames) == count // 2


@pytest.mark.parametrize("sampling", ["headtail", "random"])
def test_draws_follow_torchs_generator_and_reach_every_frame(sampling):
    torch.manual_seed(3)
    drawn = [sample_frames(10, 4, sampling) for _ in range(200)]
    torch.manual_seed(3)
    assert [sample_frames(10, 4, sampling) for _ in range(200)] == drawn
    assert {frame for frames in drawn for frame in frames} == set(range(10))
    assert len({tuple(frames) for frames in drawn}) > 20


def test_random_reaches_unbalanced_draws_that_headtail_does_not():
    torch.manual_seed(0)
    heads = {sum(f < 5 for f in sample_frames(10, 4, "random")) for _ in range(200)}
    assert heads == {0, 1, 2, 3, 4}


@given(LENGTHS, COUNTS)
def test_spread_repeats_evenly(length, count):
    places = spread(length, count)
    repeats = [places.count(place) for place in set(places)]
    assert len(places) == count and places == sorted(places) and max(repeats) - min(repeats) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 4, "middle"), "sampling: 'middle' is unknown; use uniform, headtail, random"),
        ((10, 0), "num_frames must be a whole number from 1 on, not 0"),
        ((10, 2.5), "not 2.5"),
        ((10, True), "not True"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        sample_frames(*arguments)


def test_no_frame_is_no_clip():
    with pytest.raises(ValueError, match="without frames"):
        sample_frames(0, 4)
