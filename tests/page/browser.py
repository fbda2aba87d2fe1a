"""Chromium for tests, by its own remote protocol over a web socket: no driver to install."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from chromium import CHROMIUM, OPTIONS

WAIT = 300  # seconds for anything; a page takes milliseconds, a busy machine may take long


class Browser:
    """One tab. ``errors`` has what the console and failed requests said, ``requests`` every address that was asked."""

    def __init__(self, profile: Path) -> None:
        from websockets.sync.client import connect

        own = [f"--user-data-dir={profile}", "--hide-scrollbars", "--remote-debugging-port=0", "about:blank"]
        self._log = (profile.parent / "chromium.log").open("w")
        self._process = subprocess.Popen([str(CHROMIUM), *OPTIONS, *own], stdout=self._log, stderr=self._log)
        place = profile / "DevToolsActivePort"
        self._wait_for(lambda: place.is_file() and place.read_text().count("\n") >= 1, WAIT, "Chromium to start")
        port = place.read_text().splitlines()[0]
        address = self._pages(port)[0]["webSocketDebuggerUrl"]
        self._socket = connect(address, max_size=None)
        self._number = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(WAIT)
        finally:
            self._process.kill()
            self._log.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(WAIT))
            self._note(message)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page, which may be a promise."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, seconds: float = WAIT) -> Any:
        """The value of an expression as soon as it is true."""
        found = []

        def is_true() -> bool:
            found[:] = [self.run(script)]
            return bool(found[0])

        self._wait_for(is_true, seconds, script)
        return found[0]

    def open(self, address: str, width: int = 1280, height: int = 900) -> None:
        self.resize(width, height)
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def resize(self, width: int, height: int = 900) -> None:
        mobile = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def choose_file(self, selector: str, path: Path) -> None:
        """Put a file into an input, as the dialog of a browser does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def drop_file(self, selector: str, path: Path) -> None:
        """Drag a file from a folder of the desktop onto an element, and let it go there."""
        box = self.run(f"JSON.stringify(document.querySelector({selector!r}).getBoundingClientRect())")
        place = json.loads(box)
        at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, data=data, **at)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def screenshot(self, path: Path) -> None:
        taken = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        values = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(values["request"]["url"])
            case "Log.entryAdded" if values["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(values["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if values["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(values["args"]))

    @staticmethod
    def _pages(port: str) -> list[dict[str, Any]]:
        import httpx

        pages = httpx.get(f"http://127.0.0.1:{port}/json", timeout=WAIT).json()
        return [page for page in pages if page["type"] == "page"]

    @staticmethod
    def _wait_for(condition: Any, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for: {what}"
            time.sleep(0.05)


KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13}
