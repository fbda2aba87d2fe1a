"""Where the packaged files lie, in an installed wheel and in an editable checkout alike."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_path(*parts: str) -> str:
    """Absolute path of a packaged yaml, for example ``config_path("models", "evlgen_demo.yaml")``.

    The path is absolute because LAVIS joins it to its own folder otherwise.
    """
    return str(packaged_folder("configs").joinpath(*parts))


def packaged_folder(name: str) -> Path:
    """The folder ``configs`` or ``projects``: a wheel holds it in the package, a checkout beside it."""
    for root in (_PACKAGE / name, _PACKAGE.parent / name):
        if root.is_dir():
            return root
    raise FileNotFoundError(f"the folder {name} of lavis_evlgen is missing beside {_PACKAGE}; reinstall the package")
