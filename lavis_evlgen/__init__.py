"""EVLGen for LAVIS: importing this package registers its models, data sets, processors, tasks and runner."""

import sys
from pathlib import PurePath

__version__ = "0.1.0"


def _is_program(argv: list[str]) -> bool:
    """Whether this process is `evlgen`: it registers for the commands that need it, and knows them only later."""
    return argv[1:3] == ["-m", "lavis_evlgen.cli"] or (len(argv) > 1 and PurePath(argv[1]).name == "evlgen")


if not _is_program(sys.orig_argv):
    from lavis_evlgen.registration import register_all

    register_all()

    from lavis_evlgen.loading import load_model_and_preprocess

    __all__ = ["load_model_and_preprocess"]
