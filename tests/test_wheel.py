"""Source archive and wheel carry what they must and nothing else, and the wheel works away from the repository."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import lavis_evlgen

ROOT = Path(__file__).parent.parent
SOURCES = ("lavis_evlgen", "configs", "projects", "tests", "docs", "lavis", "benchmarks", "examples")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of an sdist made of a copy of the repository, and of the wheel made of that sdist."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "source"  # building leaves files beside its sources
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    (copy / "outputs").mkdir()
    (copy / "outputs" / "model.pth").write_text("a run's")
    build = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check"]
    run = subprocess.run(
        [*build, "--outdir", str(folder), str(copy)], capture_output=True, text=True
    )  # sdist, then wheel
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def in_wheel(built) -> set[str]:
    (wheel,) = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def in_sdist(built) -> set[str]:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        return {member.name.split("/", 1)[1] for member in tar if member.isfile()}


def files(built: Path, *folders: str, pattern: str = "*") -> set[str]:
    """Files below folders of what was built from, but for what Python leaves there."""
    root = built / "source"
    found = (path for folder in folders for path in (root / folder).rglob(pattern) if path.is_file())
    return {str(path.relative_to(root)) for path in found if "__pycache__" not in path.parts}


def test_every_package_is_listed(built):
    setup = configparser.ConfigParser()
    setup.read(built / "source" / "setup.cfg")
    listed = setup["options"]["packages"].split()
    with_init, with_code = (
        {str(Path(path).parent).replace("/", ".") for path in files(built, "lavis_evlgen", pattern=pattern)}
        for pattern in ("__init__.py", "*.py")
    )
    assert set(listed) == {*with_init, "lavis_evlgen.configs", "lavis_evlgen.projects"} and listed == sorted(listed)
    assert with_code == with_init


def test_wheel_holds_code_yaml_and_assets_and_nothing_else(built, in_wheel):
    yamls = {f"lavis_evlgen/{path}" for path in files(built, "configs", "projects", pattern="*.yaml")}
    assert len(yamls) > 90
    metadata = {name for name in in_wheel if ".dist-info/" in name}
    assert in_wheel - metadata == files(built, "lavis_evlgen") | yamls
    assert {Path(name).name for name in metadata if "/licenses/" in name} == {"LICENSE", "THIRD_PARTY.md"}


def test_sdist_holds_what_the_wheel_is_built_from(built, in_sdist):
    expected = files(built, "lavis_evlgen") | files(built, "configs", "projects", pattern="*.yaml")
    expected |= {"setup.cfg", "pyproject.toml", "MANIFEST.in", "requirements.lock", "LICENSE", "THIRD_PARTY.md"}
    expected |= {"README.md", "CHANGELOG.md", "CITATION.cff", "PKG-INFO"}
    assert {name for name in in_sdist if not name.startswith("lavis_evlgen.egg-info/")} == expected


def test_metadata(built, in_wheel):
    (wheel,) = built.glob("*.whl")
    (name,) = (name for name in in_wheel if name.endswith("/METADATA"))
    lines = zipfile.ZipFile(wheel).read(name).decode().split("\n\n", 1)[0].splitlines()
    assert {f"Version: {lavis_evlgen.__version__}", "Author: The lavis_evlgen authors"} <= set(lines)
    assert {"Requires-Python: >=3.10", "Description-Content-Type: text/markdown"} <= set(lines)
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert {"video", "demo", "metrics", "page", "docs", "dev"} <= extras
    assert "License: BSD-3-Clause" in lines or "License-Expression: BSD-3-Clause" in lines


INSTALLED = """
import json
import lavis_evlgen
from lavis.common.registry import registry
from omegaconf import OmegaConf
from lavis_evlgen.shipped_projects import copy_project
model = OmegaConf.load(registry.get_model_class("evlgen_opt").default_config_path("pretrain_opt2.7b")).model
data = OmegaConf.load(registry.get_builder_class("image_caption").default_config_path()).datasets
print(json.dumps([lavis_evlgen.__file__, model.tome_r, list(data), str(copy_project("demo/train"))]))
"""


def test_wheel_installed_elsewhere_finds_its_files(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)

    def run(*argv: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run([sys.executable, *argv], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = json.loads(run("-c", INSTALLED).splitlines()[-1])
    assert found == [str(site / "lavis_evlgen" / "__init__.py"), 19, ["image_caption"], "projects/demo/train.yaml"]
    copied = (tmp_path / "projects/demo/train.yaml").read_text().splitlines()
    assert copied[0] == "# python -m torch.distributed.run -m lavis_evlgen.train --cfg-path projects/demo/train.yaml"
    assert copied[1:] == (ROOT / "projects/demo/train.yaml").read_text().splitlines()[1:]
    assert run(str(site / "bin" / "evlgen"), "--version") == f"evlgen {lavis_evlgen.__version__}\n"
    assert "new-project" in run(str(site / "bin" / "evlgen"), "--help")
