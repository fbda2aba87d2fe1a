"""Faults of processes: kill -9 at random moments and in the middle of a file, stop signals, a killed data worker."""

import os
import re
import signal
from pathlib import Path

from lavis_evlgen.runners import interrupt

from .cases import kind
from .runs import USER_ERROR, Failed, Missed, Run
from .workplace import Workplace

PLAIN = ("map", "stream", "mixture", "workers")


@kind("kill -9 in training", 30, *PLAIN)
def kill_in_training(place: Workplace) -> str:
    setup = place.rng.choice(PLAIN)
    run = place.run(setup)
    where = place.kill(run, setup)
    place.recover(run, place.reference(setup))
    return where


@kind("kill -9 in a checkpoint", 30, "large")
def kill_in_checkpoint(place: Workplace) -> str:
    """While the next file after a random step grows, at a random share of its size."""
    run, reference = place.run("large"), place.reference("large")
    step, share = place.rng.randint(0, run.steps_wanted), place.rng.random()
    run.start()
    run.wait_until(lambda: run.steps() >= step)
    whole = _kill_at_share(run, reference, share)
    if run.wait()[0] != -signal.SIGKILL or not (left := run.unfinished()):
        raise Missed("the file was written")
    where = "half-written" if left[0].stat().st_size < whole else "written, not renamed"
    place.recover(run, reference)
    return where


def _kill_at_share(run: Run, reference: Run, share: float) -> int:
    """Kill the run when the next file that it writes has this share of its size, which is returned."""
    while True:
        path: Path = run.wait_until(lambda: list(run.out.glob("*.pth.*")))[0]
        name = re.sub(r"_\d+", f"_{run.steps_wanted}", path.name.split(".pth")[0])  # the last one was kept
        whole = (reference.out / f"{name}.pth").stat().st_size
        try:
            while path.stat().st_size < share * whole:
                pass
            run.signal(signal.SIGKILL)
            return whole
        except FileNotFoundError:  # renamed before: the next one
            continue


def _stop(place: Workplace, number: signal.Signals) -> str:
    """The step that was under way must be saved: nothing is done twice."""
    setup = place.rng.choice(PLAIN)
    run = place.run(setup)
    run.start()
    place.random_moment(run, setup)
    before = run.steps()
    run.signal(number)
    code = run.wait()[0]
    if code == 0:
        raise Missed("the run was over")
    if code == -number and not before:
        where = "before it began"
    elif code != interrupt.EXIT_CODE:
        raise Failed(f"{number.name} ended the run with {code}: {run.last_words()}")
    elif before and not (run.out / f"checkpoint_{run.steps()}.pth").is_file():
        raise Failed(f"{number.name} after step {before} left no checkpoint of step {run.steps()}")
    else:
        where = "saved and left" if before else "before it began"
    place.recover(run, place.reference(setup))
    return where


@kind("SIGTERM", 10, *PLAIN)
def sigterm(place: Workplace) -> str:
    return _stop(place, signal.SIGTERM)


@kind("SIGUSR1", 8, *PLAIN)
def sigusr1(place: Workplace) -> str:
    return _stop(place, signal.SIGUSR1)


@kind("data worker killed", 6, "workers")
def worker_killed(place: Workplace) -> str:
    run = place.run("workers")
    run.start()
    place.random_moment(run, "workers", first=1)
    children = Path(f"/proc/{run.pids[0]}/task/{run.pids[0]}/children")
    try:
        workers = [int(pid) for pid in children.read_text().split()]
    except FileNotFoundError:
        raise Missed("the run was over") from None
    if not workers:
        raise Missed("there was no worker")
    os.kill(place.rng.choice(workers), signal.SIGKILL)
    code = run.wait()[0]
    if code == 0:
        raise Missed("the run was over")
    if code != USER_ERROR or not re.search(r"^error: .*worker \d", run.said(), re.MULTILINE):
        raise Failed(f"the run ended with {code} without naming a data worker: {run.last_words()}")
    place.recover(run, place.reference("workers"))
    return f"ended with code {code}"
