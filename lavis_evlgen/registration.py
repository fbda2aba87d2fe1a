"""Everything that `import lavis_evlgen` enters into LAVIS's registry."""

from __future__ import annotations

import importlib
import warnings

from lavis_evlgen.errors import MissingLavisError

_REGISTERING_MODULES = (
    "models.zoo",
    "models.elip.albef",
    "models.elip.blip",
    "datasets.builders",
    "datasets.caption_builders",
    "datasets.question_builders",
    "datasets.video_builders",
    "processors.image",
    "processors.video",
    "tasks.captioning",
    "tasks.loss_parts",
    "tasks.question_answering",
    "tasks.self_critical",
    "runners.runner_evlgen",
)


def register_all() -> None:
    """Import the modules that register something, and repair LAVIS; harmless when repeated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LAVIS imports what its dependencies have deprecated since
        _import_lavis()
        importlib.import_module("lavis.common.optims")  # the schedules of LAVIS's own runners
    for name in _REGISTERING_MODULES:
        importlib.import_module(f"lavis_evlgen.{name}")
    importlib.import_module("lavis_evlgen.lavis_repairs").repair()


def _import_lavis() -> None:
    try:
        importlib.import_module("lavis")
    except ModuleNotFoundError as error:
        if error.name != "lavis":
            raise
        raise MissingLavisError(
            "LAVIS is not installed: pip install --no-deps salesforce-lavis==1.0.2 (what it pins no longer installs "
            "together; what it needs comes with lavis_evlgen)",
            name="lavis",
        ) from None
