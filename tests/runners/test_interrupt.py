"""A wish to stop is heard wherever the run is, and what it waits for cannot hold it up."""

import os
import signal
import threading
import time

import pytest
import tiny_lavis
from tiny_runs import losses, rows

from lavis_evlgen.runners import interrupt
from lavis_evlgen.runners.interrupt import StopSignal, end_with_agent, pass_on

LIMIT = 0.3


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(interrupt, "WAIT_SECONDS", LIMIT)


def left_after(wait) -> float:
    """Seconds until ``wait`` ended the process."""
    began = time.monotonic()
    with pytest.raises(SystemExit) as left:
        wait()
    assert left.value.code == 143
    return time.monotonic() - began


def blocked(stop: StopSignal) -> None:
    with stop.waiting():
        time.sleep(30)


def test_a_signal_before_the_wait_ends_it_too(caplog):
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert LIMIT <= left_after(lambda: blocked(stop)) < 10
    assert "no data came within 0.3 s: leaving with the last checkpoint as it is" in caplog.text


def test_the_wish_of_another_rank_ends_a_wait():
    """The watchdog's thread passes it on."""
    with StopSignal() as stop:
        other = threading.Timer(0.2, pass_on, [["rank 1"]])
        other.start()
        assert 0.2 + LIMIT <= left_after(lambda: blocked(stop)) < 10


def test_further_signals_do_not_put_the_end_off():
    left = threading.Event()

    def again_and_again():
        while not left.wait(LIMIT / 3):
            os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=again_and_again)
    with StopSignal() as stop:
        sender.start()
        assert left_after(lambda: blocked(stop)) < 20
        left.set()
        sender.join()


def test_the_end_of_torchruns_agent_is_a_stop_signal():
    """A process whose parent is ended by SIGUSR1, which torchrun does not pass on."""
    reader, writer = os.pipe()
    agent = os.fork()
    if not agent:
        if not os.fork():
            with StopSignal() as stop:
                end_with_agent({"TORCHELASTIC_RUN_ID": "none"})
                os.write(writer, b"ready ")
                end = time.monotonic() + 60
                while not stop.requested and time.monotonic() < end:
                    time.sleep(0.01)
                os.write(writer, b"told" if stop.requested else b"left alone")
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 6) == b"ready "
    os.kill(agent, signal.SIGUSR1)
    assert os.waitstatus_to_exitcode(os.waitpid(agent, 0)[1]) == -signal.SIGUSR1
    assert os.read(reader, 100) == b"told"


def test_data_that_came_in_time_ends_nothing(monkeypatch):
    monkeypatch.setattr(interrupt, "WAIT_SECONDS", 1.0)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with stop.waiting():
            time.sleep(0.05)
        time.sleep(1.2)
    assert stop.requested


def in_validation(monkeypatch, action) -> None:
    """Do something, once, when the first picture of the validation split is read."""
    original, done = tiny_lavis.TinyData.__getitem__, []

    def get(self, index):
        if len(self) == 12 and not done:
            done.append(index)
            action()
        return original(self, index)

    monkeypatch.setattr(tiny_lavis.TinyData, "__getitem__", get)


def test_a_signal_while_held_out_pictures_are_read_saves_the_step(config, train, tmp_path, monkeypatch):
    options = {"iters_per_inner_epoch": 12, "health_freq": 3, "valid_splits": ["val"]}
    train(config("whole", **options))
    argv = config(**options)
    with monkeypatch.context() as patch:
        in_validation(patch, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(argv)
    assert (tmp_path / "out" / "checkpoint_4.pth").is_file()
    assert [row["iters"] for row in rows(tmp_path / "out")] == [1, 2, 3, 4]
    train(argv)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    gaps = [[(row["iters"], row["gap"]) for row in rows(tmp_path / out, "gap")] for out in ("out", "whole")]
    assert gaps[0] == gaps[1] and len(gaps[0]) == 4


def test_an_evaluation_that_hangs_is_left(config, train, tmp_path, monkeypatch, caplog):
    def hang():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    in_validation(monkeypatch, hang)
    assert left_after(lambda: train(config(max_iters=4, valid_splits=["val"]))) < 20
    assert "the evaluation of val did not end within 0.3 s" in caplog.text
    assert (tmp_path / "out" / "checkpoint_4.pth").is_file()
