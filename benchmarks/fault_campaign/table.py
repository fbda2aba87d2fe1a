"""What a campaign reports: one row a kind, the total, and a file of all cases."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from .cases import KINDS, Case


@dataclass(frozen=True)
class Result:
    """``where`` the fault struck, ``error`` if the run did not come back, ``attempts`` until it struck."""

    kind: str
    number: int
    seed: int
    attempts: int
    seconds: float
    where: str = ""
    error: str = ""

    @property
    def struck(self) -> bool:
        return bool(self.where or self.error)


def table(results: list[Result], planned: list[Case], seconds: float) -> str:
    lines = [f"{'fault':36} {'injected':>8} {'equal':>6} {'failed':>6} {'s each':>6}  where"]
    for name in KINDS:
        if of := [result for result in results if result.kind == name]:
            lines.append(_row(name, of))
    lines.append(_row("all", results, where=False))
    lines.append(f"{seconds:.0f} s; {_not_done(results, planned)}")
    for result in results:
        if result.error:
            lines.append(f'FAILED --only "{result.kind}" --case {result.number} --seed {result.seed}: {result.error}')
    return "\n".join(lines)


def _row(name: str, results: list[Result], where: bool = True) -> str:
    failed = sum(bool(result.error) for result in results)
    struck = sum(result.struck for result in results)
    each = sum(result.seconds for result in results) / max(1, len(results))
    places = Counter(result.where for result in results if result.where)
    text = "; ".join(f"{place}: {number}" for place, number in places.most_common(5)) if where else ""
    return f"{name:36} {struck:8d} {struck - failed:6d} {failed:6d} {each:6.1f}  {text}".rstrip()


def _not_done(results: list[Result], planned: list[Case]) -> str:
    missed = [result for result in results if not result.struck]
    said = f"{len(planned) - len(results)} of {len(planned)} planned faults were not begun in time"
    return said + (f", {len(missed)} did not strike in {missed[0].attempts} attempts" if missed else "")


def write_json(path: Path, results: list[Result], seed: int) -> None:
    path.write_text(json.dumps({"seed": seed, "cases": [asdict(result) for result in results]}, indent=1) + "\n")
