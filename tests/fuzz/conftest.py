"""The fuzz tests: seconds of each in `make test`, always the same; EVLGEN_FUZZ_MINUTES of all in the slow set."""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from guard import Guard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path[:0] = [str(Path(__file__).parent.parent / folder) for folder in ("reports", "runners")]  # their helpers
MINUTES = float(os.environ.get("EVLGEN_FUZZ_MINUTES", "10"))
BATCH = 25  # examples between looks at the clock
_examples: Counter[str] = Counter()


class Fuzz:
    """Calls a check with examples: a fixed few, or random ones until its share of the time is over."""

    def __init__(self, name: str, seconds: float | None) -> None:
        self.name, self.seconds = name, seconds

    def __call__(self, check: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int = 100) -> None:
        """``examples`` is for the short version; the long one runs as long as its share of the time."""
        if self.seconds is None:
            self._run(check, strategy, examples)
            return
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self._run(check, strategy, BATCH, random.SystemRandom().getrandbits(32))

    def _run(
        self, check: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int, seed: int | None = None
    ) -> None:
        @settings(
            max_examples=examples,
            derandomize=seed is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(strategy)
        def one(example: Any) -> None:
            _examples[self.name] += 1
            check(example)

        if seed is not None:
            one = hypothesis.seed(seed)(one)
        one()


@pytest.fixture(params=["short", pytest.param("long", marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    long = [
        item for item in request.session.items if "fuzz" in getattr(item, "fixturenames", ()) and "long" in item.name
    ]
    seconds = MINUTES * 60 / len(long) if request.param == "long" else None
    return Fuzz(f"{request.path.stem}::{request.node.name}", seconds)


@pytest.fixture(scope="session")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    return Guard(tmp_path_factory.mktemp("outside"))


@pytest.fixture
def guard(_guard: Guard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    """Watches readers; the working directory is the folder they may write to."""
    monkeypatch.chdir(_guard.empty())
    with _guard.alone():
        yield _guard


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many examples were tried; shrinking counts too."""
    for name, count in _examples.items():
        terminalreporter.write_line(f"{name}: {count:,} examples")
