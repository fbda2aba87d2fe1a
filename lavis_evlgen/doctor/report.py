"""The command `evlgen doctor`: findings as lines or as one JSON object, and an exit code."""

from __future__ import annotations

import json
import time

from lavis_evlgen.doctor.findings import NOTE, PROBLEM
from lavis_evlgen.doctor.parts import all_findings


def doctor(cfg_path: str | None = None, as_json: bool = False, train: bool = True) -> int:
    """Check everything and print it; 1 where there are problems, else 0."""
    start = time.monotonic()
    found = []
    for finding in all_findings(cfg_path, train):
        found.append(finding)
        if not as_json:
            print(*finding.lines(), sep="\n", flush=True)
    problems, notes = (sum(each.level == level for each in found) for level in (PROBLEM, NOTE))
    seconds = round(time.monotonic() - start, 1)
    if as_json:
        rows = [each.as_dict() for each in found]
        print(json.dumps({"problems": problems, "notes": notes, "seconds": seconds, "findings": rows}))
    else:
        print(f"{problems} problems, {notes} notes, {len(found) - problems - notes} ok, in {seconds:.0f} s")
    return 1 if problems else 0
