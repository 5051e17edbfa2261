"""What the studio answers once torch is loaded: the addresses below /api, and what their handlers share."""

from pathlib import Path
from typing import Any

from starlette.routing import Route, Router

from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.schedules import SCHEDULES
from unnoise.studio import watch
from unnoise.studio.events import Signal
from unnoise.utils.runtime import choose_device


class Api:
    """`is_local`: the browser is on this machine. `changed` wakes those who wait for the studio's status."""

    def __init__(self, runs: Path, is_local: bool, changed: Signal) -> None:
        self.is_local, self.device = is_local, choose_device()
        self.runs = watch.Runs(runs)
        self.router = Router([Route(path, handler, methods=[method]) for method, path, handler in ROUTES])

    def status(self) -> dict[str, Any]:
        words = {"samplers": list(SAMPLERS), "schedules": list(SCHEDULES)}
        return {"device": self.device, "queued": 0, "busy": False, "words": words}

    def close(self) -> None:
        """Stop what is going on; trainings go on by themselves."""


ROUTES = [
    ("GET", "/runs", watch.list_runs),
    ("GET", "/runs/events", watch.runs_events),
    ("GET", "/runs/{run}", watch.show_run),
    ("GET", "/runs/{run}/events", watch.run_events),
    ("GET", "/runs/{run}/samples/{step:int}.png", watch.show_grid),
]
