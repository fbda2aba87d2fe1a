"""Who may ask: programs, and the page itself, but no page of another site that a visitor's browser has open.

Such a site can send requests to whatever the browser reaches, also to 127.0.0.1, and where it lets a name of its own
lead there it could read the answers (DNS rebinding). Its requests carry its name, as their origin or as the host asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class CallersLimit:
    """Answers requests of other sites' pages with 403.

    Args:
        local: the page listens to this machine alone: whoever asks for it by a name other than localhost is refused.
        names: further hosts to answer to, such as that of a reverse proxy.
    """

    def __init__(self, app: ASGIApp, local: bool, names: Sequence[str] = ()) -> None:
        self.app, self.local, self.names = app, local, {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        reason = self.refusal(headers.get(b"host", ""), headers.get(b"origin"))
        if reason is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await JSONResponse({"error": reason}, 403)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403

    def refusal(self, host: str, origin: str | None) -> str | None:
        """Why a request with these headers is refused; None where it isn't."""
        asked = host_name(f"//{host}")
        if self.local and asked and not (_is_plain(asked) or asked in self.names):
            return f"the page does not answer as {asked!r}; open it as localhost, or start it with --allow-host {asked}"
        asking = asked if origin is None else host_name(origin)
        if asking != asked and asking not in self.names:
            own = f"; if they are your own, start it with --allow-host {asking}" if asking else ""
            return f"pages of {origin} may not ask this one{own}"
        return None


def host_name(address: str) -> str:
    """The host of an address, in small letters; "" where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def is_local(host: str) -> bool:
    """Whether a name or address leads to this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_plain(host: str) -> bool:
    """No name that anybody could let lead here."""
    try:
        return bool(ip_address(host))
    except ValueError:
        return is_local(host)
