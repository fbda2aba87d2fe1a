"""Everything that `import lavis_evlgen` enters into LAVIS's registry."""

from __future__ import annotations

import importlib
import importlib.util

_REGISTERING_MODULES = (
    "models.zoo",
    "datasets.builders",
    "processors.image",
    "tasks.captioning",
    "runners.runner_evlgen",
)


def register_all() -> None:
    """Import the modules that register something, and repair LAVIS; harmless when repeated."""
    importlib.import_module("lavis")
    for name in _REGISTERING_MODULES:
        if importlib.util.find_spec(f"lavis_evlgen.{name}"):  # TEMPORARY
            importlib.import_module(f"lavis_evlgen.{name}")
    importlib.import_module("lavis_evlgen.lavis_repairs").repair()
