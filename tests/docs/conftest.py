"""The site, built once."""

import logging
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from pages import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> tuple[Path, list[str]]:
    """Its folder, and what the build warned of."""
    folder = tmp_path_factory.mktemp("site")
    warnings = Warnings()
    for name in ("mkdocs", "mkdocs_autorefs"):
        logging.getLogger(name).addHandler(warnings)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=False))
    return folder, warnings.texts


class Warnings(logging.Handler):
    """Keeps the messages of warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
