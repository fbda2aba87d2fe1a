"""Processes that talk, threads, and machines without a GPU."""

import pytest
import torch

from lavis_evlgen.doctor import torch_checks
from lavis_evlgen.doctor.findings import NOTE, OK, PROBLEM

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")


def test_two_processes_work_together(monkeypatch):
    assert list(torch_checks.check_gloo()) == [(OK, "two processes of this machine work together (gloo)")]
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    ((level, said, way_out),) = torch_checks.check_gloo()
    assert level == PROBLEM and "nosuch0" in said and "GLOO_SOCKET_IFNAME" in way_out


def test_more_threads_than_cores(monkeypatch):
    import os

    allowed = sorted(os.sched_getaffinity(0))
    before = torch.get_num_threads()
    try:
        os.sched_setaffinity(0, allowed[:1])
        torch.set_num_threads(3)
        assert next(iter(torch_checks.check_processor()))[0] == NOTE
        torch.set_num_threads(1)
        level, said = next(iter(torch_checks.check_processor()))
        assert level == OK and said == f"1 of {os.cpu_count()} cores may be used, torch takes 1 threads"
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(before)


@no_gpu
def test_no_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(torch_checks._no_gpu("13.0")) == [
        (NOTE, "no GPU here (torch is built for CUDA 13.0): everything runs on the processor; NCCL was not tried")
    ]
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (found,) = torch_checks._no_gpu("13.0")
    assert found[:2] == (PROBLEM, "there is an NVIDIA driver, but torch (CUDA 13.0) finds no GPU")
    assert [each[0] for each in torch_checks._no_gpu(None)] == [PROBLEM]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert list(torch_checks._no_gpu("13.0")) == [
        (NOTE, "CUDA_VISIBLE_DEVICES=-1 hides all GPUs: everything runs on the processor")
    ]
    assert [each[0] for each in torch_checks.check_gpu()] == [NOTE]
