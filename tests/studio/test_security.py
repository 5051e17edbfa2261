"""Who is let in, and what no request can do: attacks on the studio."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.studio.conftest import TOKEN, Browser, Served
from unnoise.studio.app import create_app
from unnoise.studio.security import COOKIE

SITES = [
    ({"host": "evil.example"}, 403), ({"host": "evil.example:8470"}, 403), ({"host": "127.0.0.1.evil.example"}, 403),
    ({"host": "localhost.:80"}, 403), ({"host": "127.0.0.1:80@evil.example"}, 403), ({"host": ""}, 403),
    ({"host": "2130706433"}, 403), ({"host": "192.168.1.7"}, 403), ({"origin": "null"}, 403),
    ({"origin": "http://evil.example"}, 403), ({"origin": "https://127.0.0.1"}, 403), ({"origin": "http://127.0.0.1:1"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403), ({"sec-fetch-site": "same-site"}, 403),
    ({"host": "localhost"}, 200), ({"host": "[::1]:8470"}, 200), ({"sec-fetch-site": "same-origin"}, 200),
    ({"origin": "http://127.0.0.1"}, 200), ({"sec-fetch-site": "none"}, 200),
]  # fmt: skip


@pytest.fixture
def local(tmp_path: Path) -> TestClient:
    """A studio on loopback that does not load torch, as it is not begun."""
    return TestClient(create_app(tmp_path, TOKEN), base_url="http://127.0.0.1")


@pytest.fixture
def remote(tmp_path: Path) -> TestClient:
    """The same, on another address."""
    return TestClient(create_app(tmp_path, TOKEN, "0.0.0.0"), base_url="http://192.168.1.7")


@pytest.mark.parametrize(("headers", "status"), SITES, ids=[str(s) for s, _ in SITES])
@pytest.mark.parametrize("path", ["/", "/api/status", "/static/index.html"])
def test_other_sites_are_refused(local: TestClient, path: str, headers: dict[str, str], status: int) -> None:
    """Also GETs, which carry no Origin where a site lets its own name point here (DNS rebinding)."""
    assert local.get(path, headers=headers).status_code == status


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("token", ["", "wrong", TOKEN + " ", TOKEN.upper(), "\u00e9"])
def test_writing_needs_the_token(local: TestClient, method: str, token: str) -> None:
    headers = [(b"x-unnoise-token", token.encode("latin-1"))] if token else []
    for path in ("/api/runs", "/api/jobs/0", "/", "/api/uploads"):
        assert local.request(method, path, headers=headers).status_code == 403


def test_a_session_without_the_token_can_not_write(remote: TestClient) -> None:
    remote.cookies.set(COOKIE, TOKEN)
    assert remote.get("/api/status").status_code == 200
    assert remote.post("/api/runs", json={}).status_code == 403


def test_other_machines_need_the_token_for_everything(remote: TestClient) -> None:
    for path in ("/", "/api/status", "/static/index.html", "/?token=wrong", "/?token="):
        answer = remote.get(path)
        assert answer.status_code == 401, path
        assert TOKEN not in answer.text
    answer = remote.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=strict"} <= set(answer.headers["set-cookie"].lower().split("; "))
    assert remote.get("/").status_code == 200, "by its cookie"
    assert remote.get("/", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/status", "/static/index.html", "/nothing", "/api/runs"])
def test_every_answer_has_the_headers(browser: Browser, path: str) -> None:
    headers = browser.client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert "access-control-allow-origin" not in headers and "server" not in headers


def test_reports_are_kept_apart_from_the_page(browser: Browser) -> None:
    policy = browser.client.get("/api/runs/digits/report").headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy and "connect-src" not in policy and "default-src 'none'" in policy


NAMES = ["%2e%2e", "%2e", "%2e%2e%2fdigits", "..%2f..%2fetc", "%2fetc", "digits%2f..%2f..", "digits%00", ".studio", "x" * 500,
         "digits%5c..", "C%3a", "~", "*"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_of_runs_lead_nowhere(browser: Browser, name: str) -> None:
    for path in ("", "/events", "/samples/0.png", "/report", "/data/0"):
        assert browser.client.get(f"/api/runs/{name}{path}").status_code in (404, 405)
    for path in ("/stop", "/resume"):
        assert browser.client.post(f"/api/runs/{name}{path}", json={}).status_code in (404, 405)
    assert browser.client.get(f"/api/learn/{name}/schedule").status_code == 404
    assert browser.client.get(f"/api/compare?run=digits&run={name}").status_code == 404


@pytest.mark.parametrize("name", ["..", "../digits", "/etc/passwd", ".studio", "digits/..", "digits\0", "", "x" * 500])
def test_runs_in_fields_lead_nowhere(browser: Browser, name: str) -> None:
    start = {"image": {"data": 0}, "t": 0.5}
    fields: dict[str, dict[str, Any]] = {"/api/sample": {}, "/api/learn/denoise": start, "/api/learn/compare": {"a": {}, "b": {}},
                                         "/api/restore": {"task": "denoise", "image": {"data": 0}}}  # fmt: skip
    for path, others in fields.items():
        status, said = browser.refused("POST", path, json={"run": name, **others})
        assert status in (400, 404), said
    status, _ = browser.refused("POST", "/api/runs", json={"data": "digits", "name": name})
    assert status == 400


def test_links_in_the_folder_of_runs_are_no_runs(browser: Browser, runs: Path, tmp_path: Path) -> None:
    link = runs / "linked"
    link.symlink_to(runs / "digits")
    try:
        assert browser.refused("GET", "/api/runs/linked")[0] == 404
        assert "linked" not in [run["name"] for run in browser.get("/api/runs")]
    finally:
        link.unlink()


STATIC = ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd", "/static/%2fetc%2fpasswd"]


@pytest.mark.parametrize("path", STATIC)
def test_static_files_are_all_that_is_served(studio: Served, path: str) -> None:
    """By a socket, since clients shorten such paths themselves."""
    host, port = studio.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split()[1] in (b"404", b"400"), answer[:200]
    assert b"def create_app" not in answer and b"root:" not in answer


BODIES = [
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b"[" * 10**5,
    b'{"run":' * 10**4,
    b'{"t": NaN}',
    b'{"t": 1' + b"0" * 5000 + b"}",
]


@pytest.mark.parametrize("body", BODIES, ids=[str(b[:12]) for b in BODIES])
def test_json_that_is_none(browser: Browser, body: bytes) -> None:
    for path in ("/api/sample", "/api/runs", "/api/inspect", "/api/restore"):
        assert browser.refused("POST", path, content=body)[0] == 400


def test_ten_megabytes_of_json(browser: Browser) -> None:
    body = json.dumps({"run": "x" * 10**7}).encode()
    status, said = browser.refused("POST", "/api/sample", content=body)
    assert status == 413 and "larger than 1 MiB" in said


NUMBERS = [
    ("/api/sample", "count", [0, -1, 65, 10**30, 1.5, "4", True, None, [4], 1e308]),
    ("/api/sample", "steps", [0, -5, 1001, 10**30, 2.5, "20"]),
    ("/api/sample", "seed", [-1, 10**30, 0.5, "0"]),
    ("/api/sample", "guidance", [-1, 1e9, "2", True]),
    ("/api/learn/denoise", "t", [-0.1, 1.1, 1e300, "0.5", None, True]),
    ("/api/learn/toy", "seconds", [0, -3, 21, 1e9]),
    ("/api/restore", "samples", [0, 17, -1, 1e9]),
    ("/api/restore", "sigma", [-1, 0, 1e9, "25"]),
    ("/api/runs", "size", [0, 7, 513, -64, 10**9, "64"]),
    ("/api/runs", "minutes", [0, -1, 1e30, "1"]),
]  # fmt: skip
REST: dict[str, dict[str, Any]] = {
    "/api/sample": {"run": "digits"}, "/api/learn/denoise": {"run": "digits", "image": {"data": 0}, "t": 0.5},
    "/api/learn/toy": {"shape": "circle"}, "/api/restore": {"run": "digits", "task": "denoise", "image": {"data": 0}},
    "/api/runs": {"data": "digits"},
}  # fmt: skip


@pytest.mark.parametrize(("path", "field", "values"), NUMBERS, ids=[f"{path} {field}" for path, field, _ in NUMBERS])
def test_numbers_that_nobody_means(browser: Browser, path: str, field: str, values: list[Any]) -> None:
    for value in values:
        if value is None and field != "t":  # as if it were not given
            continue
        status, said = browser.refused("POST", path, json=REST[path] | {field: value})
        assert status == 400 and f"'{field}' must be" in said, (value, said)


def test_unknown_fields_are_refused(browser: Browser) -> None:
    for path, rest in REST.items():
        status, said = browser.refused("POST", path, json=rest | {"semple": 1})
        assert status == 400 and "unknown field 'semple'" in said, path


@pytest.mark.parametrize(
    "data", ["hf:somebody/images", "--run", "-x", "/proc/self/mem", "", "\0", "x" * 5000, {"folder": "../.."}, {}]
)
def test_data_that_is_none(browser: Browser, data: Any) -> None:
    """What begins with a dash is a path, and no option of the command."""
    asked = {"path": data} if isinstance(data, str) else data
    assert browser.refused("POST", "/api/inspect", json=asked)[0] in (400, 404)
    assert browser.refused("POST", "/api/runs", json={"data": data})[0] in (400, 404)


def test_other_machines_name_no_paths(tmp_path: Path) -> None:
    with TestClient(create_app(tmp_path, TOKEN, "0.0.0.0"), base_url="http://192.168.1.7") as client:
        client.get("/api/status", headers={"x-unnoise-token": TOKEN})
        answer = client.post("/api/inspect", json={"path": str(tmp_path)}, headers={"x-unnoise-token": TOKEN})
    assert answer.status_code == 403 and "drop a folder instead" in answer.json()["error"]


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every address that this process connects to, but for this machine's."""
    found: list[Any] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def resolved(host: Any, *others: Any, **more: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            found.append(host)
        return resolve(host, *others, **more)

    def watched(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1"):
            found.append(address)
            raise OSError("no network in this test")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watched)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    yield found


def test_nothing_leaves_the_machine(browser: Browser, connections: list[Any]) -> None:
    browser.get("/api/status")
    browser.get("/api/runs")
    browser.get("/api/runs/digits/report")
    browser.post("/api/inspect", path="digits")
    browser.job("/api/sample", run="digits", count=2, steps=2)
    browser.job("/api/restore", run="digits", task="denoise", image={"data": 0}, degrade=True, samples=2)
    browser.refused("POST", "/api/inspect", json={"path": "cifar10"})
    assert connections == []


def test_the_page_is_there_before_torch(tmp_path: Path) -> None:
    """Without the lifespan nothing is loaded, and the page and its status are answered all the same."""
    client = TestClient(create_app(tmp_path, TOKEN), base_url="http://127.0.0.1")
    begun = time.perf_counter()
    assert f'content="{TOKEN}"' in client.get("/").text
    assert client.get("/api/status").json()["torch"] == "loading"
    assert time.perf_counter() - begun < 0.3


def test_addresses_with_many_fields(local: TestClient) -> None:
    assert local.get("/?" + "&".join(["a=1"] * 5000)).status_code == 200


def test_websockets_are_closed(local: TestClient) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), local.websocket_connect("/api/status"):
        pass


def test_bodies_without_an_end(studio: Served) -> None:
    """A body that never ends is cut, whatever its length is said to be."""

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 2**20

    with httpx2.Client(base_url=studio.address, headers={"X-Unnoise-Token": TOKEN}) as client:
        try:
            status = client.post("/api/sample", content=endless()).status_code
        except httpx2.WriteError:  # the server has closed the connection
            status = 413
    assert status == 413
