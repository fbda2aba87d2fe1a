"""torch: threads and bf16, GPUs with CUDA and NCCL, and processes that talk by gloo."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM, Result
from lavis_evlgen.errors import first_line

GLOO_SECONDS = 30.0


def check_gloo() -> Iterator[Result]:
    """Two processes on this machine add a number. It comes before torch has started threads, which fork would lose."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_gloo_available()):
        yield PROBLEM, "this torch was built without gloo: several processes need a GPU", "install torch's own wheel"
        return
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=_add, args=(rank, f"{folder}/store", results)) for rank in range(2)]
        for process in processes:
            process.start()
        end = time.monotonic() + GLOO_SECONDS
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        for process in processes:
            process.kill()
            process.join()
    said = [results.get() for _ in processes if not results.empty()]
    if said == [3.0, 3.0]:
        yield OK, "two processes of this machine work together (gloo)"
        return
    reason = next((each for each in said if isinstance(each, str)), f"no answer in {GLOO_SECONDS:g} s")
    yield (
        PROBLEM,
        f"two processes of this machine cannot work together by gloo ({reason})",
        f"see that the name {os.uname().nodename} resolves (/etc/hosts), or set GLOO_SOCKET_IFNAME to a network "
        "interface, for example lo",
    )


def _add(rank: int, store: str, results: multiprocessing.SimpleQueue[float | str]) -> None:
    import torch
    import torch.distributed as dist

    try:
        timeout = datetime.timedelta(seconds=GLOO_SECONDS)
        dist.init_process_group("gloo", f"file://{store}", timeout=timeout, rank=rank, world_size=2)
        number = torch.tensor([rank + 1.0])
        dist.all_reduce(number)
        results.put(number.item())
    except Exception as error:
        results.put(first_line(error)[:200])


def check_processor() -> Iterator[Result]:
    import torch

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    text = f"{allowed} of {os.cpu_count()} cores may be used, torch takes {threads} threads"
    if threads > allowed:
        yield NOTE, f"{text}: more than cores slow each other down; set run.num_threads or OMP_NUM_THREADS"
    else:
        yield OK, text
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    yield OK, "run.precision bf16 is computed by the processor itself" if fast else "bf16 runs, but is emulated here"


def check_gpu() -> Iterator[Result]:
    import torch

    if not torch.cuda.is_available():
        yield from _no_gpu(torch.version.cuda)
        return
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if (ones @ ones).sum().item() != 64**3:
            yield PROBLEM, f"cuda:{number} {facts.name} multiplies wrong", "take it out of CUDA_VISIBLE_DEVICES"
            continue
        bf16 = "bf16" if facts.major >= 8 else "no bf16: use run.precision fp16"
        yield OK, f"cuda:{number} {facts.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, {bf16}"
    yield OK, f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    if torch.distributed.is_nccl_available():
        yield OK, f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}"
    else:
        yield PROBLEM, "this torch was built without NCCL: one GPU only", "install torch's own CUDA wheel"


def _no_gpu(built_for: str | None) -> Iterator[Result]:
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden in ("", "-1"):
        yield NOTE, f"CUDA_VISIBLE_DEVICES={hidden} hides all GPUs: everything runs on the processor"
    elif driver and built_for is None:
        yield PROBLEM, "there is an NVIDIA driver, but this torch is for processors", "install torch's own CUDA wheel"
    elif driver:
        yield (
            PROBLEM,
            f"there is an NVIDIA driver, but torch (CUDA {built_for}) finds no GPU",
            "see `nvidia-smi`; the driver may be too old for this CUDA, or the container was started without --gpus",
        )
    else:
        built = f"CUDA {built_for}" if built_for else "processors alone"
        yield NOTE, f"no GPU here (torch is built for {built}): everything runs on the processor; NCCL was not tried"
