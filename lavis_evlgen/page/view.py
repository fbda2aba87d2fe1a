"""What one sees: the page of one visitor, by NiceGUI. All that models do is asked of the captioner."""

from __future__ import annotations

import asyncio
import io
import logging

from fastapi import FastAPI
from nicegui import ui
from nicegui.events import UploadEventArguments

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.page.captioner import LONGEST_QUESTION, Captioner
from lavis_evlgen.page.examples import ATTRIBUTION, Example, examples
from lavis_evlgen.page.panel import GENERAL, Panel
from lavis_evlgen.page.parts import Text, part
from lavis_evlgen.page.style import STYLE
from lavis_evlgen.page.uploads import Upload
from lavis_evlgen.reports.page import inlined
from lavis_evlgen.reports.tokens.script import SCRIPT

TITLE = "EVLGen: pictures to sentences"
WHAT = (
    "A picture or a short clip goes in, a sentence comes out. A frozen vision model cuts the picture into patches, a "
    "trained connector merges the tokens that are alike, and a frozen language model writes from the few that are left."
)
SHIPPED = (
    "The model that comes with the package knows 300 drawn things on coloured grounds, one at a time. It is no "
    "general captioner: of a photograph it says the nearest thing that it knows."
)
OWN = "A model knows what it was trained on, and describes everything else in the same words."
KEPT = (
    "What you upload stays in this server's memory until you upload something else or close the page. It is not "
    "stored, and nothing is sent to anybody else."
)
ASKING = "A model that was trained on captions alone answers badly; train it on questions for this."
FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#2f6fed"/>'
    '<path d="M7 7h8v8H7zM17 7h8v18h-8zM7 17h8v8H7z" fill="#fff"/></svg>'
)
# what a click, a key, or files that are dropped or pasted do
CHOOSER = "getElement(document.querySelector('.chooser')).$refs.qRef"
PICK = f"() => {CHOOSER}.pickFiles()"
FORGET = f"() => setTimeout(() => {CHOOSER}.reset())"  # so that the same file can be chosen again
DROP = (
    "event => { event.preventDefault(); event.currentTarget.classList.remove('over');"
    f" {CHOOSER}.addFiles(event.dataTransfer.files); }}"
)
OVER = "event => { event.preventDefault(); event.currentTarget.classList.add('over'); }"
LEAVE = "event => event.currentTarget.classList.remove('over')"
PASTE = (
    "document.addEventListener('paste', event => { const files = event.clipboardData.files;"
    f" if (files.length) {CHOOSER}.addFiles(files); }});"
)
RECONNECT = 30.0  # seconds that a page is kept for a silent browser: it, its network or this machine may be busy
log = logging.getLogger(__name__)


def add_page(app: FastAPI, captioner: Captioner) -> None:
    """Put the page at ``/``."""
    drawn = examples()

    @ui.page("/", title=TITLE)
    def page() -> None:
        ui.add_head_html(f"<style>{STYLE}</style><script>{SCRIPT}{PASTE}</script>")
        ui.colors(primary="#2f6fed")
        Desk(captioner, drawn)

    ui.run_with(
        app,
        title=TITLE,
        favicon=FAVICON,
        dark=None,
        tailwind=False,
        language="en-US",
        reconnect_timeout=RECONNECT,
        show_welcome_message=False,
    )


class Desk:
    """One visitor's page: what was uploaded, and one or two panels that say what models make of it."""

    def __init__(self, captioner: Captioner, drawn: list[Example]) -> None:
        self.captioner = captioner
        self.upload: Upload | None = None
        names = [each.name for each in captioner.served]
        with part("main", "all") as self.root:
            Text("What does the model see?", tag="h1")
            Text(WHAT)
            Text(SHIPPED if any(each.shipped for each in captioner.served) else OWN, "knows")
            with part("div", "desk"):
                with part("div", "given"):
                    self._drop_zone()
                    self._examples(drawn)
                    self._question()
                    self.second = ui.switch("Put a second one beside it", value=len(names) > 1)
                    self.second.on_value_change(self._place_second)
                with part("div", "panels"):
                    self.panels = [
                        Panel(captioner, 0, names[0]),
                        Panel(captioner, 1, names[min(1, len(names) - 1)], fewest=len(names) == 1),
                    ]
            Text(f"{captioner.limits.in_words()} {KEPT}", "soft foot")
        self.panels[1].root.set_visibility(self.second.value)

    def _drop_zone(self) -> None:
        with part("div"):
            with part("div", "drop").props('role=button tabindex=0 aria-label="Upload a picture or a clip"') as zone:
                self.preview = ui.html("", sanitize=False)
                self.invitation = Text("Drop a picture or a short clip here, paste it, or click.", tag="span")
            self.problem = Text("", "problem").props("role=alert")
        limits = self.captioner.limits
        chooser = ui.upload(
            on_upload=self._uploaded, on_rejected=self._rejected, max_file_size=limits.bytes, auto_upload=True
        )
        chooser.props('accept="image/*,video/*,.mkv"').classes("chooser").on("failed", self._rejected, args=[])
        # the browser's doing: asked for by the server it may come before the answer, and abort the upload
        chooser.on("finish", js_handler=FORGET)
        zone.on("click", js_handler=PICK)
        zone.on("keydown.enter", js_handler=PICK)
        zone.on("dragover", js_handler=OVER).on("dragleave", js_handler=LEAVE)
        zone.on("drop", js_handler=DROP)

    def _examples(self, drawn: list[Example]) -> None:
        if not drawn:
            return
        with part("div"):
            Text("Or try one of these; training shows none of them:", "soft")
            with part("div", "examples"):
                for each in drawn:
                    button = part("button").props(f'type=button aria-label="{each.text}" title="{each.text}"')
                    with button:
                        part("img").props(f'alt="" src="{inlined(each.picture)}"')
                    button.on("click", lambda each=each: self._example(each))
            Text(ATTRIBUTION, "soft")

    def _question(self) -> None:
        with part("div"):
            Text("Ask about it", tag="h2")
            with part("div", "ask"):
                self.question = ui.input(placeholder="what is it?").props(
                    f'outlined dense maxlength={LONGEST_QUESTION} aria-label="Question"'
                )
                self.question.on("keydown.enter", self._ask)
                ui.button("Ask", on_click=self._ask).props("unelevated no-caps")
            Text(ASKING, "soft")

    async def _example(self, example: Example) -> None:
        data = io.BytesIO()
        example.picture.save(data, "PNG")
        await self._take(data.getvalue(), f"drawn: {example.text}")

    async def _uploaded(self, event: UploadEventArguments) -> None:
        await self._take(await event.file.read(), event.file.name)

    def _rejected(self) -> None:
        self.problem.say(f"This file was not taken. {self.captioner.limits.in_words()}")

    async def _take(self, data: bytes, name: str) -> None:
        """Show what was uploaded, or what is wrong with it, and let the models have it."""
        self.problem.say("")
        try:
            upload = await asyncio.wrap_future(self.captioner.read(data, name))
        except EvlgenError as error:
            self.problem.say(f"{name}: {error}")
            return
        except Exception:
            log.exception("an upload could not be read")
            self.problem.say(f"{name}: {GENERAL}")
            return
        if self.root.client.is_deleted:
            return
        self.upload = upload
        kind = "" if upload.kind == "picture" else ", middle frame"
        self.preview.set_content(f'<img src="{inlined(upload.preview)}" alt="what you uploaded{kind}">')
        self.invitation.say(f"{name[:80]}{kind}")
        await asyncio.gather(*(panel.show_and_refresh(upload) for panel in self._open()))

    async def _ask(self) -> None:
        question = (self.question.value or "").strip()
        if self.upload is None:
            self.problem.say("Upload a picture first, or click on an example; then ask about it.")
        elif question:
            await asyncio.gather(*(panel.ask(question) for panel in self._open()))

    async def _place_second(self) -> None:
        second = self.panels[1]
        second.root.set_visibility(self.second.value)
        if self.second.value and second.upload is not self.upload:
            await second.show_and_refresh(self.upload)

    def _open(self) -> list[Panel]:
        return self.panels if self.second.value else self.panels[:1]
