"""The part of the Hugging Face hub's HTTP API that runs need, on loopback."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """Repositories by name, each its files; `sizes` are what it says of some instead of the truth."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.downloads: list[str] = []
        self.url = ""

    def revision(self, repo: str) -> str:
        """A hash of the contents, as a commit's."""
        digest = hashlib.sha1()
        for name, raw in sorted(self.repos[repo].items()):
            digest.update(name.encode() + raw)
        return digest.hexdigest()

    def info(self, repo: str) -> dict[str, Any]:
        files = self.repos[repo].items()
        siblings = [{"rfilename": name, "size": self.sizes.get(name, len(raw)), "blobId": "0" * 40} for name, raw in files]
        return {"id": repo, "modelId": repo, "sha": self.revision(repo), "siblings": siblings, "tags": [], "private": False}


def handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def reply(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
            raw = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(raw)), **(headers or {})}.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        def missing(self) -> None:
            self.reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                known = found[1] in hub.repos and found[2] in (None, "main", hub.revision(found[1]))
                self.reply(200, hub.info(found[1])) if known else self.missing()
            elif (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path)) and found[1] in hub.repos:
                if self.command == "GET":
                    hub.downloads.append(found[3])
                raw = hub.repos[found[1]][found[3]]
                self.reply(200, raw, {"X-Repo-Commit": found[2], "ETag": f'"{hashlib.sha1(raw).hexdigest()}"'})
            else:
                self.missing()

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            if self.headers.get("Authorization") != "Bearer hf_token":
                self.reply(401, {"error": "Invalid username or password."})
            elif self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.repos.setdefault(name, {})
                self.reply(200, {"url": f"{hub.url}/{name}", "name": name})
            elif self.path == "/api/validate-yaml":
                self.reply(200, {"errors": [], "warnings": []})
            elif self.path.endswith("/preupload/main"):
                files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
                self.reply(200, {"files": files})
            elif found := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
                lines = [json.loads(line) for line in body.splitlines()]
                added = {v["path"]: base64.b64decode(v["content"]) for v in (x["value"] for x in lines if x["key"] == "file")}
                hub.repos[found[1]] |= added
                revision = hub.revision(found[1])
                self.reply(200, {"commitUrl": f"{hub.url}/{found[1]}/commit/{revision}", "commitOid": revision})
            else:
                self.missing()

    return Handler


@contextmanager
def serving() -> Iterator[FakeHub]:
    """The hub, while it runs."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
