"""The server as programs see it: a process of its own, asked over HTTP."""

import io
import json
import socket
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from page.server import Server
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lavis_evlgen import cli
from lavis_evlgen.page.app import listen
from lavis_evlgen.page.examples import examples

WAIT = 300


def png(seed: int, side: int = 60) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def post(server, data: bytes, path: str = "caption", headers=None, **fields) -> httpx.Response:
    files = {"file": ("a.png", data)}
    return httpx.post(f"{server.address}/api/{path}", files=files, data=fields, headers=headers, timeout=WAIT)


def test_it_says_what_it_serves(server, served):
    assert server.address.startswith("http://127.0.0.1:"), "nobody else can reach it"
    found = httpx.get(f"{server.address}/api/models", timeout=WAIT).json()
    names = [each.name for each in served[:2]]
    assert [(each["name"], each["takes"]) for each in found] == [(name, "pictures") for name in names]
    assert found[0]["visual_tokens"] == 17 and found[0]["trained_tokens"] == served[0].trained_tokens
    assert found[0]["budgets"][-1] == 17


def test_captions_answers_and_budgets(server, served, captioner):
    upload = captioner.read(png(0), "").result()
    (first, second) = (each.name for each in served[:2])
    found = post(server, png(0)).json()
    took = found.pop("milliseconds")
    expected = captioner.ask(upload).result()
    assert found == {"model": first, "kind": "picture", "caption": expected.text, "tokens": expected.tokens, "note": ""}
    assert set(took) == {"see", "write"} and sum(took.values()) > 0
    other = post(server, png(0), model=second, tokens="17").json()
    assert (other["model"], other["tokens"]) == (second, 17)
    assert other["caption"] == captioner.ask(upload, second, 17).result().text != expected.text
    answer = post(server, png(0), "answer", question="what?").json()
    assert answer["answer"] == captioner.ask(upload, question="what?").result().text


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"model": "gone"}, 400, "model 'gone' is not served here; known are"),
        ({"tokens": "99"}, 400, "tokens: 17 cannot be merged into 99; choose"),
        ({"tokens": "many"}, 400, "tokens: Input should be a valid integer"),
    ],
)
def test_what_cannot_be_asked(server, fields, code, text):
    answer = post(server, png(0), **fields)
    assert answer.status_code == code and answer.json()["error"].startswith(text)


def test_a_request_without_a_file_or_question(server):
    answer = httpx.post(f"{server.address}/api/caption", timeout=WAIT)
    assert answer.status_code == 400 and answer.json() == {"error": "file: Field required"}
    answer = post(server, png(0), "answer")
    assert answer.status_code == 400 and answer.json() == {"error": "question: Field required"}


def test_what_is_too_large_is_refused_with_and_without_a_length(server):
    answer = post(server, bytes(2_060_000))
    assert answer.status_code == 422 and answer.json()["error"] == "the file has 2.1 MB; the page takes up to 2 MB"
    answer = post(server, bytes(9_000_000))
    text = {"error": "the file is too large; the page takes up to 2 MB"}
    assert answer.status_code == 413 and answer.json() == text

    def pieces():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(90):
            yield bytes(100_000)
        yield b"\r\n--x--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{server.address}/api/caption", content=pieces(), headers=kind, timeout=WAIT)
    assert answer.status_code == 413 and answer.json() == text


def test_eight_people_at_once_all_get_an_answer(server, captioner):
    """Five pictures, a text, a picture that was cut off, and one that is too large, all sent at the same time."""
    good = [png(seed) for seed in range(5)]
    sent = [good[0], b"this is a text", good[1], good[2][:900], good[3], bytes(3_000_000), good[4], good[0]]
    with ThreadPoolExecutor(len(sent)) as people:
        answers = list(people.map(lambda data: post(server, data), sent))
    assert [each.status_code for each in answers] == [200, 422, 200, 422, 200, 413, 200, 200]
    expected = [captioner.ask(captioner.read(data, "").result()).result().text for data in good]
    captions = [answers[place].json()["caption"] for place in (0, 2, 4, 6)]
    assert captions == [expected[number] for number in (0, 1, 3, 4)] and answers[7].json()["caption"] == expected[0]
    assert answers[1].json()["error"].startswith("this is no picture or clip that can be read")
    assert answers[3].json()["error"].startswith("the picture cannot be read")
    assert post(server, good[0]).json()["caption"] == expected[0], "the server lives on"


def test_a_page_outlasts_half_a_minute_of_silence(server):
    """What the server tells a browser when it connects: how often it asks, and how long it waits for an answer."""
    asked = {"EIO": 4, "transport": "polling"}
    said = httpx.get(f"{server.address}/_nicegui_ws/socket.io/", params=asked, timeout=WAIT).text
    found = json.loads(said.removeprefix("0"))
    assert found["pingInterval"] + found["pingTimeout"] >= 30_000


def test_pages_that_would_load_scripts_from_elsewhere_are_off(server):
    for path in ("docs", "redoc", "openapi.json"):
        assert httpx.get(f"{server.address}/{path}", timeout=WAIT).status_code == 404


def test_pages_of_other_sites_may_not_ask(server):
    own = server.address.removeprefix("http://")
    assert post(server, png(0), headers={"Origin": server.address}).status_code == 200
    answer = post(server, png(0), headers={"Origin": "https://evil.example"})
    text = "pages of https://evil.example may not ask this one; if they are your own, start it with --allow-host "
    assert answer.status_code == 403 and answer.json()["error"] == text + "evil.example"
    for host, code in {own: 200, "localhost": 200, "evil.example": 403, f"evil.example:{own[-5:]}": 403}.items():
        assert httpx.get(server.address, headers={"Host": host}).status_code == code, host


def test_web_sockets_of_other_sites_are_refused(server):
    address = server.address.replace("http", "ws") + "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    with connect(address, origin=server.address) as own:
        assert own.recv(timeout=WAIT).startswith("0{"), "the greeting of Engine.IO"
    named = address.replace("127.0.0.1", "evil.example")
    for asked, origin in ((address, "http://evil.example"), (named, None)):
        there = socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2])))
        with pytest.raises(InvalidStatus) as error:
            connect(asked, sock=there, origin=origin)
        assert error.value.response.status_code == 403


def test_a_port_in_use_is_told_before_models_are_loaded(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port), "--checkpoint", "gone.pth"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: cannot listen there ("), "no word of gone.pth"
    assert error.endswith("); choose another --port\n")


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_another_machine(host, capsys):
    assert cli.main(["serve", "--host", host, "--port", "0"]) == 2
    assert f"--host {host} --port 0: cannot listen there" in capsys.readouterr().err


def test_limits_must_let_something_in(capsys):
    assert cli.main(["serve", "--max-mb", "0"]) == 2
    assert "--max-mb 0: must be more than 0" in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    assert cli.main(["serve"]) == 2
    error = "error: the page needs NiceGUI, which is not installed; run: pip install nicegui\n"
    assert capsys.readouterr().err == error


def test_a_port_is_listened_at_only_when_the_page_is_ready():
    found = listen("127.0.0.1", 0)
    with socket.socket() as client:
        assert client.connect_ex(found.getsockname()) != 0
    found.close()


@pytest.mark.slow
def test_a_page_for_the_network_warns_and_ends_on_interrupt(checkpoints, tmp_path):
    server = Server(tmp_path, "--host", "0.0.0.0", "--checkpoint", str(checkpoints["image"]))
    assert "warning: --host 0.0.0.0 lets everyone who reaches this machine use the page" in server.said()
    assert f"http://{socket.gethostname()}:" in server.address
    assert server.stop() == 0 and "Traceback" not in server.said()


@pytest.mark.slow
def test_the_shipped_model_answers_in_three_seconds(tmp_path):
    server = Server(tmp_path)
    try:
        (name,) = (each["name"] for each in httpx.get(f"{server.address}/api/models").json())
        seconds = []
        for example in examples():
            data = io.BytesIO()
            example.picture.save(data, "PNG")
            start = time.monotonic()
            assert "background" in post(server, data.getvalue()).json()["caption"]
            seconds.append(time.monotonic() - start)
        assert name == "evlgen demo" and statistics.median(seconds) < 3
    finally:
        server.process.kill()
