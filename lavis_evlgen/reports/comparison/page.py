"""The report of a comparison as one self-contained HTML page."""

from __future__ import annotations

from html import escape
from typing import Any

from lavis_evlgen.reports import page
from lavis_evlgen.reports.comparison import words
from lavis_evlgen.reports.comparison.file import Comparison
from lavis_evlgen.reports.comparison.sections import Section, sections, summary
from lavis_evlgen.reports.comparison.verdicts import pair

CARD_VERDICTS = {True: "holds", False: "does not hold", None: "not known yet"}


def comparison_page(comparison: Comparison, found: dict[str, Any]) -> str:
    """The page of a comparison with its figures, see :func:`lavis_evlgen.reports.comparison.figures`."""
    title = f"{comparison.name.replace('_', ' ')}: {len(comparison.arms)} arms side by side"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=soft>{escape(summary(comparison, found))}</p>",
        page.cards(_cards(comparison, found)),
    ]
    return page.page(title, [*parts, *(_section(section) for section in sections(comparison, found))])


def _cards(comparison: Comparison, found: dict[str, Any]) -> list[tuple[str, str]]:
    """The claims; without any, each arm's share of the reference's time."""
    if found["verdicts"]:
        return [_claim_card(comparison, found, each) for each in found["verdicts"]]
    return [
        (f"{100 * each['share']['mean']:.0f} %", f"{_to_quality(comparison, each)} ({words.reached(each)})")
        for each in found["to_quality"]
        if each["of"] == found["reference"] != each["arm"] and each["share"]
    ]


def _claim_card(comparison: Comparison, found: dict[str, Any], claim: dict[str, Any]) -> tuple[str, str]:
    verdict = CARD_VERDICTS[claim["holds"]]
    if claim["share_of_time"] is None:
        arm, of = comparison.title(claim["arm"]), comparison.title(claim["of"])
        return verdict, f"claimed: {arm} ends with a better {words.metric_name(claim['metric'])} than {of}"
    measured = pair(found, claim["arm"], claim["of"], claim["metric"])
    if measured is None or not measured["compared"]:
        value = words.UNKNOWN
    elif measured["reached"] < measured["compared"]:
        value = words.reached(measured) if measured["reached"] else "not reached"
    else:
        value = words.UNKNOWN if claim["share"] is None else f"{100 * claim['share']:.0f} %"
    claimed = f"claimed: at most {words.percent(claim['share_of_time'])}: {verdict}"
    return value, f"{_to_quality(comparison, claim)}; {claimed}"


def _to_quality(comparison: Comparison, each: dict[str, Any]) -> str:
    arm, of = comparison.title(each["arm"]), comparison.title(each["of"])
    return f"{arm} to the final {words.metric_name(each['metric'])} of {of}, share of that arm's training time"


def _section(section: Section) -> str:
    points = "".join(f"<li>{escape(point)}</li>" for point in section.points)
    charts = [f'<figure class="chart">{chart.svg}</figure>' for chart in section.charts]
    return page.section(
        section.title,
        section.text,
        points and f"<ul>{points}</ul>",
        *(page.table(table.head, table.rows) for table in section.tables),
        page.gallery(charts, "clips"),
        page.facts(section.facts) if section.facts else "",
        page.code(section.code) if section.code else "",
    )
