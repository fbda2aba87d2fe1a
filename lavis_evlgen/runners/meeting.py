"""Where the processes of a run meet: the address and port of rank 0, and the network interface that leads there."""

import os
import re
import socket
from collections.abc import Mapping, MutableMapping

import psutil

from lavis_evlgen.runners.placement import Placement

PORT = 29500  # torch's own
SLURM_PORTS = range(15000, 30000)  # below those that systems give out by themselves


def set_meeting_point(placement: Placement, backend: str, env: MutableMapping[str, str] = os.environ) -> None:
    """Put into the environment what torch reads there and torchrun, SLURM or the user have not set."""
    env.setdefault("MASTER_ADDR", slurm_master(env))
    env.setdefault("MASTER_PORT", str(slurm_port(env)))
    env.setdefault("RANK", str(placement.rank))
    env.setdefault("WORLD_SIZE", str(placement.world_size))
    interface = interface_towards(env["MASTER_ADDR"]) if backend == "gloo" else None
    if interface is not None:
        # gloo takes the one of the machine's name, which often is the loopback, where no other machine is
        env.setdefault("GLOO_SOCKET_IFNAME", interface)


def slurm_master(env: Mapping[str, str]) -> str:
    """First machine of the SLURM node list: ``gpu[03-06,9],cpu1`` gives ``gpu03``, ``r[1-2]n[4,7]`` gives ``r1n4``."""
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "127.0.0.1"
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0]) if first else nodes


def slurm_port(env: Mapping[str, str]) -> int:
    """A port that the tasks of one SLURM job step agree on, and that its neighbours on the machine do not take."""
    job, step = env.get("SLURM_JOB_ID", ""), env.get("SLURM_STEP_ID", "")
    if not job.isdecimal():
        return PORT
    # steps of a job lie far apart: the next ones are other jobs'
    number = int(job) + 7919 * (int(step) if step.isdecimal() else 0)
    return SLURM_PORTS[number % len(SLURM_PORTS)]


def interface_towards(address: str) -> str | None:
    """The network interface by which this machine reaches ``address``; None where that is this machine's loopback, or
    unknown."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(address, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    names = [name for name, found in psutil.net_if_addrs().items() if own in [each.address for each in found]]
    return names[0] if names and not own.startswith("127.") and own != "::1" else None
