"""What training steps use: tokens that the language model reads, and memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import nn

from lavis_evlgen.runners.distributed import summed

GIB = 2**30


class TokenCounter:
    """Tokens that a model's language model reads inside :meth:`counting`, soft prompts included, padding not.

    Models say them by ``tokens_read``, a count that only grows; of others nothing is known.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model, self._device = model, device
        self._tokens = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = self._read()
        yield
        self._tokens += self._read() - before

    def per_second(self, seconds: float) -> dict[str, float]:
        """``tokens_per_s`` over all ranks since the last call, ``seconds`` ago; every rank must call it."""
        if not hasattr(self._model, "tokens_read"):
            return {}
        (tokens,) = summed([float(self._tokens)], self._device)
        self._tokens = 0
        return {"tokens_per_s": round(tokens / seconds, 1)}

    def _read(self) -> int:
        return getattr(self._model, "tokens_read", 0)


def memory(device: torch.device) -> dict[str, float]:
    """``host_memory_gib``, resident memory of this process now; on a GPU also ``memory_gib``, its peak so far."""
    found = {"host_memory_gib": round(psutil.Process().memory_info().rss / GIB, 3)}
    if device.type == "cuda":
        found["memory_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    return found
