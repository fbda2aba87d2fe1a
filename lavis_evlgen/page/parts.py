"""Small pieces of the page, by NiceGUI."""

from __future__ import annotations

from html import escape
from pathlib import Path

from nicegui import ui
from nicegui.element import Element


class Text(ui.html):
    """Plain text in a tag of its own; `say` replaces it."""

    def __init__(self, text: str = "", classes: str = "", tag: str = "p") -> None:
        super().__init__(escape(text), sanitize=False, tag=tag)
        self.classes(classes)

    def say(self, text: str) -> None:
        self.set_content(escape(text))


class TokenMaps(Element, component=Path(__file__).with_name("token_maps.js")):
    """Token maps by `reports.tokens.page.maps_html`; the page must have that module's script and style."""

    def show(self, html: str) -> None:
        self.props["html"] = html
        self.update()


def part(tag: str, classes: str = "") -> Element:
    """An element to fill: ``with part("div", "desk"): …``."""
    return ui.element(tag).classes(classes)
