"""The versions of what a result depends on."""

import importlib.metadata
import platform
from functools import cache

_PACKAGES = ("lavis_evlgen", "salesforce-lavis", "torch", "transformers", "numpy")


@cache  # every checkpoint holds them
def versions() -> dict[str, str]:
    """Version by package, Python's own included; packages that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
