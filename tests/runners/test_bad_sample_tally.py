"""When the share of unreadable samples stops a run: hand-counted."""

import math

import pytest

from lavis_evlgen.errors import DataError
from lavis_evlgen.runners.bad_samples import BadSampleTally


def stops_at(tally: BadSampleTally, samples: str) -> int | None:
    """Number of the sample at which the tally raises; "x" is a bad one."""
    for number, sample in enumerate(samples, start=1):
        try:
            tally.add(int(sample != "x"), int(sample == "x"))
        except DataError:
            return number
    return None


def test_a_large_or_endless_set_is_judged_from_100_samples_on():
    for sizes in ((), (5000, 5000), (math.inf, math.inf)):
        assert stops_at(BadSampleTally(0.05, *sizes), "x" * 6 + "." * 200) == 100
        assert stops_at(BadSampleTally(0.05, *sizes), "x" * 5 + "." * 200) is None
        assert stops_at(BadSampleTally(0.05, *sizes), "." * 100 + "x" * 6) == 106  # 6 > 0.05 * 106


def test_a_small_set_is_judged_at_the_end_of_its_first_pass():
    assert stops_at(BadSampleTally(0.05, 12, 12), "x" + "." * 30) == 12
    assert stops_at(BadSampleTally(0.1, 12, 12), "x" + "." * 11) is None
    assert stops_at(BadSampleTally(0.1, 12, 12), "." * 11 + "x" + "." * 11 + "x" + "..") is None  # 2 of 24
    assert stops_at(BadSampleTally(0.0, 12, 12), "x" + "." * 30) == 12


def test_a_dropped_tail_and_a_part_of_the_set_raise_no_false_alarm():
    """6 samples of which batches of 4 show 4; 40 samples of which this process has 5."""
    assert stops_at(BadSampleTally(0.2, 6, 4), "...x....") is None  # one of four, but of six in truth
    assert stops_at(BadSampleTally(0.2, 6, 4), "..xx") == 4
    assert stops_at(BadSampleTally(0.05, 40, 5), "x..x.") is None
    assert stops_at(BadSampleTally(0.05, 40, 5), "xxx..") == 5  # more than 2 of the 40 already


def test_counts_go_on_after_a_resume():
    first = BadSampleTally(0.05)
    first.add(70, 5)
    second = BadSampleTally(0.05)
    second.load_state_dict(first.state_dict())
    assert (second.good, second.bad) == (70, 5)
    with pytest.raises(DataError, match=r"6 of 101 samples could not be read, more than run.max_bad_share \(0.05\)"):
        second.add(25, 1)
    second.load_state_dict({})
    assert (second.good, second.bad) == (0, 0)
