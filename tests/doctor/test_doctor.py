"""The command itself, in environments that are broken by packages put before the installed ones."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lavis_evlgen.doctor import parts
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Finding, examine

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-m", "lavis_evlgen.cli", "doctor"]


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Puts packages of one file before the installed ones, for processes too."""

    def put(**sources):
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")

    return put


def test_it_says_what_is_wrong_where_nothing_can_be_imported(broken, tmp_path, monkeypatch):
    missing = "raise ImportError('no {0} today')".format
    broken(
        **{name: missing(name) for name in ("torch", "lavis", "transformers", "PIL", "av", "decord", "cv2", "psutil")}
    )
    monkeypatch.setenv("RANK", "1")  # as started by torchrun: it is nobody's second process
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = subprocess.run([*COMMAND, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    said = {}
    for each in report["findings"]:
        said.setdefault(each["check"], []).append((each["level"], each["text"]))
    for check, package in {
        "memory": "psutil",
        "gloo": "torch",
        "GPU": "torch",
        "pictures": "PIL",
        "OpenCV": "cv2",
    }.items():
        assert said[check] == [(PROBLEM, f"could not be checked: ImportError: no {package} today")]
    assert said["PyAV"] == [(NOTE, "ImportError: no av today: clips are read by decord (pip install av)")]
    assert said["LAVIS"] == [(PROBLEM, "LAVIS with lavis_evlgen cannot be imported (ImportError: no lavis today)")]
    assert said["training"] == said["repairs"] == [(NOTE, "not checked: see LAVIS")]
    assert said["Python"][0][0] in (OK, NOTE) and said["disk"][0][0] in (OK, NOTE)
    levels = [each["level"] for each in report["findings"]]
    assert report["problems"] == levels.count(PROBLEM) >= 9 and report["notes"] == levels.count(NOTE)
    assert all(each["way_out"] for each in report["findings"] if each["level"] == PROBLEM)


def test_a_crash_takes_only_what_comes_behind_it(broken):
    broken(torch="", torchvision="", cv2="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    found = {each.check: each for each in parts.run_part("decoders", None, True)}
    assert list(found) == ["pictures", "torchvision", "OpenCV"] and found["pictures"].level == OK
    assert found["OpenCV"].level == PROBLEM and "died (signal SIGSEGV: " in found["OpenCV"].text


def test_a_hang_ends_in_time(broken, monkeypatch, tmp_path):
    hangs = tmp_path / "hangs"
    broken(torch=f"import pathlib, time; pathlib.Path({str(hangs)!r}).touch(); time.sleep(600)")

    class Patient(subprocess.Popen):
        """Counts from where the process hangs: how long it takes until then is the machine's."""

        def communicate(self, input=None, timeout=None):
            while timeout is not None and self.poll() is None and not hangs.exists():
                time.sleep(0.05)
            return super().communicate(input, timeout)

    monkeypatch.setattr(parts.subprocess, "Popen", Patient)
    monkeypatch.setitem(parts.LIMITS, "torch", 0.5)
    (found,) = parts.run_part("torch", None, True)
    assert (found.check, found.level) == ("gloo", PROBLEM)
    assert found.text == "the process of this check took more than 0.5 s; those after it were not made"


def test_a_check_that_fails_is_a_finding():
    def check():
        yield OK, "first"
        raise KeyError("surprise")

    first, second = examine("x", check)
    assert first == Finding("x", OK, "first")
    assert second.level == PROBLEM and second.text.startswith("the check failed: KeyError: 'surprise' (")
    assert second.lines()[1].strip().startswith("-> make a fresh environment")


@pytest.mark.slow
def test_this_environment_is_fine(tmp_path):
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "ok       training     a tiny model trained and resumed to the last bit in" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("0 problems, ")
