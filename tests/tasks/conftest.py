"""Where tasks write."""

from pathlib import Path

import pytest
from lavis.common.registry import registry


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder and in it ``result``, registered as a LAVIS runner does."""
    (tmp_path / "out" / "result").mkdir(parents=True)
    monkeypatch.setitem(registry.mapping["paths"], "output_dir", str(tmp_path / "out"))
    monkeypatch.setitem(registry.mapping["paths"], "result_dir", str(tmp_path / "out" / "result"))
    return tmp_path / "out"
