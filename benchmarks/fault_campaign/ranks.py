"""Faults of one of two processes: killed, stopped, told to end."""

import signal
import time

from lavis_evlgen.runners import interrupt

from .cases import kind
from .runs import Failed, Missed
from .workplace import Workplace

GRACE = 60  # seconds beyond the time that the configuration allows, for a busy machine


def _others_end(place: Workplace, number: signal.Signals) -> str:
    """After the signal to one rank the other one ends in time; then both are started again."""
    run, victim = place.run("two"), place.rng.randrange(2)
    run.start()
    place.random_moment(run, "two", first=1)
    run.signal(number, victim)
    began = time.monotonic()
    other = 1 - victim
    code = run.wait(run.config["run"]["hang_timeout"] + GRACE, [other])[other]
    seconds = time.monotonic() - began
    run.kill()  # as torchrun does with what is left
    run.wait()
    if code == 0:
        raise Missed("the run was over")
    if f"rank {victim}" not in run.said():
        raise Failed(f"rank {other} ended with {code} without naming rank {victim}: {run.last_words()}")
    place.recover(run, place.reference("two"))
    return f"rank {victim} named in {'1 s' if seconds < 1 else 'time'}"


@kind("rank killed", 12, "two")
def rank_killed(place: Workplace) -> str:
    return _others_end(place, signal.SIGKILL)


@kind("rank stopped", 8, "two")
def rank_stopped(place: Workplace) -> str:
    return _others_end(place, signal.SIGSTOP)


@kind("SIGTERM to one rank", 6, "two")
def rank_told_to_end(place: Workplace) -> str:
    run = place.run("two")
    run.start()
    place.random_moment(run, "two", first=1)
    run.signal(signal.SIGTERM, place.rng.randrange(2))
    codes = run.wait()
    if codes == [0, 0]:
        raise Missed("the run was over")
    if codes != [interrupt.EXIT_CODE] * 2:
        raise Failed(f"the ranks ended with {codes}: {run.last_words()}")
    place.recover(run, place.reference("two"))
    return "both saved and left"
