"""What a check has found, and checks that cannot take the others down with them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from lavis_evlgen.errors import EvlgenError, one_line

OK, NOTE, PROBLEM = "ok", "note", "problem"
REINSTALL = "make a fresh environment with `pip install --no-deps -r requirements.lock`, in the checkout `make setup`"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: ok; note (works, but not as everybody would expect); problem (something will fail).
        way_out: what to do about a problem.
    """

    check: str
    level: str
    text: str
    way_out: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def lines(self) -> list[str]:
        """As it is printed; the way out has a line of its own."""
        way_out = [f"{'':8} {'':12} -> {self.way_out}"] if self.way_out else []
        return [f"{self.level:8} {self.check:12} {self.text}", *way_out]


Result = tuple[str, str] | tuple[str, str, str]
"""Level, text and way out of a finding, as the functions that check yield them."""
Check = Callable[[], Iterable[Result]]


def examine(name: str, check: Check) -> Iterator[Finding]:
    """The findings of a check; a check that fails in a way it did not foresee is a problem of its own."""
    try:
        for result in check():
            yield Finding(name, *result)
    except EvlgenError as error:  # which says itself what to do
        yield Finding(name, PROBLEM, str(error))
    except ImportError as error:
        yield Finding(name, PROBLEM, f"could not be checked: {described(error)}", REINSTALL)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename}:{last.lineno}"
        yield Finding(name, PROBLEM, f"the check failed: {described(error)} ({where})", REINSTALL)


def described(error: BaseException) -> str:
    """An exception in one line that is not too long for the report."""
    return one_line(error)[:300]
