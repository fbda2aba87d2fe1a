"""Memory, disk and Java, with real folders and programs."""

import os
import shutil
from pathlib import Path

import pytest

from lavis_evlgen.doctor import machine
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM


def test_disk(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    (found,) = machine.check_disk(tmp_path / "to" / "be" / "made")
    assert found[0] in (OK, NOTE) and found[1].startswith(f"{free / 2**30:.0f}"[:-1])
    assert not (tmp_path / "to").exists()
    ((level, said, way_out),) = machine.check_disk(tmp_path, needed=free + 2**40)
    assert level == PROBLEM and f"checkpoints need {(free + 2**40) / 2**30:.0f}"[:-2] in said
    assert "run.keep_checkpoints" in way_out


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
    (tmp_path / "max").write_text(f"{2**30}\n")
    assert machine.memory_limit() == 2**30
    level, said = next(iter(machine.check_memory()))
    assert level == NOTE and said.startswith("1.0 GiB available of ") and "1.0 allowed here (control group)" in said
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
