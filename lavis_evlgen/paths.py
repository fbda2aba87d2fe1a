"""Where the packaged yaml files lie, in an installed wheel and in an editable checkout alike."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_path(*parts: str) -> str:
    """Absolute path of a packaged yaml, for example ``config_path("models", "evlgen_demo.yaml")``.

    A wheel holds the files as ``lavis_evlgen/configs``; a checkout has them as ``configs`` beside the package.
    The path is absolute because LAVIS joins it to its own folder otherwise.
    """
    for root in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if root.is_dir():
            return str(root.joinpath(*parts))
    raise FileNotFoundError(f"the yaml files of lavis_evlgen are missing beside {_PACKAGE}; reinstall the package")
