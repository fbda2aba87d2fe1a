"""EVLGen for LAVIS: importing this package registers its models, data sets, processors, tasks and runner."""

import sys

__version__ = "0.1.0"

# commands that import LAVIS by themselves, since they must start where LAVIS or torch fails to, or do not need it
_ON_THEIR_OWN = ("doctor", "watch", "projects")
_HELP = ("-h", "--help", "--version")


def _on_its_own(argv: list[str]) -> bool:
    """Whether this is one of those commands of `evlgen`, or only asks for help."""
    if argv[1:3] == ["-m", "lavis_evlgen.cli"]:
        given = argv[3:]
    elif len(argv) > 1 and argv[1].endswith("evlgen"):
        given = argv[2:]
    else:
        return False
    return not given or given[0] in _ON_THEIR_OWN or any(word in _HELP for word in given)


if not _on_its_own(sys.orig_argv):
    from lavis_evlgen.registration import register_all

    register_all()

    from lavis_evlgen.loading import load_model_and_preprocess

    __all__ = ["load_model_and_preprocess"]
