"""Who is gone or stuck, from heartbeats alone."""

import pytest

from lavis_evlgen.runners.activity import Activity
from lavis_evlgen.runners.heartbeats import Heartbeat, Peer, find_fault
from lavis_evlgen.runners.placement import Placement
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.watchdog import Watchdog, connection_broke, store_address

LIMIT = 10.0


def peers(*states: dict) -> list[Peer]:
    """Peers at second 100: ``silent`` and ``still`` are the seconds since the last heartbeat and the last move."""
    found = []
    for rank, state in enumerate(states):
        silent, still = state.pop("silent", 0.0), state.pop("still", 0.0)
        peer = Peer(Heartbeat(rank, "host", 10 + rank, **{"phase": "forward pass", "step": 3, **state}), 0.0)
        peer.heard, peer.moved = 100.0 - silent, 100.0 - still
        found.append(peer)
    return found


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        # all is well, also while one waits for the other
        ([{"phases": 7}, {"phases": 7}], None),
        ([{"phases": 8, "still": 50.0, "waiting": True}, {"phases": 7, "still": 10.0}], None),
        ([{"phases": 7}, {"phases": 7, "silent": 10.0}], None),
        # no heartbeat, whatever else
        (
            [{"phases": 7, "still": 99.0}, {"phases": 9, "silent": 10.5, "still": 10.5}],
            "rank 1 (host, pid 11) has not been heard of for 10 s, last in step 3, forward pass",
        ),
        # behind the others
        (
            [{"phases": 8, "still": 12.0}, {"phases": 7, "still": 11.0, "place": "model.py:3 forward"}],
            "rank 1 (host, pid 11) has made no progress for 11 s in step 3, forward pass at model.py:3 forward",
        ),
        # in the same phase as the others, which wait for it
        (
            [{"phases": 7, "still": 20.0}, {"phases": 7, "still": 11.0, "waiting": True}],
            "rank 0 (host, pid 10) has made no progress for 20 s in step 3, forward pass",
        ),
        # one that is ahead may be busy for longer: nobody waits for what it does
        ([{"phases": 8, "still": 20.0}, {"phases": 7, "still": 1.0}], None),
        # all wait for each other
        (
            [{"phases": 7, "still": 20.0, "waiting": True}, {"phases": 7, "still": 11.0, "waiting": True}],
            "no rank makes progress: rank 0 (host, pid 10) has made no progress for 20 s in step 3, forward pass; "
            "rank 1 (host, pid 11) has made no progress for 11 s in step 3, forward pass",
        ),
    ],
)
def test_faults(states, expected):
    assert find_fault(peers(*states), 100.0, LIMIT) == expected


def test_no_rank_is_accused_while_the_store_is_silent():
    watchdog = Watchdog(Placement(1, 0, 2), RunSettings(hang_timeout=LIMIT), ("10.0.0.1", 77))
    watchdog.peers = peers({"silent": 1.0}, {})
    watchdog.exchanged = 100.0
    assert watchdog._fault(109.9) is None  # rank 0 was last heard of 10.9 s ago
    expected = "the meeting point of the processes, 10.0.0.1:77 on the machine of rank 0 (host), has not answered for "
    assert (watchdog._fault(110.5) or "").startswith(expected + "10 s: rank 0 (host, pid 10), its machine or the link")
    watchdog.exchanged = 110.0  # it answered again, and rank 0 had not been there meanwhile
    assert (watchdog._fault(110.5) or "").startswith("rank 0 (host, pid 10) has not been heard of for 11 s")


def test_a_long_list_is_cut():
    fault = find_fault(peers({}, {"silent": 20.0}, *[{"silent": 30.0} for _ in range(5)]), 100.0, LIMIT)
    assert fault is not None and fault.count("has not been heard of") == 4 and fault.endswith("; and 2 more")


def test_only_a_change_counts_as_a_sign_of_life():
    peer = Peer(Heartbeat(1, "host", 11), 0.0)
    peer.take(Heartbeat(1, "host", 11, beat=1), 5.0)
    peer.take(Heartbeat(1, "host", 11, beat=1), 9.0)
    assert (peer.heard, peer.moved) == (5.0, 0.0)
    peer.take(Heartbeat.from_text(Heartbeat(1, "host", 11, beat=2, moves=1, phase="x").to_text()), 12.0)
    assert (peer.heard, peer.moved, peer.last.phase) == (12.0, 12.0, "x")


def test_long_phases_move_with_the_main_thread_and_short_ones_do_not():
    activity = Activity()
    activity.enter("building the model")
    before = activity.moves
    activity.look()
    assert activity.moves == before + 1
    activity.enter("forward pass", 4, short=True)
    before = activity.moves
    activity.look()
    assert (activity.moves, activity.phases, activity.step) == (before, 2, 4)
    activity.move()
    assert activity.moves == before + 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[third_party/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"), True),
        (RuntimeError("NCCL communicator was aborted on rank 0."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (None, False),
    ],
)
def test_broken_connections_are_recognised(error, expected):
    assert connection_broke(error) is expected


def test_the_meeting_point(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert store_address("env://") == ("node1", 29500)
    assert store_address("tcp://10.0.0.1:77") == ("10.0.0.1", 77)
    assert store_address("file:///tmp/meet") is None
