"""Memory, disk and Java, with real folders and programs."""

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lavis_evlgen.doctor import machine
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM


def test_disk(tmp_path):
    (found,) = machine.check_disk(tmp_path / "to" / "be" / "made")
    said = re.fullmatch(r"(\d+\.\d) GiB free at (.+?)(: little for checkpoints)?", found[1])
    assert said and said[2] == str(tmp_path / "to" / "be" / "made")
    assert (found[0] == NOTE) == bool(said[3]) and found[0] in (OK, NOTE)
    assert 0 <= float(said[1]) <= shutil.disk_usage(tmp_path).total / machine.GIB + 0.1
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("free", "needed", "level", "said"),
    [
        (29.6, 0, OK, "29.6 GiB free at {}"),
        (29.6, 29.5, OK, "29.6 GiB free at {}"),
        (29.6, 29.7, PROBLEM, "29.6 GiB free at {}; checkpoints need 29.7"),
        (5.0, 0, OK, "5.0 GiB free at {}"),
        (4.9, 0, NOTE, "4.9 GiB free at {}: little for checkpoints"),
    ],
)
def test_disks_of_other_sizes(tmp_path, monkeypatch, free, needed, level, said):
    usage = SimpleNamespace(total=100 * machine.GIB, free=int(free * machine.GIB))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: {tmp_path: usage}[path])
    (found,) = machine.check_disk(tmp_path / "new", needed=int(needed * machine.GIB))
    assert found[:2] == (level, said.format(tmp_path / "new"))
    assert len(found) == (3 if level == PROBLEM else 2)
    assert level != PROBLEM or "run.keep_checkpoints" in found[2]


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert machine.unwritable(tmp_path / "new") is None
    assert machine.unwritable(tmp_path / "file" / "in" / "it") == "Not a directory"
    (found,) = machine.check_disk(Path("/proc/run"))
    assert found[0] == PROBLEM and found[1].startswith("/proc/run cannot be written (")
    if os.getuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        assert machine.unwritable(tmp_path / "closed") == "Permission denied"


def test_memory_is_that_of_the_control_group_where_it_is_less(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (tmp_path / "none", tmp_path / "max"))
    assert machine.memory_limit() is None
    (tmp_path / "max").write_text("max\n")
    assert machine.memory_limit() is None
    (tmp_path / "max").write_text(f"{2**28}\n")
    assert machine.memory_limit() == 2**28
    memory = SimpleNamespace(available=8 * machine.GIB, total=16 * machine.GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    level, said = next(iter(machine.check_memory()))
    assert level == NOTE and said.startswith("0.2 GiB available of 16.0, 0.2 allowed here (control group): little for")
    (tmp_path / "max").write_text(f"{2**60}\n")
    assert machine.memory_limit() is None


@pytest.mark.parametrize(
    ("script", "level", "said"),
    [
        ("""echo 'openjdk version "1.8.0_392"' >&2""", OK, "Java 8 ("),
        ("""echo 'openjdk version "11.0.2" 2019-01-15' >&2""", OK, "Java 11 ("),
        ("""echo 'openjdk version "21" 2023-09-19' >&2""", NOTE, "Java 21 ("),
        ("""echo 'Unable to locate a Java Runtime.' >&2; exit 1""", PROBLEM, "(Unable to locate a Java Runtime.)"),
        ("exit 3", PROBLEM, "does not run (exit code 3)"),
    ],
)
def test_java(tmp_path, monkeypatch, script, level, said):
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = machine.check_java()
    assert found[0] == level and said in found[1]


def test_no_java(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = machine.check_java()
    assert found[0] == NOTE and found[1].startswith("no Java on the path")
    program = tmp_path / "java"
    program.write_bytes(b"\x7fELF no program")
    program.chmod(0o755)
    (found,) = machine.check_java()
    assert found[0] == PROBLEM and "Exec format error" in found[1]
