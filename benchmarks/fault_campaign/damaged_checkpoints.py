"""Faults of checkpoints: a killed run finds its newest, its best or several of them cut off or with other bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from .cases import kind
from .runs import Failed, Run
from .workplace import Workplace

STOPPED = ("stopped at 12", "stopped at 20")
BEST = "checkpoint_best.pth"


def cut(path: Path, rng: Random) -> None:
    """At any byte, from none left to one missing."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def flip(path: Path, rng: Random) -> None:
    """One to eight bits anywhere."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def hole(path: Path, rng: Random) -> None:
    """A block of zeros where a page never reached the disk."""
    content = bytearray(path.read_bytes())
    start = rng.randrange(0, len(content), 512)
    size = min(rng.choice((512, 4096, 65536)), len(content) - start)
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def _targets(run: Run, which: str, rng: Random) -> list[Path]:
    numbered = sorted(run.out.glob("checkpoint_[0-9]*.pth"), key=lambda path: int(path.stem.split("_")[1]))
    if which == "newest":
        return numbered[-1:]
    if which == "best":
        return [run.out / BEST]
    intact = rng.choice(numbered)  # one of them is all that is left
    return [path for path in [*numbered, run.out / BEST] if path != intact]


def _damaged(which: str, damage: Callable[[Path, Random], None]) -> Callable[[Workplace], str]:
    def inject(place: Workplace) -> str:
        run = place.run("kept")
        shutil.copytree(place.reference(place.rng.choice(STOPPED)).out, run.out)
        targets = _targets(run, which, place.rng)
        for path in targets:
            damage(path, place.rng)
        place.recover(run, place.reference("kept"))
        named = sum(f"{path.name} is damaged" in run.said() for path in targets)
        if damage is cut and named < len(targets[:1]):
            raise Failed(f"none of {[path.name for path in targets]} was named as damaged")
        return f"{named} named" if len(targets) > 1 else ("named" if named else "harmless")

    return inject


for _which in ("newest", "best", "several"):
    kind(f"checkpoint cut off: {_which}", 5, *STOPPED, "kept")(_damaged(_which, cut))
    kind(f"checkpoint bits flipped: {_which}", 5, *STOPPED, "kept")(_damaged(_which, flip))
kind("checkpoint with a hole: newest", 4, *STOPPED, "kept")(_damaged("newest", hole))
