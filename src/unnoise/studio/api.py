"""What the studio answers once torch is loaded: the addresses below /api, and what their handlers share."""

import asyncio
from pathlib import Path
from typing import Any

from starlette.routing import Route, Router

from unnoise.diffusion.samplers import SAMPLERS
from unnoise.diffusion.schedules import SCHEDULES
from unnoise.studio import inspect, learn, report, restore, results, sample, toy, train, uploads, watch
from unnoise.studio.jobs import Jobs
from unnoise.studio.models import Models
from unnoise.utils.runtime import choose_device


class Api:
    """`is_local`: the browser is on this machine. `loop` is the one that answers requests."""

    def __init__(self, runs: Path, is_local: bool, loop: asyncio.AbstractEventLoop) -> None:
        self.is_local, self.device = is_local, choose_device()
        self.trainings = train.Trainings(runs)
        self.runs = watch.Runs(runs, self.trainings)
        self.models, self.uploads = Models(self.runs), uploads.Uploads(runs)
        self.uploads.forget(self.runs.data())
        self.jobs, self.interactive = Jobs(loop), learn.Interactive()
        self.router = Router([Route(path, handler, methods=[method]) for method, path, handler in ROUTES], redirect_slashes=False)
        self._words = {"samplers": list(SAMPLERS), "schedules": list(SCHEDULES), "tasks": restore.describe_tasks(),
                       "shapes": list(toy.SHAPES)}  # fmt: skip

    def status(self) -> dict[str, Any]:
        return {"device": self.device, "queued": self.jobs.queued, "busy": self.jobs.busy, "words": self._words}

    def close(self) -> None:
        """Stop what is going on; trainings go on by themselves."""
        self.jobs.close()


ROUTES = [
    ("GET", "/runs", watch.list_runs),
    ("POST", "/runs", train.begin),
    ("GET", "/runs/events", watch.runs_events),
    ("GET", "/runs/{run}", watch.show_run),
    ("DELETE", "/runs/{run}", train.forget),
    ("GET", "/runs/{run}/events", watch.run_events),
    ("GET", "/runs/{run}/samples/{step:int}.png", watch.show_grid),
    ("GET", "/runs/{run}/data/{index:int}", learn.show_image),
    ("GET", "/runs/{run}/report", report.report),
    ("POST", "/runs/{run}/stop", train.stop),
    ("POST", "/runs/{run}/resume", train.resume),
    ("GET", "/compare", report.comparison),
    ("POST", "/inspect", inspect.inspect),
    ("POST", "/uploads", uploads.add_image),
    ("POST", "/folders", uploads.add_folder),
    ("POST", "/folders/{folder}/files", uploads.add_file),
    ("GET", "/learn/{run}/schedule", learn.schedule),
    ("POST", "/learn/denoise", learn.denoise),
    ("POST", "/learn/compare", learn.compare),
    ("POST", "/learn/toy", toy.train_toy),
    ("POST", "/sample", sample.sample),
    ("POST", "/restore", restore.restore),
    ("GET", "/jobs/{job}/events", results.job_events),
    ("DELETE", "/jobs/{job}", results.cancel),
    ("GET", "/jobs/{job}/grid.png", results.grid_png),
    ("GET", "/jobs/{job}/images.npz", results.images_npz),
    ("GET", "/jobs/{job}/trajectory.gif", results.trajectory_gif),
    ("GET", "/jobs/{job}/trajectory/{index:int}", results.trajectory),
    ("GET", "/jobs/{job}/nearest/{index:int}", results.nearest),
]
