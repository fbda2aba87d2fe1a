"""Two "hosts" on this machine: network namespaces with a cable between them, which vanish with their holders."""

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

CLONE_NEWNET = 0x40000000
LIFETIME = 600  # seconds after which a namespace goes away by itself, whatever became of the test
PORT = 29600  # each pair of hosts has its own ports


class Hosts:
    """``eth0`` of host 0 and of host 1, addresses 10.77.0.1 and 10.77.0.2, joined by a cable."""

    addresses = ("10.77.0.1", "10.77.0.2")

    def __init__(self, holders: list[int]) -> None:
        self.holders = holders

    def inside(self, host: int, *command: str) -> list[str]:
        """A command line that runs ``command`` on a host."""
        return ["nsenter", f"--net=/proc/{self.holders[host]}/ns/net", *command]

    def link(self, state: str) -> None:
        """Plug the cable in ("up") or out ("down")."""
        _run(self.inside(1, "ip", "link", "set", "eth0", state))


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """The namespaces have no names: they exist as long as a process is inside. Skips the test where they cannot be."""
    missing = [tool for tool in ("ip", "nsenter", "unshare") if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"two hosts need root and {', '.join(missing) or 'root'}" if missing else "two hosts need root")
    holders: list[subprocess.Popen] = []
    try:
        for _ in range(2):
            holders.append(
                subprocess.Popen(
                    ["unshare", "--net", "sh", "-c", f"echo; exec sleep {LIFETIME}"],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            if holders[-1].stdout.readline() != "\n":  # it is inside as soon as it says something
                pytest.skip(f"no network namespaces here: {holders[-1].stderr.read().strip()}")
        hosts = Hosts([holder.pid for holder in holders])
        _run(hosts.inside(0, *f"ip link add eth0 type veth peer name eth0 netns {hosts.holders[1]}".split()))
        for host, address in enumerate(hosts.addresses):
            for command in (f"addr add {address}/24 dev eth0", "link set lo up", "link set eth0 up"):
                _run(hosts.inside(host, "ip", *command.split()))
        yield hosts
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def enter(holder: int) -> None:
    """Move this process, and what it starts, to a host."""
    with open(f"/proc/{holder}/ns/net") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace of process {holder}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {' '.join(command)}: {done.stderr.strip()}")
