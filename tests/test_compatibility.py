"""The other ends of the supported range: versions of packages, versions of Python (needs a package registry)."""

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lavis_evlgen.doctor.tested_versions import PACKAGES, PYTHON_OLDEST

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
PIP = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
CHECKED = [
    "tests/models",
    "tests/token_reduction",
    "tests/test_lavis_repairs.py",
    "tests/test_loading.py",
    "tests/test_stock_albef_blip.py",
    "tests/test_stock_blip2.py",
    "tests/metrics",
]


SIDE_PARTS = ("# the page", "# the documentation site", "# the notebooks")  # of the lock; CHECKED does without


def pins(path: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Version by package, leaving out the parts of the file whose first lines start so."""
    parts = [part for part in path.read_text().split("\n\n") if not part.startswith(without or "?")]
    lines = [line for part in parts for line in part.splitlines() if "==" in line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def run_checked(python: str | Path, environment: dict[str, str]) -> None:
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *CHECKED]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["oldest", "newest"])
def test_other_end_of_the_range(tmp_path, lock):
    """Versions of docs/compatibility-LOCK.lock before the tested ones on the path; parity and model tests there."""
    requirements = ROOT / "docs" / f"compatibility-{lock}.lock"
    subprocess.run([sys.executable, *PIP, "--target", str(tmp_path / "site"), "-r", str(requirements)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    seen = "import importlib.metadata as m; print(m.version('transformers'), m.version('numpy'))"
    found = subprocess.run([sys.executable, "-c", seen], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == pins(requirements)["transformers"]
    run_checked(sys.executable, environment)


def interpreter(version: str) -> str:
    """A Python of this version, from the path or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))):
        if found and subprocess.run([found, "-m", "venv", "--help"], capture_output=True).returncode == 0:
            return found
    pytest.skip(f"there is no Python {version} with venv, neither on the path nor in pyenv")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.12"])
def test_other_versions_of_python(tmp_path, version):
    """The tested set in a fresh environment of another Python, but for what no longer supports it."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([interpreter(version), "-m", "venv", str(tmp_path / "env")], check=True)
    others = ROOT / "docs" / f"compatibility-python{version}.lock"
    wanted = {**pins(LOCK, without=SIDE_PARTS), **(pins(others) if others.exists() else {})}
    site = tmp_path / "env" / "lib" / f"python{version}" / "site-packages"
    shared = Path(sysconfig.get_path("purelib")) / "nvidia"
    if shared.exists():  # gigabytes of libraries that are the same for every Python
        (site / "nvidia").symlink_to(shared)
        wanted = {name: pin for name, pin in wanted.items() if not name.startswith("nvidia-")}
    (tmp_path / "lock").write_text("".join(f"{name}=={pin}\n" for name, pin in wanted.items()))
    subprocess.run([str(python), *PIP, "-r", str(tmp_path / "lock")], check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    seen = "import sys, lavis_evlgen; print(*sys.version_info[:2], sep='.')"
    found = subprocess.run([python, "-c", seen], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == version, found.stderr
    run_checked(python, environment)


@pytest.mark.slow
def test_pip_finds_versions_for_the_requirements(tmp_path):
    """What a user without the lock gets: something that fits together, with transformers in the tested range."""
    python, report = tmp_path / "env" / "bin" / "python", tmp_path / "report.json"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    subprocess.run([python, *PIP, "--upgrade", "pip"], check=True)  # an old one downloads all that it looks at
    resolve = ["-m", "pip", "install", "--quiet", "--dry-run", "--report", str(report), *requirements()[""]]
    subprocess.run([python, *resolve], check=True)
    chosen = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    found = {normal(each["name"]): each["version"] for each in chosen}
    assert found["transformers"] == PACKAGES["transformers"].newest
    assert found["huggingface-hub"].startswith("0.") and found["timm"].startswith("1.")
    assert {"torch", "torchvision", "spacy", "pycocoevalcap"} <= set(found) and "salesforce-lavis" not in found


def test_the_code_is_of_the_oldest_python():
    """Its syntax; names that came later are ruff's to find (target-version in pyproject.toml)."""
    paths = [path for folder in ("lavis_evlgen", "lavis", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 200
    for path in paths:
        ast.parse(path.read_text(), str(path), feature_version=PYTHON_OLDEST)
    with pytest.raises(SyntaxError):
        ast.parse("try: pass\nexcept* ValueError: pass", feature_version=PYTHON_OLDEST)
    oldest = "py" + "".join(map(str, PYTHON_OLDEST))
    assert f'target-version = "{oldest}"' in (ROOT / "pyproject.toml").read_text()


def requirements() -> dict[str, list[str]]:
    """The requirements of setup.cfg by extra; those of every installation under ``""``."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {extra: [line for line in lines.splitlines() if line] for extra, lines in found.items()}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_requirements_admit_what_was_tested_and_nothing_that_breaks():
    from packaging.requirements import Requirement

    required = {normal(each.name): each for each in map(Requirement, requirements()[""])}
    needed = {name for name, tested in PACKAGES.items() if not tested.serves and name != "salesforce-lavis"}
    assert set(map(normal, needed)) <= set(required)
    assert "salesforce-lavis" not in required, "its own pins contradict ours: pip would install nothing"
    for name, tested in PACKAGES.items():
        if requirement := required.get(normal(name)):
            for version in filter(None, (tested.oldest, tested.version, tested.newest)):
                assert requirement.specifier.contains(version), name
            for broken, _ in tested.breaks:
                operator, bound = re.fullmatch(r"([<>=!]+)(.+)", broken).groups()
                outside = bound if operator == ">=" else "0.1"
                assert not requirement.specifier.contains(outside), name


def test_extras_are_in_the_lock():
    from packaging.requirements import Requirement

    locked = set(map(normal, pins(LOCK)))
    assert all(part in LOCK.read_text() for part in SIDE_PARTS)
    for extra, lines in requirements().items():
        missing = {normal(Requirement(line).name) for line in lines} - locked
        assert missing <= {"eva-decord"}, f"{extra}: {missing}"  # eva-decord: where decord has no wheel
