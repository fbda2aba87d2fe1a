"""`run.shard: frozen`: the weights of frozen ViT and language model spread over the processes.

Each process keeps its part of every block; PyTorch's FSDP brings a block together where it runs, forward and backward,
and lets it go again. What trains stays whole on every process, with DDP. All processes must therefore run frozen parts
equally often: :func:`in_step` lends batches to those that have none.
"""

import datetime
import inspect
import logging
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lavis.common.dist_utils import get_rank, get_world_size
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lavis_evlgen.errors import ConfigError
from lavis_evlgen.models.frozen import Frozen
from lavis_evlgen.runners.activity import ACTIVITY
from lavis_evlgen.runners.distributed import gathered, on_every_rank
from lavis_evlgen.runners.settings import RunSettings
from lavis_evlgen.runners.trainable import LENT, batch_size

T = TypeVar("T")


def built(build: Callable[[], nn.Module], settings: RunSettings) -> nn.Module:
    """The model that ``build`` gives, its frozen parts sharded if `run.shard` says so and there are several processes.

    Processes of one machine then build one after the other, each letting its weights go before the next begins: the
    machine's memory holds one whole model at a time, and a GPU never more than one block beside its part.
    """
    if settings.shard == "none" or get_world_size() == 1:
        return build()
    mesh = _mesh(settings.device, settings.dist_timeout)
    machines = gathered(socket.gethostname())
    turn = machines[: get_rank()].count(machines[get_rank()])
    models: list[nn.Module] = []

    def build_one() -> None:
        models.append(shard(build(), mesh, with_vision=not settings.feature_cache))

    for number in range(max(map(machines.count, machines))):
        ACTIVITY.move()  # those whose turn is later are not stuck
        on_every_rank(build_one if number == turn else lambda: None)
    local, whole = frozen_bytes(models[0])
    logging.info("frozen weights: %.2f of %.2f GiB on each of %d processes", local / 2**30, whole / 2**30, mesh.size())
    return models[0]


def _mesh(device_type: str, timeout_s: float) -> Any:
    """All processes, in a group of its own: gathering weights never waits behind DDP's sums of gradients."""
    from torch.distributed.device_mesh import DeviceMesh

    group: Any = dist.new_group(timeout=datetime.timedelta(seconds=timeout_s))
    return DeviceMesh.from_group(group, device_type)


def shard(model: nn.Module, mesh: Any, with_vision: bool = True) -> nn.Module:
    """Shard the frozen parts of a model over a device mesh, in place; moves them to its device, block by block.

    Args:
        with_vision: False leaves the ViT whole, for a feature cache, which each process fills at its own pace.

    Raises:
        ConfigError: nothing is frozen, the blocks are not found, or the model's processes speak with each other.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    parts = [part for part in model.modules() if isinstance(part, Frozen) and part.frozen]
    if not parts or hasattr(model, "miss_batch"):
        raise ConfigError(
            f"run.shard: {type(model).__name__} cannot be sharded, only models with a frozen language model "
            "(evlgen_opt, evlgen_vicuna, evlgen, evlgen_video); set run.shard: none"
        )
    # OPT's layers return views, which FSDP warns of in case something changes them in place; OPT does not
    warnings.filterwarnings("ignore", r"FSDP2-wrapped module \(FSDPOPTDecoderLayer\)", UserWarning)
    for part in parts:
        if part is getattr(model, "vision", None) and not with_vision:
            continue
        for module in [*part.layers(), part]:
            scalars = {p for p in module.parameters() if p.ndim == 0}  # FSDP takes none
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
        for name in part.entrances:
            register_fsdp_forward_method(part, name)
        part.sharded = True
    return model


def replicated(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    """The model with DDP around what of it is not sharded."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, sharded_parameters(model))
    device_ids = [device.index] if device.type == "cuda" else None
    # frozen models do not change their buffers; the option was renamed in torch 2.14
    known = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"device_ids": device_ids, sync: False}
    return DistributedDataParallel(model, **options)


def sharded_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters of which this process holds a part only."""
    parts = {id(p) for part in model.modules() if getattr(part, "sharded", False) for p in part.parameters()}
    return [name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in parts]


def frozen_bytes(model: nn.Module) -> tuple[int, int]:
    """Bytes of frozen weights that this process holds, and of the whole."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    local = [p.to_local() if hasattr(p, "to_local") else p for p in frozen]
    return sum(p.nbytes for p in local), sum(p.numel() * p.element_size() for p in frozen)


def in_step(batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """This rank's batches, on every rank equally many. Where it has no samples, another's are in ``batch[LENT]``.

    Pass that through the model as one's own, and forget the result. Every rank must go through them in turn with the
    others; a batch has neither when no rank has samples.
    """
    own = iter(batches)
    while True:
        batch = next(own, None)
        sizes = gathered(-1 if batch is None else batch_size(batch))
        if max(sizes) < 0:
            return
        if min(sizes) <= 0 < max(sizes):
            lender = sizes.index(max(sizes))
            parcel = [_without_bad(batch) if get_rank() == lender and batch else None]
            dist.broadcast_object_list(parcel, src=lender)
            if sizes[get_rank()] <= 0:
                batch = {**(batch or {}), LENT: parcel[0]}
        yield batch or {}


def as_many_everywhere(items: list[T]) -> list[tuple[T, bool]]:
    """``items`` with True, and with False those that a rank with fewer than others must work through beside them."""
    counts = gathered(len(items))
    lender = counts.index(max(counts))
    parcel = [items[min(counts) :] if get_rank() == lender else None]
    if min(counts) < max(counts):
        dist.broadcast_object_list(parcel, src=lender)
    missing = max(counts) - len(items)
    lent = (parcel[0] or [])[-missing:] if missing else []
    return [(item, True) for item in items] + [(item, False) for item in lent]


def _without_bad(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in batch.items() if key != "bad_samples"}
