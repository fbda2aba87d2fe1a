"""A comparison as markdown with charts in files, and its comparison.json in a form to be kept in a repository."""

from __future__ import annotations

import json
from typing import Any

from lavis_evlgen.reports.charts import standalone
from lavis_evlgen.reports.comparison.file import Comparison
from lavis_evlgen.reports.comparison.report import figures
from lavis_evlgen.reports.comparison.sections import Section, sections, summary
from lavis_evlgen.reports.comparison.tables import Table

DIGITS = 5  # significant ones of a kept number
LINE = 160  # characters up to which a JSON value stays on one line
RUN_BY = "<!-- run by: tests/comparison/test_compare_command.py -->"  # for the test that runs what pages show


def comparison_text(comparison: Comparison, name: str, folder: str) -> tuple[str, dict[str, str]]:
    """Markdown of a comparison, and its charts.

    Args:
        name: what the files of the charts begin with.
        folder: where they are, as seen from the markdown file.

    Returns:
        The text, which ends with a line break, and the SVG files by name.
    """
    found = figures(comparison)
    shown = sections(comparison, found, images=False)
    charts = {f"{name}_{chart.key}.svg": standalone(chart.svg) for section in shown for chart in section.charts}
    parts = [_escaped(summary(comparison, found)), *(_section(section, name, folder) for section in shown)]
    return "\n\n".join(parts) + "\n", charts


def compact(document: dict[str, Any]) -> str:
    """JSON of a comparison with numbers of five significant digits, and short objects on one line each."""
    return _dumped(_rounded(document), "") + "\n"


def _section(section: Section, name: str, folder: str) -> str:
    parts = [f"### {_escaped(section.title)}", _escaped(section.text)]
    parts.append("\n".join(f"- {_escaped(point)}" for point in section.points))
    parts += [_table(table) for table in section.tables]
    parts += [f"![{_escaped(chart.text)}]({folder}/{name}_{chart.key}.svg)" for chart in section.charts]
    parts.append("\n".join(f"- {_escaped(key)}: {_escaped(value)}" for key, value in section.facts.items()))
    parts.append(f"{RUN_BY}\n```sh\n{section.code}\n```" if section.code else "")
    return "\n\n".join(part for part in parts if part)


def _table(table: Table) -> str:
    rows = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows)


def _escaped(text: str) -> str:
    """Text that markdown takes as it is, on one line."""
    for sign in "\\`*[]<|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def _dumped(value: Any, indent: str) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + len(indent) <= LINE or not isinstance(value, dict | list):
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {_dumped(each, inner)}" for key, each in value.items()]
    else:
        lines = [inner + _dumped(each, inner) for each in value]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return f"{opened}\n" + ",\n".join(lines) + f"\n{indent}{closed}"
