"""Where token maps go: one picture, one page, or a folder with all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.reports.tokens.figures import mean_figures
from lavis_evlgen.reports.tokens.page import token_page
from lavis_evlgen.reports.tokens.sheet import sheet
from lavis_evlgen.reports.tokens.states import Shown

PAGE = "token_maps.html"
FIGURES = "token_maps.json"


def check_out(out: Path, count: int) -> None:
    """Raise ConfigError where the maps of so many files cannot be written, before a model is loaded."""
    if _is_page(out) or _is_folder(out):
        return
    known = Image.registered_extensions().get(out.suffix.lower())
    if known not in Image.SAVE:
        raise _unwritable(out, f"{out.suffix} is no format of pictures")
    if count > 1:
        raise ConfigError(f"--out {out}: one picture for {count} files; name a page such as maps.html, or a folder")


def write(
    out: Path, shown: Sequence[Shown], facts: Mapping[str, Any], every_layer: bool = False, tokens: bool = False
) -> list[Path]:
    """Write the maps and return the files.

    Args:
        out: a page (.html), a picture (.png, .jpg, …), or a folder: a picture for each file, the page of all, and their
            figures (`token_maps.json`).
        shown: with their maps; one where `out` is a picture.
        facts, every_layer, tokens: see `token_page` and `sheet`.

    Raises:
        ConfigError: `out` cannot be written.
    """
    try:
        (out if _is_folder(out) else out.parent).mkdir(parents=True, exist_ok=True)
        if _is_page(out):
            out.write_text(token_page(shown, facts), encoding="utf-8")
            return [out]
        if not _is_folder(out):
            sheet(shown[0], every_layer, tokens).save(out)
            return [out]
        files = [out / f"{name}.png" for name in _names(shown)]
        for file, each in zip(files, shown, strict=True):
            sheet(each, every_layer, tokens).save(file)
        (out / PAGE).write_text(token_page(shown, facts), encoding="utf-8")
        found = [each.figures() for each in shown]
        figures = {**facts, "mean": mean_figures(found), "files": found}
        (out / FIGURES).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return [*files, out / PAGE, out / FIGURES]
    except OSError as error:
        raise _unwritable(out, error) from error


def _is_page(out: Path) -> bool:
    return out.suffix.lower() in (".html", ".htm") and not out.is_dir()


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _unwritable(out: Path, reason: object) -> ConfigError:
    return ConfigError(f"--out {out}: cannot be written ({reason}); name a file such as map.png, a page or a folder")


def _names(shown: Sequence[Shown]) -> list[str]:
    """The files' names without suffix, those that come again with a number."""
    names: list[str] = []
    for each in shown:
        stem = Path(each.path).stem
        free = (stem if number == 1 else f"{stem}_{number}" for number in range(1, len(shown) + 1))
        names.append(next(name for name in free if name not in names))
    return names
