"""``python -m lavis_evlgen.reports.results_text``: the generated parts of docs/results.md.

What stands between ``<!-- begin: comparison NAME -->`` and ``<!-- end: comparison NAME -->`` is made from
docs/results/NAME.json, with charts as docs/results/NAME_*.svg; the rest of the page is left as it is. ``--add OUT``
first puts the comparison.json of an output folder there; ``--check`` writes nothing and fails where something differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

from lavis_evlgen.errors import DataError, EvlgenError
from lavis_evlgen.reports.comparison.charts import KEYS
from lavis_evlgen.reports.comparison.file import COMPARISON_FILE, read_comparison
from lavis_evlgen.reports.comparison.text import compact, comparison_text

BEGIN, END = "<!-- begin: comparison {} -->", "<!-- end: comparison {} -->"
_MARKER = re.compile(r"^<!-- (begin|end): comparison (\S+) -->[ \t]*$", re.MULTILINE)


def results_files(page: Path, folder: Path) -> dict[Path, str | None]:
    """What the page and the charts in the folder must be: text by path, None for a chart that is no longer made.

    Raises:
        DataError: markers do not pair up, or a comparison has no markers or markers no comparison.
    """
    text = _read(page)
    names = _marked(page, text)
    kept = sorted(path.stem for path in folder.glob("*.json"))
    for name in kept:
        if name not in names:
            raise DataError(
                f"{folder / name}.json has no place in {page}: put these two lines where it belongs\n"
                f"{BEGIN.format(name)}\n{END.format(name)}"
            )
    files: dict[Path, str | None] = {
        path: None for path in sorted(folder.glob("*.svg")) if path.stem.endswith(tuple(f"_{key}" for key in KEYS))
    }
    for name in names:
        if name not in kept:
            raise DataError(f"{page} has a place for the comparison {name}, but {folder / name}.json is missing")
        comparison = read_comparison(folder / f"{name}.json")
        body, charts = comparison_text(comparison, name, Path(os.path.relpath(folder, page.parent)).as_posix())
        files |= {folder / file: svg for file, svg in charts.items()}
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = text.split(begin, 1)
        text = f"{before}{begin}\n\n{body}\n{end}{rest.split(end, 1)[1]}"
    files[page] = text
    return files


def out_of_step(files: dict[Path, str | None]) -> list[Path]:
    """Which of the files are not as they must be."""
    return [path for path, text in files.items() if (path.read_text("utf-8") if path.is_file() else None) != text]


def write_results(page: Path, folder: Path) -> list[Path]:
    """Write the generated parts and charts; returns what changed."""
    files = results_files(page, folder)
    changed = out_of_step(files)
    for path in changed:
        text = files[path]
        if text is None:
            path.unlink()
        else:
            path.write_text(text, "utf-8")
    return changed


def add_comparison(source: Path, folder: Path) -> Path:
    """Keep an output folder's comparison.json as NAME.json, by the name that it gives itself.

    Raises:
        DataError: it is missing or wrong, or its name cannot be that of a file.
    """
    comparison = read_comparison(source)
    if not re.fullmatch(r"\w[\w.+-]*", comparison.name):
        raise DataError(f"{source}: its name {comparison.name!r} must be made of letters, digits and . _ + -")
    source = source / COMPARISON_FILE if source.is_dir() else source
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{comparison.name}.json"
    target.write_text(compact(json.loads(source.read_text("utf-8"))), "utf-8")
    return target


def main(argv: list[str] | None = None) -> int:
    """0 when all is in step, 1 when ``--check`` found something that is not, 2 for errors a user can mend."""
    parser = argparse.ArgumentParser(prog="results_text", description="Write the generated parts of docs/results.md.")
    parser.add_argument(
        "--page", type=Path, default=Path("docs/results.md"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="of the kept comparisons (default: results beside the page)"
    )
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="OUT", help="output folders to keep first")
    parser.add_argument("--check", action="store_true", help="write nothing, say what is out of step")
    args = parser.parse_args(argv)
    folder = args.folder or args.page.parent / "results"
    try:
        for source in args.add:
            print(f"kept: {add_comparison(source, folder)}")
        changed = out_of_step(results_files(args.page, folder)) if args.check else write_results(args.page, folder)
    except EvlgenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path in changed:
        print(f"{'out of step' if args.check else 'written'}: {path}")
    if not changed:
        print(f"{args.page} is in step with {folder}")
    return 1 if args.check and changed else 0


def _read(page: Path) -> str:
    try:
        return page.read_text("utf-8")
    except OSError as error:
        raise DataError(f"{page} cannot be read ({error.strerror}); name the page with --page") from error


def _marked(page: Path, text: str) -> list[str]:
    """Names of the marked places in their order; every begin is followed by its own end, and comes once."""
    names: list[str] = []
    marks = [found.groups() for found in _MARKER.finditer(text)]
    for begin, end in zip(marks[::2], [*marks[1::2], ("", "")], strict=False):
        name = begin[1]
        if begin[0] != "begin" or end != ("end", name):
            raise DataError(f"{page}: the markers of the comparison {name} are not a begin followed by its end")
        if name in names:
            raise DataError(f"{page} has two places for the comparison {name}")
        names.append(name)
    return names


if __name__ == "__main__":
    sys.exit(main())
