"""State of the random number generators: seeded for a moment, preserved over a block, stored in checkpoints."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_SPARE_GENERATORS: list[np.random.MT19937] = []


def derived_seed(*parts: int) -> int:
    """A 64-bit seed from several non-negative numbers, the same on every platform and in every process."""
    return int(np.random.SeedSequence([int(part) for part in parts]).generate_state(1, np.uint64)[0])


def capture() -> dict[str, Any]:
    """The state of torch (CPU and the current GPU), NumPy and Python as tensors and plain numbers.

    ``torch.load(weights_only=True)`` reads it back.
    """
    numpy_state: Any = np.random.get_state()
    _, keys, position, has_gauss, gauss = numpy_state
    version, internal, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(internal, dtype=torch.int64), next_gauss],
    }


def restore(state: dict[str, Any]) -> None:
    """Put back what :func:`capture` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    keys, position, has_gauss, gauss = state["numpy"]
    if not 0 <= position <= len(keys):  # NumPy would read behind its state
        raise ValueError(f"position {position} of {len(keys)} random numbers")
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, next_gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), next_gauss))


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever the block draws, the generators go on afterwards as if it had not run."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


@contextmanager
def restored() -> Iterator[None]:
    """Afterwards the CPU generators are as before; cheaper than :func:`preserved`, for it is done for every sample.

    The GPU generator is left alone: samples are made on the CPU.
    """
    torch_state, numpy_generator, python_state = torch.get_rng_state(), np.random.get_bit_generator(), random.getstate()
    # reading and writing NumPy's state takes 0.1 ms, changing its generator next to nothing; blocks may be nested
    spare = _SPARE_GENERATORS.pop() if _SPARE_GENERATORS else np.random.MT19937()
    np.random.set_bit_generator(spare)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_bit_generator(numpy_generator)
        _SPARE_GENERATORS.append(spare)
        random.setstate(python_state)


def seed_cpu(seed: int) -> None:
    """Start the CPU generators of torch, NumPy and Python from a 64-bit seed."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def seed(number: int) -> None:
    """Start all generators, that of the GPU too, from a 64-bit seed."""
    seed_cpu(number)
    torch.cuda.manual_seed(number)


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """Inside the block the CPU generators start from ``derived_seed(*parts)``; afterwards they are as before."""
    with restored():
        seed_cpu(derived_seed(*parts))
        yield
