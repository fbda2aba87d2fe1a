"""Entering classes into LAVIS's registry, repeatably."""

from collections.abc import Callable
from typing import TypeVar

from lavis.common.registry import registry

T = TypeVar("T", bound=type)


def register(kind: str, *names: str) -> Callable[[T], T]:
    """Class decorator: enter a class under ``names`` as a LAVIS ``kind``.

    ``kind`` is one of model, builder, task, runner, processor. LAVIS's own decorators raise when a name is taken;
    assignment makes importing twice harmless and lets ``captioning`` replace LAVIS's COCO-only task.
    """

    def enter(cls: T) -> T:
        for name in names:
            registry.mapping[f"{kind}_name_mapping"][name] = cls
        return cls

    return enter
