"""The table of tested versions, and what is said of versions in it and beside it."""

import re
import sys
from pathlib import Path

import pytest

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM
from lavis_evlgen.doctor.packages import check_packages, check_python, judge
from lavis_evlgen.doctor.tested_versions import PACKAGES, PYTHON_NEWEST, PYTHON_OLDEST, PYTHON_TESTED, Tested

ROOT = Path(__file__).parent.parent.parent


def locked(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.strip().split("==") for line in lines if "==" in line and not line.startswith("#"))


def test_the_table_agrees_with_the_lock_files():
    lock, oldest, newest = (
        locked(name)
        for name in ("requirements.lock", "docs/compatibility-oldest.lock", "docs/compatibility-newest.lock")
    )
    alternatives = {other for each in PACKAGES.values() for other in each.instead}
    for name, tested in PACKAGES.items():
        assert tested.version == lock.get(name, newest.get(name)), name
        ends = {oldest.get(name, tested.version), tested.version, newest.get(name, tested.version)}
        assert {tested.oldest or tested.version, tested.version, tested.newest or tested.version} == ends, name
        assert name in lock or name in alternatives, name
    assert {*oldest, *newest} <= set(PACKAGES)
    setup = (ROOT / "setup.cfg").read_text()
    assert f"python_requires = >={'.'.join(map(str, PYTHON_OLDEST))}" in setup and PYTHON_TESTED == (3, 11)
    stated = re.findall(r"Python :: 3\.(\d+)", setup)
    assert [(3, int(minor)) for minor in (stated[0], stated[-1])] == [PYTHON_OLDEST, PYTHON_NEWEST]


@pytest.mark.parametrize(
    ("version", "level", "said"),
    [
        ("4.51.3", OK, "transformers 4.51.3"),
        ("4.48.3", OK, "transformers 4.48.3"),
        ("4.55.4", OK, "transformers 4.55.4"),
        ("4.55.5", NOTE, "transformers 4.55.5 was not tested; 4.48.3 to 4.55.4 was"),
        ("4.48.2", NOTE, "transformers 4.48.2 was not tested; 4.48.3 to 4.55.4 was"),
        ("4.56.0", PROBLEM, "transformers 4.56.0: LAVIS imports what transformers no longer has"),
        ("4.56.0rc1", NOTE, "4.56.0rc1 was not tested"),
        ("4.47.1", PROBLEM, "transformers 4.47.1: SmolLM2 is read wrong"),
    ],
)
def test_versions_of_transformers(version, level, said):
    found = judge("transformers", PACKAGES["transformers"], {"transformers": version})
    assert found[0] == level and said in found[1]
    assert found[2:] == (("pip install --no-deps transformers==4.51.3",) if level == PROBLEM else ())


@pytest.mark.parametrize(
    ("version", "level", "said"),
    [
        ((3, 9), PROBLEM, "3.10 is the oldest that the code is written for"),
        ((3, 10), OK, ""),
        ((3, 12), OK, ""),
        ((3, 13), NOTE, " was not tested; 3.10 to 3.12 was"),
    ],
)
def test_versions_of_python_with_a_mocked_version(version, level, said, monkeypatch):
    monkeypatch.setattr(sys, "version_info", version)
    ((found, text, *_),) = check_python()
    assert found == level and text.endswith(said)


def test_a_build_is_no_other_version():
    assert judge("torch", Tested("2.14.1"), {"torch": "2.14.1+cu130"}) == (OK, "torch 2.14.1+cu130")
    assert judge("torch", Tested("2.14.1"), {"torch": "2.15.0"})[0] == NOTE


def test_what_is_missing():
    assert judge("numpy", PACKAGES["numpy"], {}) == (
        PROBLEM,
        "numpy is not installed",
        "pip install --no-deps numpy==1.26.4",
    )
    level, said = judge("nltk", PACKAGES["nltk"], {})
    assert level == NOTE and said.startswith(
        "nltk is not installed; it is for caption metrics without Java (pip install"
    )
    assert judge("decord", PACKAGES["decord"], {"eva-decord": "0.6.1"}) is None
    assert judge("decord", PACKAGES["decord"], {})[0] == PROBLEM


def test_this_environment():
    """Whatever the tests run in is one that the table knows."""
    found = list(check_packages())
    assert not [each for each in found if each[0] == PROBLEM]
    assert re.match(r"\d\d packages are as tested; there are salesforce-lavis 1\.0\.2, torch ", found[-1][1])
    assert [each[0] for each in check_python()] in ([OK], [NOTE])
