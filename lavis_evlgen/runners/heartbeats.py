"""Signs of life of the ranks, and who among them is gone or stuck, judged by the reader's own clock alone."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

NAMED = 4  # ranks in one message


@dataclass(frozen=True)
class Heartbeat:
    """What one rank says of itself.

    beat, phases, moves: counters (see :class:`Activity`). waiting: its main thread is in a collective. place: where
    its main thread is. stop: it was told to stop. ended: why it leaves, None while it does not; code: its exit code.
    """

    rank: int
    host: str
    pid: int
    beat: int = 0
    phase: str = "starting"
    step: int = 0
    phases: int = 0
    moves: int = 0
    waiting: bool = False
    place: str = ""
    stop: bool = False
    ended: str | None = None
    code: int = 0

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> "Heartbeat":
        return cls(**json.loads(text))

    @property
    def name(self) -> str:
        return f"rank {self.rank} ({self.host}, pid {self.pid})"

    @property
    def doing(self) -> str:
        return f"in step {self.step}, {self.phase}" if self.step else self.phase


class Peer:
    """One rank as another sees it: ``heard`` and ``moved`` are seconds of the reader's clock at the last change."""

    def __init__(self, heartbeat: Heartbeat, now: float) -> None:
        self.last = heartbeat
        self.heard = self.moved = now

    def take(self, heartbeat: Heartbeat, now: float) -> None:
        if heartbeat.beat != self.last.beat:
            self.heard = now
        if heartbeat.moves != self.last.moves:
            self.moved = now
        self.last = heartbeat

    def forgive(self, now: float) -> None:
        """Count from now: the reader itself was stopped for a while."""
        self.heard = self.moved = now


def find_fault(peers: Sequence[Peer], now: float, limit: float) -> str | None:
    """The ranks that are gone or stuck for more than ``limit`` seconds, in words; None while there is none.

    Gone: no heartbeat. Stuck: heartbeats but no progress, in a phase that others have left, or outside of any
    collective while the others of its phase wait in one.
    """
    gone = [peer for peer in peers if now - peer.heard > limit]
    if gone:
        return _listed(
            [f"{p.last.name} has not been heard of for {now - p.heard:.0f} s, last {p.last.doing}" for p in gone]
        )
    first = min(peer.last.phases for peer in peers)
    behind = [peer for peer in peers if peer.last.phases == first]
    working = [peer for peer in behind if not peer.last.waiting]
    stuck = [peer for peer in working if now - peer.moved > limit]
    if stuck and len(stuck) < len(peers):
        return _listed([_without_progress(peer, now) for peer in stuck])
    if all(now - peer.moved > limit for peer in peers):
        return "no rank makes progress: " + _listed([_without_progress(peer, now) for peer in behind])
    return None


def _without_progress(peer: Peer, now: float) -> str:
    place = f" at {peer.last.place}" if peer.last.place else ""
    return f"{peer.last.name} has made no progress for {now - peer.moved:.0f} s {peer.last.doing}{place}"


def _listed(sentences: list[str]) -> str:
    more = len(sentences) - NAMED
    return "; ".join(sentences[:NAMED]) + (f"; and {more} more" if more > 0 else "")
