"""LAVIS: that it can be imported with what we add to it, its repairs, and its cache."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, REINSTALL, Result, described
from lavis_evlgen.doctor.places import cache


def check_import() -> Iterator[Result]:
    start = time.monotonic()
    try:
        from lavis_evlgen.registration import register_all

        register_all()
    except Exception as error:  # a package of another version fails in whatever way
        yield PROBLEM, f"LAVIS with lavis_evlgen cannot be imported ({described(error)})", REINSTALL
        return
    yield OK, f"LAVIS and lavis_evlgen are imported in {time.monotonic() - start:.0f} s"


def check_repairs() -> Iterator[Result]:
    """What of LAVIS is replaced here (docs/compatibility.md)."""
    from lavis_evlgen.lavis_repairs import REPAIRS

    for repair in REPAIRS:
        if not repair.in_force():
            yield (
                PROBLEM,
                f"{repair.name} is not repaired here, and {repair.defect}",
                "import lavis_evlgen after whatever else replaces parts of LAVIS",
            )
        elif repair.needed():
            yield OK, f"{repair.name}: repaired ({repair.defect})"
        else:
            yield OK, f"{repair.name}: repaired, without need here ({repair.defect} elsewhere)"


def check_cache() -> Iterator[Result]:
    from lavis.common.registry import registry

    folder = Path(os.path.abspath(registry.get_path("cache_root")))
    level, *rest = cache("LAVIS's data sets", folder, "env.cache_root of lavis/configs/default.yaml", _names(folder))
    yield NOTE if level == PROBLEM else level, rest[0]  # paths of one's own are absolute and need no cache


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []
