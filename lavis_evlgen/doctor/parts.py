"""The checks, in the processes that they run in: a crash or a hang of one part leaves the others their say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lavis_evlgen.doctor import configuration, decoders, lavis_checks, machine, packages, places, smoke, torch_checks
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, REINSTALL, Check, Finding, examine

Named = list[tuple[str, Check]]

# what tells a process that it is one of several; the doctor's are alone
_PLACEMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "MASTER_ADDR")
_STARTED = "started"
_OF_YAML = ("weights", "data", "run")
_NEEDED = {"LAVIS": ("repairs", "LAVIS cache", "yaml", *_OF_YAML, "training"), "yaml": _OF_YAML}


def first_checks() -> Named:
    """Those that import nothing that could fail badly; they run in the doctor's own process."""
    return [
        ("Python", packages.check_python),
        ("packages", packages.check_packages),
        ("memory", machine.check_memory),
        ("disk", partial(machine.check_disk, Path("outputs"))),
        ("Java", machine.check_java),
        ("embedded", places.check_embedded),
        ("Hugging Face", places.check_hugging_face),
        ("torch hub", places.check_torch_hub),
    ]


def torch_part() -> Named:
    return [
        ("gloo", torch_checks.check_gloo),
        ("processor", torch_checks.check_processor),
        ("GPU", torch_checks.check_gpu),
    ]


def decoder_part() -> Named:
    return [
        ("pictures", decoders.check_pictures),
        ("torchvision", decoders.check_torchvision),
        ("OpenCV", decoders.check_opencv),
        ("PyAV", decoders.check_av),
        ("decord", decoders.check_decord),
    ]


def lavis_part(cfg_path: str | None, train: bool) -> Named:
    checks: Named = [
        ("LAVIS", lavis_checks.check_import),
        ("repairs", lavis_checks.check_repairs),
        ("LAVIS cache", lavis_checks.check_cache),
    ]
    if cfg_path:
        of_yaml = {
            "yaml": configuration.check_keys,
            "weights": configuration.check_weights,
            "data": configuration.check_data,
            "run": configuration.check_room,
        }
        checks += [(name, partial(check, cfg_path)) for name, check in of_yaml.items()]
    return [*checks, ("training", smoke.check_training)] if train else checks


# seconds that a part may take: imports come off slow disks, beside other work
LIMITS = {"torch": 300.0, "decoders": 300.0, "lavis": 900.0}


def checks_of(part: str, cfg_path: str | None, train: bool) -> Named:
    parts: dict[str, Callable[[], Named]] = {
        "torch": torch_part,
        "decoders": decoder_part,
        "lavis": lambda: lavis_part(cfg_path, train),
    }
    return parts[part]()


def work(part: str, cfg_path: str | None, train: bool) -> None:
    """Run a part's checks in this process; what they find goes to standard output as JSON lines, all else to the other.

    Where a check fails, those that `_NEEDED` names with it are left out.
    """
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    failed: set[str] = set()
    for name, check in checks_of(part, cfg_path, train):
        print(json.dumps({_STARTED: name}), file=out, flush=True)
        needs = next((each for each, needing in _NEEDED.items() if each in failed and name in needing), None)
        found = [Finding(name, NOTE, f"not checked: see {needs}")] if needs else list(examine(name, check))
        if any(each.level == PROBLEM for each in found):
            failed.add(name)
        print(*(json.dumps(each.as_dict()) for each in found), sep="\n", file=out, flush=True)


def run_part(part: str, cfg_path: str | None, train: bool) -> Iterator[Finding]:
    """The findings of a part that runs in a process of its own, and a problem if that process dies or hangs."""
    command = [sys.executable, "-m", "lavis_evlgen.cli", "doctor", "--part", part]
    command += ["--cfg-path", cfg_path] if cfg_path else []
    command += [] if train else ["--no-train"]
    environment = {name: value for name, value in os.environ.items() if name not in _PLACEMENT}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment, text=True, start_new_session=True)
    hangs = False
    try:
        output, errors = process.communicate(timeout=LIMITS[part])
    except subprocess.TimeoutExpired:
        hangs = True
        os.killpg(process.pid, signal.SIGKILL)  # the processes that it started too
        output, errors = process.communicate()
    rows = [json.loads(line) for line in output.splitlines() if line.strip()]
    yield from (Finding(**row) for row in rows if _STARTED not in row)
    if process.returncode:
        at = next((row[_STARTED] for row in reversed(rows) if _STARTED in row), part)
        last = (errors.strip().splitlines() or ["no message"])[-1][:300]
        died = f"took more than {LIMITS[part]:g} s" if hangs else f"died ({ending(process.returncode)}: {last})"
        yield Finding(at, PROBLEM, f"the process of this check {died}; those after it were not made", REINSTALL)


def ending(code: int) -> str:
    """An exit code in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def all_findings(cfg_path: str | None, train: bool) -> Iterator[Finding]:
    """Everything, as soon as it is known."""
    for name, check in first_checks():
        yield from examine(name, check)
    for part in LIMITS:
        yield from run_part(part, cfg_path, train)
    if not train:
        yield Finding("training", OK, "not tried (--no-train)")
