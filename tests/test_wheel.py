"""A wheel carries the yaml files and works away from the repository."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_installed_elsewhere_finds_its_configurations(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    sources = tmp_path / "source"  # a copy: building leaves files beside its sources
    for folder in ("lavis_evlgen", "configs"):
        shutil.copytree(ROOT / folder, sources / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "dist"), str(sources)]
    subprocess.run([*pip, *build], check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import lavis_evlgen\n"
        "from lavis.common.registry import registry\n"
        "from omegaconf import OmegaConf\n"
        "print(lavis_evlgen.__file__)\n"
        "print(OmegaConf.load(registry.get_model_class('evlgen_opt').default_config_path('pretrain_opt2.7b')).model.tome_r)\n"
        "print(sorted(OmegaConf.load(registry.get_builder_class('image_caption').default_config_path()).datasets))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(site)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [str(site / "lavis_evlgen" / "__init__.py"), "19", "['image_caption']"]
