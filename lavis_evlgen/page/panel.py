"""What one model makes of the upload, under a token budget that can be moved."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future
from html import escape

from nicegui import ui
from nicegui.events import GenericEventArguments

from lavis_evlgen.errors import EvlgenError
from lavis_evlgen.page.captioner import Answer, Captioner
from lavis_evlgen.page.parts import Text, TokenMaps, part
from lavis_evlgen.page.served import budgets, find
from lavis_evlgen.page.uploads import Upload
from lavis_evlgen.reports.tokens.page import HELP, maps_html

TRIED = 6  # budgets that are kept in sight
GENERAL = "something went wrong; the terminal that runs the page says what"
log = logging.getLogger(__name__)


class Panel:
    """A model, its token budget, its caption, what it costs and what its tokens cover.

    Args:
        number: of the panel on its page, from 0.
        model: the name of the model to begin with.
        fewest: begin with the smallest budget in place of the one of training.
    """

    def __init__(self, captioner: Captioner, number: int, model: str, fewest: bool = False) -> None:
        self.captioner, self.number = captioner, number
        self.upload: Upload | None = None
        self.question = ""
        self.served = find(captioner.served, model)
        self.choices = budgets(self.served)
        self._jobs: dict[str, Future[Answer]] = {}
        self._tried: dict[int, Answer] = {}
        with part("section", "panel") as self.root:
            self._model()
            self._budget(0 if fewest else self.choices.index(self.served.trained_tokens))
            ui.element("hr")
            self.note = Text("", "soft")
            self.caption = Text("", "caption")
            self.problem = Text("", "problem").props("role=alert")
            self.numbers = ui.html("", sanitize=False).classes("numbers")
            self.tried = ui.html("", sanitize=False)
            self.answer = ui.html("", sanitize=False)
            self.heading = Text("What each token covers", tag="h2")
            with part("div", "mapped"):
                self.maps = TokenMaps()
                self.help = Text("" if number else HELP, "soft")
        self.show(None)

    @property
    def tokens(self) -> int:
        return self.choices[min(int(self.slider.value), len(self.choices) - 1)]

    def _model(self) -> None:
        names = [each.name for each in self.captioner.served]
        if len(names) > 1:
            self.choice = ui.select(names, value=self.served.name, label="Model", on_change=self._chosen)
            self.choice.props("outlined dense").classes("model")
        else:
            Text(self.served.name, tag="h2")
        self.parts = Text(self.served.parts(), "soft")

    def _budget(self, place: int) -> None:
        with part("div", "budget"):
            Text("Tokens for the language model", tag="span")
            self.said = Text("", tag="span")
        self.slider = ui.slider(min=0, max=max(len(self.choices) - 1, 1), value=place, on_change=self._say_budget)
        self.slider.props('markers snap aria-label="Tokens for the language model"').on("change", self._moved)
        self.schedule = Text("", "soft")
        self._say_budget()

    def _say_budget(self) -> None:
        served, tokens = self.served, self.tokens
        self.said.say(f"{tokens} of {served.visual_tokens}")
        if served.fewest_tokens is None:
            self.slider.disable()
            self.schedule.say("The number of tokens of this connector is fixed.")
            return
        self.slider.enable()
        rates = ", ".join(map(str, served.schedule(tokens)))
        trained = (
            "as in training" if tokens == served.trained_tokens else f"it was trained with {served.trained_tokens}"
        )
        self.schedule.say(f"r, the tokens merged in each layer: {rates}; {trained}.")

    async def _moved(self, event: GenericEventArguments) -> None:
        """The slider was let go. Its own value follows some time later, so that it is taken from the event."""
        self.slider.value = event.args
        await self.refresh()

    async def _chosen(self) -> None:
        self.served = find(self.captioner.served, self.choice.value)
        self.choices = budgets(self.served)
        self.parts.say(self.served.parts())
        self.slider.props(f"max={max(len(self.choices) - 1, 1)}")
        self.slider.value = self.choices.index(self.served.trained_tokens)
        self._say_budget()
        await self.show_and_refresh(self.upload)

    async def show_and_refresh(self, upload: Upload | None) -> None:
        """Begin with another upload."""
        self.show(upload)
        await self.refresh()

    def show(self, upload: Upload | None) -> None:
        for kind in list(self._jobs):
            self._cancel(kind)
        self.upload, self._tried, self.question = upload, {}, ""
        self.note.say(upload.notes[self.served.name] if upload else "Upload a picture, or click on an example.")
        self.caption.say("looking …" if upload else "")
        for element in (self.numbers, self.tried, self.answer):
            element.set_content("")
        self._show_maps("")
        self.problem.say("")

    async def refresh(self) -> None:
        """Caption the upload, and answer the question again, under the present budget."""
        answer = await self._asked(None)
        if answer is not None:
            self._show_caption(answer)
            if self.question:
                await self.ask(self.question)

    async def ask(self, question: str) -> None:
        """Answer a question about the upload."""
        self.question = question
        answer = await self._asked(question)
        if answer is not None:
            text = escape(answer.text) or "(nothing)"
            self.answer.set_content(
                f'<p class="soft">{escape(question)}</p><p class="answer">{text}</p>'
                f'<p class="soft">{_milliseconds(answer.seconds)} to answer, with {answer.tokens} tokens</p>'
            )

    async def _asked(self, question: str | None) -> Answer | None:
        """The answer; None where there is nothing to ask about, it failed, or the same was asked again meanwhile."""
        if self.upload is None:
            return None
        kind = "caption" if question is None else "answer"
        tokens = None if self.served.fewest_tokens is None else self.tokens
        self._cancel(kind)
        problem, answer = "", None
        self.root.classes(f"asking-{kind}")
        try:
            job = self.captioner.ask(self.upload, self.served.name, tokens, question, maps=question is None)
            self._jobs[kind] = job
            answer = await asyncio.wrap_future(job)
            if self._jobs.get(kind) is not job:
                return None
        except asyncio.CancelledError:
            return None
        except EvlgenError as error:
            problem = str(error)
        except Exception:
            log.exception("a request of the page failed")
            problem = GENERAL
        if self.root.client.is_deleted:
            return None
        self.root.classes(remove=f"asking-{kind}")
        self.problem.say(problem)
        return answer

    def _cancel(self, kind: str) -> None:
        """Drop what was asked before: it will not run if it still waits, and nobody looks at what it says."""
        if job := self._jobs.pop(kind, None):
            job.cancel()

    def _show_caption(self, answer: Answer) -> None:
        self.caption.say(answer.text or "(nothing)")
        values = [
            (f"{answer.tokens}", f"tokens are left of {self.served.visual_tokens}"),
            (_milliseconds(answer.see_seconds), "to see: vision model and connector"),
            (_milliseconds(answer.write_seconds), "to write: language model"),
        ]
        self.numbers.set_content("".join(f"<div><b>{value}</b><span>{text}</span></div>" for value, text in values))
        self._tried.pop(answer.tokens, None)  # so that the last ones stand last
        self._tried[answer.tokens] = answer
        self.tried.set_content(_table(list(self._tried.values())[-TRIED:]))
        name = f"layer-{self.number}"
        self._show_maps(maps_html([answer.shown], name=name) if answer.shown else "")

    def _show_maps(self, html: str) -> None:
        self.maps.show(html)
        for element in (self.heading, self.help):
            element.set_visibility(bool(html))


def _table(tried: list[Answer]) -> str:
    """What other budgets gave for the same upload, once there are several."""
    if len(tried) < 2:
        return ""
    rows = "".join(
        f"<tr><td>{each.tokens}</td><td>{escape(each.text)}</td><td>{_milliseconds(each.seconds)}</td></tr>"
        for each in sorted(tried, key=lambda each: each.tokens)
    )
    return f'<table class="tried"><tr><th>tokens</th><th>caption</th><th>together</th></tr>{rows}</table>'


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
