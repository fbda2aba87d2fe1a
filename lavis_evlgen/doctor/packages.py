"""Python and the packages, against what was tested."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Result
from lavis_evlgen.doctor.tested_versions import PACKAGES, PYTHON_NEWEST, PYTHON_OLDEST, PYTHON_TESTED, Tested


def check_python() -> Iterator[Result]:
    text = f"{platform.python_version()} on {platform.platform(terse=True)} ({sys.executable})"
    oldest, tested, newest = (".".join(map(str, version)) for version in (PYTHON_OLDEST, PYTHON_TESTED, PYTHON_NEWEST))
    if sys.version_info[:2] < PYTHON_OLDEST:
        yield PROBLEM, f"{text}: {oldest} is the oldest that the code is written for", f"install Python {tested}"
    elif sys.version_info[:2] > PYTHON_NEWEST:
        yield NOTE, f"{text} was not tested; {oldest} to {newest} was"
    else:
        yield OK, text


def check_packages() -> Iterator[Result]:
    """One line for all that is as tested, one for each other."""
    found = {name: version for name in PACKAGES if (version := installed(name))}
    judged = [each for name in PACKAGES if (each := judge(name, PACKAGES[name], found))]
    yield from (each for each in judged if each[0] != OK)
    named = [f"{name} {found[name]}" for name in ("salesforce-lavis", "torch", "transformers") if name in found]
    as_tested = sum(each[0] == OK for each in judged)
    yield OK, f"{as_tested} packages are as tested; there are {', '.join(named) or 'neither LAVIS nor torch'}"


def judge(name: str, tested: Tested, found: dict[str, str]) -> Result | None:
    """What is to be said of a package, given the versions that are there; None where another one does its work."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    way_out = f"pip install --no-deps {name}=={tested.version}"
    if name not in found:
        if any(other in found for other in tested.instead):
            return None
        if tested.serves:
            return NOTE, f"{name} is not installed; it is for {tested.serves} ({way_out})"
        return PROBLEM, f"{name} is not installed", way_out
    version = found[name]
    for specifier, how in tested.breaks:
        if SpecifierSet(specifier).contains(version, prereleases=True):
            return PROBLEM, f"{name} {version}: {how}", way_out
    ends = [Version(end or tested.version) for end in (tested.oldest, tested.newest)]
    oldest, newest = min(ends), max(ends)
    if oldest <= Version(Version(version).public) <= newest:  # public: without a build's +cu130
        return OK, f"{name} {version}"
    tests = f"{oldest}" if oldest == newest else f"{oldest} to {newest}"
    return NOTE, f"{name} {version} was not tested; {tests} was"


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
