"""The command: plan, undisturbed runs, faults in parallel, table."""

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers.models.opt import modeling_opt  # noqa: F401  imported once here, not in every run

from . import damaged_checkpoints, damaged_data, full_disk, killing, nan_batches, ranks  # noqa: F401
from .cases import KINDS, Case, plan
from .runs import Failed, Missed
from .setups import run_undisturbed
from .table import Result, table, write_json
from .workplace import Workplace

ATTEMPTS = 20


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    import fault_campaign

    parser = argparse.ArgumentParser(
        prog="fault_campaign", description=fault_campaign.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="number of faults (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="begin no fault later (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the list of faults (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="faults at a time (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], choices=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--case", type=int, help="one case of --only, by its number")
    parser.add_argument("--folder", type=Path, default=Path("outputs/fault_campaign"), help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.case is not None and len(args.only) != 1:
        parser.error("--case needs the kind: --only KIND")
    return args


def try_case(case: Case, folder: Path) -> Result:
    """Inject until the fault strikes; the case's folder is kept when the run did not come back."""
    name = re.sub(r"\W+", "_", f"{case.kind} {case.number}")
    own, began = folder / "cases" / name, time.monotonic()
    where = error = ""
    for attempt in range(1, ATTEMPTS + 1):
        shutil.rmtree(own, ignore_errors=True)
        place = Workplace(own, folder / "undisturbed", case.rng(attempt))
        try:
            where = KINDS[case.kind].inject(place)
        except Missed:
            continue
        except Exception as failure:  # a fault of the campaign itself is one too
            error = str(failure) if isinstance(failure, Failed) else repr(failure)
        finally:
            place.clean_up()
        break
    if not error:
        shutil.rmtree(own, ignore_errors=True)
    return Result(case.kind, case.number, case.seed, attempt, round(time.monotonic() - began, 2), where, error)


def inject_all(cases: list[Case], args: argparse.Namespace, folder: Path, end: float) -> Iterable[Result]:
    """Undisturbed runs, then faults, ``args.jobs`` at a time, until the time is up."""
    setups = list(dict.fromkeys(name for case in cases for name in KINDS[case.kind].setups))
    # forked, so that nothing is imported again; each process runs one case at a time and has one thread
    with ProcessPoolExecutor(args.jobs, get_context("fork")) as pool:
        list(pool.map(run_undisturbed, setups, [folder / "undisturbed"] * len(setups)))
        waiting = {pool.submit(_in_time, case, folder, end) for case in cases}
        for done in as_completed(waiting):
            if (result := done.result()) is not None:
                yield result


def _in_time(case: Case, folder: Path, end: float) -> Result | None:
    return try_case(case, folder) if time.monotonic() < end else None


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(1)
    began = time.monotonic()
    folder = args.folder.absolute()
    for name in ("undisturbed", "cases"):
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if args.case is not None:
        cases = [Case(args.only[0], args.case, args.seed)]
    else:
        cases = plan(args.count, args.seed, args.only)
    results = []
    try:
        for result in inject_all(cases, args, folder, began + 60 * args.minutes):
            results.append(result)
            where = result.error or result.where or "did not strike"
            print(f"{len(results)}/{len(cases)} {result.kind} {result.number}: {where}", flush=True)
            write_json(folder / "faults.json", results, args.seed)
    except Failed as failure:  # of an undisturbed run
        print(f"error: {failure}", file=sys.stderr)
        return 1
    print("\n" + table(results, cases, time.monotonic() - began))
    return exit_code(results, cases)


def exit_code(results: list[Result], planned: list[Case]) -> int:
    """0 where every planned fault was begun in time, and none had an effect that stayed."""
    return int(len(results) < len(planned) or any(result.error for result in results))
