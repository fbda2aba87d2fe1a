"""The other ends of the supported range, each laid over the tested environment (needs a package registry)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECKED = [
    "tests/models",
    "tests/token_reduction",
    "tests/test_lavis_repairs.py",
    "tests/test_loading.py",
    "tests/test_stock_albef_blip.py",
    "tests/test_stock_blip2.py",
    "tests/metrics",
]


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["oldest", "newest"])
def test_other_end_of_the_range(tmp_path, lock):
    """Versions of docs/compatibility-LOCK.lock before the tested ones on the path; parity and model tests there."""
    requirements = ROOT / "docs" / f"compatibility-{lock}.lock"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), "-r", str(requirements)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    versions = dict(
        line.split("==") for line in requirements.read_text().split() if "==" in line and not line.startswith("#")
    )
    seen = "import importlib.metadata as m; print(m.version('transformers'), m.version('numpy'))"
    found = subprocess.run([sys.executable, "-c", seen], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split()[0] == versions["transformers"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *CHECKED]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:]
