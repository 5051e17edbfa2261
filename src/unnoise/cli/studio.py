"""`unnoise studio`."""

import errno
import importlib.util
import secrets
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say
from unnoise.utils.errors import UserError

PORTS = 20  # that are tried, from the one asked for on


def studio(
    runs: Annotated[Positional[Path], arg(help="the folder that holds runs")] = Path("runs"),
    port: Annotated[int, arg(help="of the page; if it is taken, the next free one")] = 8470,
    host: Annotated[str, arg(help="address to listen on; another than loopback asks each browser for a token")] = "127.0.0.1",
    no_browser: Annotated[bool, arg(help="print the address, and open no browser")] = False,
) -> int:
    """Open the studio: a page to learn, train, watch, sample and restore.

    It is served to this machine alone until Ctrl-C; trainings that it began go on without it.

    Examples: unnoise studio
              unnoise studio my/runs --port 9000 --no-browser
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"the studio needs {' and '.join(missing)}: pip install 'unnoise[studio]'")
    if not 0 < port < 2**16:
        raise UserError(f"--port is a number from 1 to 65535, not {port}")
    if runs.exists() and not runs.is_dir():
        raise UserError(f"'{runs}' is no folder: give the one that holds your runs")
    import uvicorn

    from unnoise.studio.app import create_app

    token, listening = secrets.token_urlsafe(32), _listen(host, port)
    app = create_app(runs.resolve(), token, host)
    address = _address(host, listening.getsockname()[1]) + ("" if app.state.studio.access.is_local else f"?token={token}")
    say(f"the studio of '{runs}': {address}\nCtrl-C ends it; trainings go on")
    if not no_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the first free port from `port` on. Raises UserError where there is none."""
    for candidate in range(port, min(port + PORTS, 2**16)):
        try:
            found = socket.create_server((host, candidate), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                continue
            raise UserError(
                f"can't listen on {host} port {candidate} ({e.strerror or e}): choose another --host or --port"
            ) from e
        if candidate != port:
            say(f"port {port} is taken, so this is {candidate}")
        return found
    raise UserError(f"the ports from {port} to {port + PORTS - 1} are taken: choose another --port")


def _address(host: str, port: int) -> str:
    """Of all of a machine's addresses, its name."""
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
