"""Where one case happens: its folder, its random numbers, and the undisturbed runs beside it."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from .comparison import difference
from .runs import Failed, Missed, Run
from .setups import SETUPS


class Workplace:
    """``folder`` is the case's own; ``references`` has the undisturbed run of each setup."""

    def __init__(self, folder: Path, references: Path, rng: random.Random) -> None:
        self.folder, self.references, self.rng = folder, references, rng
        self.runs: list[Run] = []

    def run(self, setup: str, name: str = "run", data: Path | None = None, **options: Any) -> Run:
        """A run like the undisturbed one of ``setup``, on ``data`` in place of its data; options of `run` change."""
        config, processes = SETUPS[setup].config(data or self.data(setup)), SETUPS[setup].processes
        run = Run(self.folder / name, {**config, "run": {**config["run"], **options}}, processes)
        self.runs.append(run)
        return run

    def data(self, setup: str) -> Path:
        """Folder of a setup's intact data."""
        return self.references / setup / "data"

    def copied_data(self, setup: str, name: str = "data") -> Path:
        return Path(shutil.copytree(self.data(setup), self.folder / name))

    def reference(self, setup: str) -> Run:
        config, processes = SETUPS[setup].config(self.data(setup)), SETUPS[setup].processes
        return Run(self.references / setup, config, processes)

    def step_seconds(self, setup: str) -> float:
        """Of the undisturbed run, its start included."""
        return float((self.references / setup / "seconds").read_text()) / self.reference(setup).steps_wanted

    def random_moment(self, run: Run, setup: str, first: int = 0) -> int:
        """Wait for a random moment after a random number of steps, which is returned; with 0 the run may still start.

        ``first``: the least number of steps.
        """
        steps = self.rng.randrange(first, run.steps_wanted)
        part = self.rng.random()
        if steps:
            run.wait_until(lambda: run.steps() >= steps)
            time.sleep(part * self.step_seconds(setup))
        else:
            time.sleep(part * self.step_seconds(setup) * run.steps_wanted / 4)
        return steps

    def kill(self, run: Run, setup: str) -> str:
        """kill -9 at a random moment; says in what. Missed when the run was over."""
        run.start()
        self.random_moment(run, setup)
        run.signal(signal.SIGKILL)
        if run.wait()[0] != -signal.SIGKILL:
            raise Missed("the run was over")
        if run.unfinished():
            return "writing"
        return "in training" if run.steps() else "in its start"

    def recover(self, run: Run, reference: Run, ignore: tuple[str, ...] = ()) -> None:
        """The same command again must end as the undisturbed run did; ``ignore`` as for :meth:`compare`."""
        codes = run.finish()
        if any(codes):
            raise Failed(f"the resumed run ended with {codes}: {run.last_words()}")
        self.compare(run, reference, ignore)

    def compare(self, run: Run, reference: Run, ignore: tuple[str, ...] = ()) -> None:
        """Raises Failed with the first difference between two finished runs; ``ignore`` names keys of their steps."""
        if different := difference(run, reference, ignore):
            raise Failed(different)

    def clean_up(self) -> None:
        for run in self.runs:
            run.kill()
