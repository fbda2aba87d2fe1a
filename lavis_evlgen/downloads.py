"""Files fetched from the network once per cache, whole or not at all, however many processes want them.

LAVIS lets rank 0 of all nodes download while the others wait at a barrier: a node without rank 0 and without a shared
disk never gets the file. Here every process asks, the first one that holds the lock beside the file fetches it, and
the others find it there: one process a node where nodes have disks of their own, one of all where they share one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from urllib.parse import urlparse

import requests
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from lavis_evlgen.errors import DownloadError

TIMEOUT_VARIABLE = "EVLGEN_DOWNLOAD_TIMEOUT"
_TIMEOUT = 3600.0  # seconds that a process waits for another one's download
_SILENCE = 60.0  # seconds without a byte after which a server counts as gone
_CHUNK = 1 << 20


def made_once(target: Path, make: Callable[[], None]) -> Path:
    """`target`, which `make` lets appear whole if it is not there; of several processes one makes it, the others wait.

    The lock ends with the process that holds it, so that another one takes over from one that was killed.

    Raises:
        DownloadError: the folder cannot be written, or another process was not done in $EVLGEN_DOWNLOAD_TIMEOUT
            seconds (default: 3600).
    """
    if not target.exists():
        with one_at_a_time(target):
            if not target.exists():
                make()
    return target


def fetch(url: str, target: Path, sha256: str = "", progress: bool = False) -> None:
    """Put what `url` holds to `target` at once, when it is there to its end.

    Args:
        sha256: first digits of the content's hash; empty: not checked.
        progress: show a bar.

    Raises:
        DownloadError: the server cannot be reached, falls silent, breaks off, or sends something else.
    """
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            found = _receive(url, part, progress)
        except OSError as error:  # requests' errors are ones too
            raise DownloadError(
                f"{url} could not be fetched ({error}). Fetch it yourself and save it as {target}"
            ) from error
        if not found.startswith(sha256):
            raise DownloadError(f"{url} gave other content than expected (its SHA-256 is {found})")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _receive(url: str, path: Path, progress: bool) -> str:
    """Write what `url` holds to a new file; its SHA-256."""
    digest = hashlib.sha256()
    with requests.get(url, stream=True, timeout=_SILENCE) as response, path.open("xb") as file:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=path.name, disable=not progress) as bar:
            for chunk in response.iter_content(_CHUNK):  # raises where fewer bytes come than were announced
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def download_cached_file(url: str, check_hash: bool = True, progress: bool = False) -> str:
    """Path of a URL's file in the torch hub cache, fetched if it is not there; takes the place of LAVIS's function.

    With `check_hash` the hash that a name like ``vit-5f2ef4d.pth`` announces is compared.
    """
    target = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))
    announced = torch.hub.HASH_REGEX.search(target.name) if check_hash else None
    return str(made_once(target, lambda: fetch(url, target, announced[1] if announced else "", progress)))


def download_url(url: str, root: str, filename: str | None = None) -> None:
    """Fetch a file into the folder `root`, under its own name unless told, if it is not there."""
    target = Path(root, filename or os.path.basename(urlparse(url).path))
    made_once(target, lambda: fetch(url, target))


@contextmanager
def one_at_a_time(target: Path) -> Iterator[None]:
    """Within it no other process is at work on `target`; raises as `made_once`."""
    timeout = float(os.environ.get(TIMEOUT_VARIABLE, _TIMEOUT))
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout)
    except Timeout as error:
        raise DownloadError(
            f"{target}: another process on {socket.gethostname()}, or on a node with the same disk, was not done "
            f"with it in {timeout:g} s ({TIMEOUT_VARIABLE}). See what holds {lock.lock_file}, or put the file there"
        ) from error
    except OSError as error:
        if error.errno != errno.ENOLCK:  # a network disk without locks: several may fetch it, each one the whole
            raise DownloadError(
                f"{target} is not there, and its folder cannot be written ({error}). Put it there, or name a folder "
                "that can: TORCH_HOME (LAVIS's weights), EVLGEN_CACHE (embedded ones), the storage key of a data set"
            ) from error
    try:
        _remove_leftovers(target, older_than=timeout)
        yield
    finally:
        lock.release()


def _remove_leftovers(target: Path, older_than: float) -> None:
    """Parts that killed processes left; a younger one may be another node's, where locks do not reach."""
    for part in target.parent.glob(f".{escape(target.name)}.*.part"):
        if time.time() - part.stat().st_mtime > older_than:
            part.unlink(missing_ok=True)
