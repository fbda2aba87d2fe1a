"""Ends a job of several processes when one of them dies, hangs or fails, naming it on every other one.

Key ``run.hang_timeout`` (seconds, 900; 0 turns it off). Every rank writes a heartbeat into the TCPStore at which the
processes met (MASTER_ADDR:MASTER_PORT, or that of a tcp:// ``run.dist_url``) and reads those of the others:

- a rank whose heartbeat does not change for that long (killed, stopped, its machine or the link to it gone) is named:
  "rank 1 (node2, pid 77) has not been heard of for 20 s, last in step 12, waiting for data";
- so is a rank that lives but makes no progress for that long (no new phase, no batch) while others wait for it;
- a store that does not answer for that long names the machine of rank 0, which is also told by what hosts the store;
- a collective that breaks (gloo: "Connection closed by peer") is explained within a few heartbeats by the rank that is
  gone; a rank that ends by an error of its own tells the others why.

Only the reader's clock counts, so clocks of machines may differ. Each rank then prints one line and ends with exit code
75 (``EXIT_CODE``, "try again"), by ``os._exit`` because a blocked collective cannot be interrupted. Under
``torchrun --max-restarts=N`` with ``run.auto_resume`` all ranks start again from the newest checkpoint.

A rank that was told to stop (SIGTERM, SIGUSR1) passes it on: all ranks stop, with exit code 143.
"""

import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import TypeGuard
from urllib.parse import urlparse

import torch.distributed as dist

from lavis_evlgen.errors import EvlgenError, first_line, one_line
from lavis_evlgen.runners import interrupt
from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.attempt import agents_store
from lavis_evlgen.runners.distributed import gathered
from lavis_evlgen.runners.heartbeats import Heartbeat, Peer, find_fault
from lavis_evlgen.runners.placement import Placement
from lavis_evlgen.runners.settings import RunSettings

EXIT_CODE = os.EX_TEMPFAIL
LONGEST_INTERVAL = 3.0  # seconds between two heartbeats
LEAST_PATIENCE = 2.0  # seconds of silence that mean a dead rank once a connection broke
STOP_GRACE = 20.0  # seconds that a rank has to leave by itself after another one was told to stop
BROKEN = re.compile(r"gloo|nccl|process ?group|connection (was )?(closed|reset|refused)|broken pipe|socket", re.I)


def connection_broke(error: BaseException | None) -> TypeGuard[BaseException]:
    """Whether a collective failed for want of another rank."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(BROKEN.search(str(error))))


def store_address(dist_url: str) -> tuple[str, int] | None:
    """Host and port of the processes' meeting point; None when they meet in a file."""
    if dist_url.startswith("tcp://"):
        url = urlparse(dist_url)
        return (url.hostname or "127.0.0.1", url.port or 0)
    if dist_url.startswith("env://"):
        return os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return None


def watched(placement: Placement, settings: RunSettings) -> AbstractContextManager:
    """A :class:`Watchdog` where there are other ranks to watch; the processes must have met."""
    ACTIVITY.reset()
    if placement.world_size == 1 or not settings.hang_timeout:
        return nullcontext()
    address = store_address(settings.dist_url)
    if address is None:
        logging.warning("run.hang_timeout: dead ranks are not noticed with run.dist_url %s.", settings.dist_url)
        return nullcontext()
    return Watchdog(placement, settings, address)


class Watchdog:
    """Context manager around a run of several ranks; every rank enters it at the same time, after they have met.

    A thread exchanges heartbeats; another one judges them, so that a store that never answers is noticed as well.
    """

    def __init__(self, placement: Placement, settings: RunSettings, address: tuple[str, int]) -> None:
        self.limit = settings.hang_timeout
        self.interval = min(self.limit / 10, LONGEST_INTERVAL)
        self.way_out = _way_out(settings)
        self.address = address
        self.hosts_store = placement.rank == 0 and not agents_store()
        self.own = Heartbeat(placement.rank, socket.gethostname(), os.getpid())
        self.peers: list[Peer] = []  # by rank, this one included
        self.exchanged = 0.0  # when the store last answered, by time.monotonic
        self._farewell: tuple[str, int] | None = None  # why this rank leaves, and its exit code
        self._farewell_is_read = threading.Event()  # the store has it
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._exchange, self._judge)]

    def __enter__(self) -> "Watchdog":
        everyone = gathered((self.own, time.time_ns()))
        attempt = everyone[0][1]  # an elastic restart may find the heartbeats of the attempt before
        wait = timedelta(seconds=self.limit)
        store = dist.TCPStore(*self.address, is_master=False, wait_for_workers=False, timeout=wait)
        self._store = dist.PrefixStore(f"lavis_evlgen/{attempt}", store)
        self._store.set(str(self.own.rank), self.own.to_text())
        dist.barrier()  # all heartbeats are there
        self.exchanged = time.monotonic()
        self.peers = [Peer(heartbeat, self.exchanged) for heartbeat, _ in everyone]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            try:
                dist.barrier()  # watched until all have finished
            except RuntimeError as broken:
                error = broken
        if connection_broke(error):
            self._explain(error)
        elif isinstance(error, SystemExit) and error.code == interrupt.EXIT_CODE:
            self._take_leave("was told to stop", interrupt.EXIT_CODE)
        elif error is not None:
            code = 2 if isinstance(error, EvlgenError) else 1
            self._take_leave(f"ended by {one_line(error)}", code)
        self._leaving.set()
        for thread in self._threads:  # one that waits for a lost store is left behind
            thread.join(2 * self.interval)

    def _explain(self, error: BaseException) -> None:
        """Wait until the judge knows the missing rank, and ends this process; end it as well if none is missing."""
        for number in interrupt.StopSignal.SIGNALS:  # torchrun sends them as soon as it notices
            signal.signal(number, signal.SIG_IGN)
        self.limit = min(self.limit, max(4 * self.interval, LEAST_PATIENCE))
        time.sleep(2 * self.limit + 4 * self.interval)
        self._end(f"{self.own.name} lost a connection, but all ranks are alive: {first_line(error)}", EXIT_CODE)

    def _take_leave(self, why: str, code: int) -> None:
        self._farewell = (f"{self.own.name} {why}", code)
        self._wait_for_readers()

    def _wait_for_readers(self) -> None:
        """Give the others time to read the farewell, before the store goes with this process."""
        self._farewell_is_read.wait(4 * self.interval)
        end = time.monotonic() + 4 * self.interval
        while self.hosts_store and time.monotonic() < end and any(not peer.last.ended for peer in self.peers):
            time.sleep(self.interval / 4)

    def _exchange(self) -> None:
        """Write the own heartbeat and read all of them, again and again."""
        keys = [str(peer.last.rank) for peer in self.peers]
        beat = 0
        while not self._leaving.wait(self.interval):
            beat += 1
            own = self._heartbeat(beat)
            try:
                self._store.set(str(own.rank), own.to_text())
                texts = self._store.multi_get(keys)
            except RuntimeError:  # the connection is closed; the judge gives it time
                continue
            if own.ended:
                self._farewell_is_read.set()
            now = time.monotonic()
            for peer, text in zip(self.peers, texts, strict=True):
                peer.take(Heartbeat.from_text(text), now)
            self.exchanged = now

    def _heartbeat(self, beat: int) -> Heartbeat:
        place, waiting = ACTIVITY.look()
        ended, code = self._farewell or (None, 0)
        return replace(
            self.own,
            beat=beat,
            phase=ACTIVITY.phase,
            step=ACTIVITY.step,
            phases=ACTIVITY.phases,
            moves=ACTIVITY.moves,
            waiting=waiting,
            place=place,
            stop=interrupt.stop_requested(),
            ended=ended,
            code=code,
        )

    def _judge(self) -> None:
        """End the process when a rank is gone or stuck, or has left."""
        before, longest_gap = time.monotonic(), self.limit / 2
        left_at: float | None = None
        while not self._leaving.wait(self.interval) and self._farewell is None:
            now = time.monotonic()
            if now - before > longest_gap:  # this process was stopped itself: nobody else is to blame
                self.exchanged = now
                for peer in self.peers:
                    peer.forgive(now)
            before = now
            told = [peer.last.name for peer in self.peers if peer.last.stop or peer.last.code == interrupt.EXIT_CODE]
            interrupt.pass_on(told)
            left = next((peer.last for peer in self.peers if peer.last.ended), None)
            if left is None:
                if (fault := self._fault(now)) is not None:
                    self._end(fault, EXIT_CODE)
                continue
            left_at = left_at or now
            stopped = left.code == interrupt.EXIT_CODE  # this rank may still end an evaluation batch
            if now - left_at > (min(self.limit, STOP_GRACE) if stopped else self.interval):
                self._end(str(left.ended), left.code)

    def _fault(self, now: float) -> str | None:
        exchanged = self.exchanged
        if now - exchanged <= self.limit:
            return find_fault(self.peers, exchanged, self.limit)  # a store that is silent says nothing of the ranks
        host, port = self.address
        return (
            f"the meeting point of the processes, {host}:{port} on the machine of rank 0 ({self.peers[0].last.host}), "
            f"has not answered for {now - exchanged:.0f} s: {self.peers[0].last.name}, its machine or the link to "
            f"it is gone; it was last {self.peers[0].last.doing}"
        )

    def _end(self, message: str, code: int) -> None:
        """Say it, also to the others, and end this process: its main thread may wait for ever."""
        who = f"rank {self.own.rank}: " if self.own.rank else ""
        what = "stopped" if code == interrupt.EXIT_CODE else "error"
        print(f"{who}{what}: {message}. {self.way_out}", file=sys.stderr, flush=True)
        self._farewell = (message, code)
        self._wait_for_readers()
        os._exit(code)


def _way_out(settings: RunSettings) -> str:
    how = f"the newest checkpoint in {settings.output_dir}"
    if settings.auto_resume:
        how = f"The same command goes on from {how}"
    else:
        how = f"Go on with run.resume_ckpt_path set to {how}"
    return f"{how} (torchrun --max-restarts=N does so by itself with run.auto_resume=True)"
