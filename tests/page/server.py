"""A page in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

START = 300  # seconds; most of it is the import of LAVIS, on a busy machine


class Server:
    """``evlgen serve`` with some options, at a free port. What it prints goes to a file."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-u", "-m", "lavis_evlgen.cli", "serve", "--port", "0", "--device", "cpu", *options]
        self._log = folder / "server.log"
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        self.address = self._wait()

    def said(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """Ctrl+C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(START)

    def _wait(self) -> str:
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            if found := re.search(r"open (http://\S+) in a browser", self.said()):
                return found[1]
            time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"the server did not start: {self.said()}")
