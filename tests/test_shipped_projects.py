"""The shipped configurations by name, and copies of them."""

from pathlib import Path

import pytest
import yaml

from lavis_evlgen import cli
from lavis_evlgen.errors import ConfigError
from lavis_evlgen.shipped_projects import copy_project, project_names

ROOT = Path(__file__).parent.parent


def test_every_configuration_has_a_name_and_a_sentence():
    known = project_names()
    assert {f"projects/{name}.yaml" for name in known} == {
        str(path.relative_to(ROOT)) for path in ROOT.glob("projects/**/*.yaml")
    }
    assert known["demo/video"] == "The video demo: episodes of MiniGrid and their reverses"
    assert all(len(text) > 20 for text in known.values())


def test_a_copy_differs_in_its_command_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in project_names():
        copied = copy_project(name)
        assert copied == Path("projects", f"{name}.yaml")
        (command, *rest), original = copied.read_text().splitlines(), (ROOT / copied).read_text().splitlines()
        assert rest == original[1:] and command.endswith(f"--cfg-path {copied}")
        assert " -m lavis_evlgen." in command and ".py" not in command
        assert yaml.safe_load(copied.read_text()) == yaml.safe_load((ROOT / copied).read_text())


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["projects"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(project_names()) and max(map(len, lines)) <= 120
    assert cli.main(["projects", "projects/evlgen/vqav2_opt.yaml", "--out", "mine/vqa.yaml"]) == 0
    assert capsys.readouterr().out == "mine/vqa.yaml\n"
    first = Path("mine/vqa.yaml").read_text().splitlines()[0]
    assert first.endswith("--nproc_per_node=8 -m lavis_evlgen.train --cfg-path mine/vqa.yaml")
    Path("mine/vqa.yaml").write_text("changed")
    assert cli.main(["projects", "evlgen/vqav2_opt", "--out", "mine/vqa.yaml"]) == 2
    assert "mine/vqa.yaml: this file exists" in capsys.readouterr().err
    assert Path("mine/vqa.yaml").read_text() == "changed"
    assert cli.main(["projects", "evlgen/vqav2_opt", "--out", "mine/vqa.yaml", "--overwrite"]) == 0
    assert Path("mine/vqa.yaml").read_text().startswith(first)


def test_what_cannot_be_copied_is_said(tmp_path):
    with pytest.raises(ConfigError, match="there is no project 'evlgen/vqa_opt'; did you mean 'evlgen/vqav2_opt'"):
        copy_project("evlgen/vqa_opt")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/x\.yaml: cannot be written \(File exists\)"):
        copy_project("demo/train", tmp_path / "file" / "x.yaml")
