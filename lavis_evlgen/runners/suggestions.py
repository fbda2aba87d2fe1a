"""The hint of :func:`lavis_evlgen.errors.nearest` without its leading separator."""

from collections.abc import Iterable

from lavis_evlgen import errors


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the list of known names."""
    return errors.nearest(str(name), known).removeprefix("; ")
