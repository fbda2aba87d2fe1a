"""The pieces of a report page: one self-contained HTML file, light and dark, wide and narrow."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

COLOURS = """
:root { color-scheme: light dark; --ground: #fafaf8; --card: #fff; --text: #1c1d20; --soft: #63666d; --line: #e3e3de;
  --accent: #2f6fed; --good: #0b7a4b; --bad: #c2370b; --curve-0: #2f6fed; --curve-1: #d9480f; --curve-2: #0b8a5f;
  --curve-3: #8b5cf6; --curve-4: #a16207; --curve-5: #c2257a; --curve-6: #0891b2; --curve-7: #4b5563; }
@media (prefers-color-scheme: dark) { :root { --ground: #141518; --card: #1d1f23; --text: #ececec; --soft: #a0a4ad;
  --line: #33363d; --accent: #7ba7ff; --good: #4fd39a; --bad: #ff8a5c;
  --curve-0: #7ba7ff; --curve-1: #ff9a66; --curve-2: #4fd39a; --curve-3: #b79cff;
  --curve-4: #e0b050; --curve-5: #ff7ab8; --curve-6: #5ccfe6; --curve-7: #b8bdc7; } }
"""
_STYLE = (
    COLOURS
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 32px 18px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 48px 0 6px; letter-spacing: -.01em; }
p { margin: 6px 0 14px; max-width: 70ch; }
.soft, figcaption, footer { color: var(--soft); }
.cards { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); margin: 24px 0; }
.card, figure, .table, pre { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { padding: 14px 16px; }
.card b { display: block; font-size: 1.55rem; line-height: 1.2; letter-spacing: -.02em; }
.card span { color: var(--soft); font-size: .85rem; line-height: 1.35; display: block; margin-top: 3px; }
.gallery { display: grid; gap: 14px; margin: 16px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(210px, 45%), 1fr)); }
figure { margin: 0; overflow: hidden; }
figure img { display: block; width: 100%; }
figcaption { padding: 10px 12px 12px; font-size: .84rem; line-height: 1.4; }
figcaption strong { display: block; color: var(--text); font-size: .95rem; font-weight: 600; }
figcaption ul { margin: 6px 0 0; padding-left: 16px; }
.clips { display: grid; gap: 14px; margin: 16px 0;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.clips ul { list-style: none; padding: 0; }
.good { color: var(--good); } .bad { color: var(--bad); }
.maps { display: grid; gap: 14px; grid-template-columns: repeat(3, minmax(0, 1fr)); margin: 14px 0; }
.maps figcaption { padding: 6px 10px; }
.chart { padding: 14px; max-width: 640px; }
.chart svg { display: block; width: 100%; height: auto; }
.table { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: 8px 14px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { min-width: 9em; overflow-wrap: normal; vertical-align: top; }
pre { padding: 14px 16px; overflow-x: auto; font-size: .88rem; }
footer { margin-top: 56px; border-top: 1px solid var(--line); padding-top: 14px; font-size: .88rem; }
"""
)


def page(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def write(folder: Path, html: str, figures: Mapping[str, Any]) -> None:
    """report.html and, with the figures, report.json; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(html, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def section(title: str, text: str, *parts: str) -> str:
    """A heading, an explaining paragraph and what it explains; nothing when there is nothing to explain."""
    if not any(parts):
        return ""
    return "\n".join([f"<h2>{escape(title)}</h2>", f"<p>{escape(text)}</p>" if text else "", *parts])


def cards(values: Iterable[tuple[str, str]]) -> str:
    """Large numbers with what they mean."""
    inner = (f"<div class=card><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in values)
    return f"<div class=cards>{''.join(inner)}</div>"


def gallery(figures: Iterable[str], kind: str = "gallery") -> str:
    inner = "".join(figures)
    return f'<div class="{kind}">{inner}</div>' if inner else ""


def figure(picture: Image.Image, caption: str, alt: str) -> str:
    """A picture above its caption, which is HTML."""
    return f'<figure><img src="{inlined(picture)}" alt="{escape(alt)}"><figcaption>{caption}</figcaption></figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways where it does not fit."""
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=table><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, one a line."""
    body = "".join(
        f"<tr><td class=soft>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in values.items()
    )
    return f"<div class=table><table class=facts><tbody>{body}</tbody></table></div>"


def code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


def inlined(picture: Image.Image, quality: int = 86) -> str:
    """A picture as a data URL (JPEG)."""
    data = io.BytesIO()
    picture.convert("RGB").save(data, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
