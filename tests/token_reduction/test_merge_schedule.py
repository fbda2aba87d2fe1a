"""Merge schedules: forms, totals, what cannot be met."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.token_reduction import fewest_tokens, merge_schedule, stretched_schedule, token_counts


def test_paper_settings_end_at_29_tokens():
    assert token_counts(257, merge_schedule(19, 12)) == list(range(257, 28, -19))
    assert token_counts(257, merge_schedule(40, 6))[-1] == 257 - sum([40] * 5) - 28


def test_late_layers_merge_what_is_left():
    assert token_counts(257, merge_schedule(64, 6)) == [257, 193, 129, 65, 33, 17, 9]
    assert token_counts(256, [128], protect_cls=False) == [256, 128]


@given(st.integers(0, 100), st.floats(-1, 1), st.integers(1, 24))
def test_inflected_schedules_keep_the_total(r, inflect, num_layers):
    if num_layers == 2:
        return  # two values are one per layer there
    schedule = merge_schedule([r, inflect], num_layers)
    assert len(schedule) == num_layers and sum(schedule) == r * num_layers and min(schedule) >= 0
    assert schedule[-1] >= schedule[0] - 1 if inflect >= 0 else schedule[0] >= schedule[-1] - 1


def test_forms():
    assert merge_schedule([3, 2, 1], 3) == [3, 2, 1]
    assert merge_schedule([10, 1], 5) == [0, 5, 10, 15, 20]
    assert merge_schedule([10, -1], 5) == [20, 15, 10, 5, 0]
    assert merge_schedule([4, 1], 2) == [4, 1]


@pytest.mark.parametrize("bad", [-1, 2.5, [1, 2, 3, 4], [1, 2, -1], [3, 2.0]])
def test_unusable_schedules_name_the_key(bad):
    with pytest.raises(ConfigError, match="tome_r"):
        merge_schedule(bad, 3)


def test_too_large_r_says_what_is_possible():
    with pytest.raises(ConfigError, match="tome_r: 129 is too large.* 128 of 257"):
        token_counts(257, [19, 129])


@pytest.mark.parametrize("schedule", [[128, 64, 32, 16, 8, 0], [38] * 6, [0] * 6, [0, 0, 0, 0, 0, 100]])
@pytest.mark.parametrize("protect_cls", [True, False])
def test_a_stretched_schedule_leaves_what_was_asked_for(schedule, protect_cls):
    trained = token_counts(257, schedule, protect_cls=protect_cls)
    least = fewest_tokens(257, 6, protect_cls=protect_cls)
    assert least == 5
    for left in range(least, 258):
        stretched = stretched_schedule(schedule, 257, left, protect_cls=protect_cls)
        assert token_counts(257, stretched, protect_cls=protect_cls)[-1] == left
    same = stretched_schedule(schedule, 257, trained[-1], protect_cls=protect_cls)
    assert token_counts(257, same, protect_cls=protect_cls) == trained


def test_a_stretched_schedule_keeps_the_proportions():
    assert stretched_schedule([19] * 12, 257, 29) == [19] * 12
    assert sorted(stretched_schedule([19] * 12, 257, 143)) == [9] * 6 + [10] * 6
    assert stretched_schedule([128, 64, 32, 16, 8, 0], 257, 133) == [64, 32, 16, 8, 4, 0]
    for left in (4, 258):
        with pytest.raises(ConfigError, match=f"tokens: 257 cannot be merged into {left}; choose 5 to 257"):
            stretched_schedule([64] * 6, 257, left)
