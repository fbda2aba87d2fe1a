"""EVLGen for LAVIS: importing this package registers its models, data sets, processors, tasks and runner."""

import sys

__version__ = "0.1.0"

# commands that import LAVIS by themselves, since they must start where LAVIS or torch fails to, or do not need it
_ON_THEIR_OWN = ("doctor", "watch")


def _on_its_own(argv: list[str]) -> bool:
    """Whether this is `evlgen doctor` or `evlgen watch`."""
    if argv[1:3] == ["-m", "lavis_evlgen.cli"]:
        return len(argv) > 3 and argv[3] in _ON_THEIR_OWN
    return len(argv) > 2 and argv[1].endswith("evlgen") and argv[2] in _ON_THEIR_OWN


if not _on_its_own(sys.orig_argv):
    from lavis_evlgen.registration import register_all

    register_all()

    from lavis_evlgen.loading import load_model_and_preprocess

    __all__ = ["load_model_and_preprocess"]
