"""A small stand-in for a Hugging Face hub on 127.0.0.1: repositories of one commit, small files."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Hub:
    """What the fake holds: by repository, its files. `asked` are the requests so far."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.token: str | None = None

    def commit(self, repo: str) -> str:
        content = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.repositories[repo].items())
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = self._parts()
            repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            files = hub.repositories.get(repo)
            if files is None:
                self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            elif parts[0] == "api":
                siblings = [{"rfilename": name} for name in files]
                self._answer(200, {"id": repo, "sha": hub.commit(repo), "siblings": siblings, "tags": []})
            else:
                data = files["/".join(parts[4:])]
                head = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": hub.commit(repo)}
                self._answer(200, data, head)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            parts, body = self._parts(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._answer(401, {"error": "Invalid credentials in Authorization header"})
            elif parts[:3] == ["api", "repos", "create"]:
                content = json.loads(body)
                repo = f"{content['organization']}/{content['name']}"
                hub.repositories.setdefault(repo, {})
                self._answer(200, {"url": f"http://{self.headers['Host']}/{repo}"})
            elif parts == ["api", "validate-yaml"]:  # the client sends the card's front matter before the files
                self._answer(200, {"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
                self._answer(200, {"files": [{k: v for k, v in file.items() if k != "sample"} for file in files]})
            else:
                repo = "/".join(parts[2:4])
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        file = line["value"]
                        hub.repositories[repo][file["path"]] = base64.b64decode(file["content"])
                oid = hub.commit(repo)
                url = f"http://{self.headers['Host']}/{repo}/commit/{oid}"
                self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

        def _parts(self) -> list[str]:
            hub.asked.append(f"{self.command} {self.path}")
            return unquote(self.path.split("?")[0]).strip("/").split("/")

        def _answer(self, status: int, content: object, head: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(head or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    return Handler


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """The address at which a thread serves the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
