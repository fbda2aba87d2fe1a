"""Captions, answers and token maps for several people at once: one job after the other, none changes a model."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from PIL import Image

from lavis_evlgen.asking import ANSWER_LENGTH, CAPTION_LENGTH, NUM_BEAMS, QUESTION_PROMPT, check_question_prompt
from lavis_evlgen.errors import ConfigError, EvlgenError
from lavis_evlgen.page.served import Served, find
from lavis_evlgen.page.uploads import Limits, Upload, check_size, read_upload
from lavis_evlgen.reports.tokens.map import connector_reductions
from lavis_evlgen.reports.tokens.states import LOADED, Shown, drawn_layers
from lavis_evlgen.runners.samples import to_device

LONGEST_QUESTION = 300  # characters
READERS = 2  # uploads that are decoded at the same time

T = TypeVar("T")


class BusyError(EvlgenError):
    """More people are waiting than the page takes."""


@dataclass(frozen=True)
class Answer:
    """What a model says of an upload.

    Attributes:
        text: the caption, or the answer to a question.
        tokens: what the connector left of the visual tokens, of all frames of a clip together.
        schedule: r of every layer; None for a connector that merges nothing.
        see_seconds: ViT and connector, from pixels to soft prompt. write_seconds: the language model.
        shown: the upload with its token maps; None where they were not asked for, or the connector has none.
    """

    text: str
    tokens: int
    schedule: list[int] | None
    see_seconds: float
    write_seconds: float
    shown: Shown | None = None

    @property
    def seconds(self) -> float:
        return self.see_seconds + self.write_seconds


class Captioner:
    """The models behind one queue. All methods may be called from any thread.

    Args:
        served: the models, the first of which is asked where no other is named.
        limits: on uploads.
        prompt: how questions are asked, {} being the question; None: of each model as in its training.
        most_waiting: jobs that may wait; more are refused.

    Raises:
        ConfigError: a prompt without a place for the question.
    """

    def __init__(
        self,
        served: Sequence[Served],
        limits: Limits | None = None,
        prompt: str | None = None,
        most_waiting: int = 64,
    ):
        check_question_prompt(prompt)
        self.served = list(served)
        self._prompt = prompt
        self.limits = limits or Limits()
        self._most_waiting = most_waiting
        # one worker: a second would slow the first down, and the contextualizer keeps a clip's state in its hooks
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self._waiting = 0
        self._lock = threading.Lock()

    def read(self, data: bytes, name: str) -> Future[Upload]:
        """Check and decode an upload; DataError, which names what is wrong with it, comes with the result.

        Raises:
            DataError: the file is too large. BusyError.
        """
        check_size(len(data), self.limits)
        return self._submit(self._readers, read_upload, data, name, self.served, self.limits)

    def ask(
        self,
        upload: Upload,
        model: str | None = None,
        tokens: int | None = None,
        question: str | None = None,
        maps: bool = False,
    ) -> Future[Answer]:
        """Caption an upload, or answer a question about it.

        Args:
            model: a name of `served`; the first by default.
            tokens: what the connector shall leave; as in training by default.
            maps: also which patches each token covers, after every layer.

        Raises:
            ConfigError: no such model, a budget that its connector cannot meet, or a question that is empty or too
                long. BusyError.
        """
        served = find(self.served, model)
        if question is not None and not 0 < len(question.strip()) <= LONGEST_QUESTION:
            raise ConfigError(f"the question must have 1 to {LONGEST_QUESTION} characters, not {len(question.strip())}")
        asked = served.with_budget(tokens)
        prompt = self._prompt or served.model.question_prompt or QUESTION_PROMPT
        text = None if question is None else prompt.replace("{}", question.strip())
        return self._submit(self._worker, _answer, served, asked, upload.inputs[served.name], text, maps)

    def warm_up(self) -> None:
        """Let every model caption something once, so that nobody waits for what libraries do at their first call."""
        picture = Image.new("RGB", (64, 64), (128, 160, 192))
        for served in self.served:
            upload = read_upload(_png(picture), "", [served], self.limits)
            self.ask(upload, served.name).result()

    def close(self) -> None:
        """End after the job that is running; those that wait are dropped."""
        for pool in (self._worker, self._readers):
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[..., T], *given: Any) -> Future[T]:
        with self._lock:
            if self._waiting >= self._most_waiting:
                raise BusyError(f"{self._waiting} requests are waiting already; try again in a minute")
            self._waiting += 1
        job = pool.submit(work, *given)
        job.add_done_callback(self._done)
        return job

    def _done(self, _job: Future[Any]) -> None:
        with self._lock:
            self._waiting -= 1


@torch.inference_mode()
def _answer(served: Served, model: Any, shown: Shown, question: str | None, maps: bool) -> Answer:
    start = time.perf_counter()
    features = model.extract_features(to_device(shown.samples, served.device))
    _finish(served.device)
    seen = time.perf_counter()
    batch = {"soft_prompt": features.soft_prompt}
    if question is None:
        (text,) = model.generate(batch, num_beams=NUM_BEAMS, max_length=CAPTION_LENGTH)
    else:
        batch["text_input"] = [question]
        (text,) = model.predict_answers(batch, num_beams=NUM_BEAMS, max_len=ANSWER_LENGTH)
    written = time.perf_counter()
    mapped = _mapped(model, shown, features.vision) if maps else None
    schedule = getattr(model.connector, "schedule", None)
    return Answer(text, features.soft_prompt.shape[1], schedule, seen - start, written - seen, mapped)


def _mapped(model: Any, shown: Shown, vision: torch.Tensor) -> Shown | None:
    """The upload with its token maps; None for a connector that has none."""
    try:
        layers = drawn_layers(model, connector_reductions(model.connector, vision))
    except ConfigError:
        return None
    return replace(shown, states={LOADED: layers})


def _finish(device: torch.device) -> None:
    """Wait for a GPU, so that the clock means something."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
