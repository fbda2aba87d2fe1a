"""Chromium without a window, where this machine has it."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; Debian and Ubuntu: apt-get install chromium"
)


def dumped(url: str, folder: Path, milliseconds: int) -> tuple[str, list[str]]:
    """A page's content after that much time of its scripts, and the messages on its console."""
    options = [f"--user-data-dir={folder}/profile", "--enable-logging=stderr", f"--virtual-time-budget={milliseconds}"]
    command = [str(CHROMIUM), *OPTIONS, *options, "--dump-dom", url]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return shown.stdout, [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
