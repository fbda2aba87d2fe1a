"""The server: limits on what is sent, the same answers for programs as for people, and how it starts and ends."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Form, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lavis_evlgen.errors import ConfigError, DataError, EvlgenError
from lavis_evlgen.page.callers import is_local
from lavis_evlgen.page.captioner import BusyError, Captioner
from lavis_evlgen.page.served import budgets

FORM = 100_000  # bytes that a request may have beside the file
DROPPED = 20  # times the limit that is read of a body which is too large, and dropped
Model = Annotated[str | None, Form()]
Tokens = Annotated[int | None, Form()]
STATUS: dict[type[EvlgenError], int] = {BusyError: 503, DataError: 422, ConfigError: 400}


class BodyLimit:
    """Answers a request whose body is too large with 413. What comes after the limit is dropped as it comes: a client
    that could not send all of its request would not read the answer."""

    def __init__(self, app: ASGIApp, most_bytes: int, text: str) -> None:
        self.app, self.most_bytes, self.text = app, most_bytes, text

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = said.isdigit() and int(said) > self.most_bytes
        size, more = 0, True

        async def counted() -> Message:
            nonlocal size, more, too_large
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
            too_large = too_large or size > self.most_bytes
            return {"type": "http.disconnect"} if too_large else message

        async def passed(message: Message) -> None:
            if not too_large:
                await send(message)

        if not too_large:
            try:
                await self.app(scope, counted, passed)
            except ClientDisconnect:
                if not too_large:
                    raise
        if too_large:
            while more and size < DROPPED * self.most_bytes:
                await counted()
            await JSONResponse({"error": self.text}, 413)(scope, receive, send)


def build_app(captioner: Captioner) -> FastAPI:
    """The routes for programs; `view.add_page` adds the page."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # their pages load scripts from elsewhere
    limits = captioner.limits
    text = f"the file is too large; the page takes up to {limits.megabytes:g} MB"
    app.add_middleware(BodyLimit, most_bytes=limits.bytes + FORM, text=text)

    @app.exception_handler(EvlgenError)
    async def said(_request: Request, error: EvlgenError) -> JSONResponse:
        code = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        return JSONResponse({"error": str(error)}, code)

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return JSONResponse({"error": wrong}, 400)

    @app.get("/api/models")
    async def models() -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "takes": "clips" if each.takes_clips else "pictures",
                "visual_tokens": each.visual_tokens,
                "trained_tokens": each.trained_tokens,
                "budgets": budgets(each),
            }
            for each in captioner.served
        ]

    @app.post("/api/caption")
    async def caption(file: UploadFile, model: Model = None, tokens: Tokens = None) -> dict[str, Any]:
        return await _described(captioner, file, model, tokens, None)

    @app.post("/api/answer")
    async def answer(
        file: UploadFile, question: Annotated[str, Form()], model: Model = None, tokens: Tokens = None
    ) -> dict[str, Any]:
        return await _described(captioner, file, model, tokens, question)

    return app


async def _described(
    captioner: Captioner, file: UploadFile, model: str | None, tokens: int | None, question: str | None
) -> dict[str, Any]:
    upload = await asyncio.wrap_future(captioner.read(await file.read(), file.filename or ""))
    answer = await asyncio.wrap_future(captioner.ask(upload, model, tokens, question))
    name = model or captioner.served[0].name
    return {
        "model": name,
        "kind": upload.kind,
        "caption" if question is None else "answer": answer.text,
        "tokens": answer.tokens,
        "milliseconds": {"see": round(answer.see_seconds * 1000), "write": round(answer.write_seconds * 1000)},
        "note": upload.notes[name],
    }


def listen(host: str, port: int) -> socket.socket:
    """A socket on which nobody listens as yet, so that a port in use is told before models are loaded.

    Raises:
        ConfigError: the port is in use or not allowed, or this machine has no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen there ({error}); choose another --port"
        ) from error
    return found


def serve(app: FastAPI, at: socket.socket, say: Callable[[str], None] = print) -> None:
    """Answer until interrupted (Ctrl+C)."""
    host, port = at.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    if not is_local(host):
        print(
            f"warning: --host {host} lets everyone who reaches this machine use the page, without a password; "
            "leave it out to keep the page to this machine",
            file=sys.stderr,
        )
        name = socket.gethostname() if host in ("0.0.0.0", "::") else name
    at.listen()  # whoever comes from now on waits for the server to start
    say(f"open http://{name}:{port} in a browser; Ctrl+C ends the page")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    server.run(sockets=[at])
