"""Watching runs: what their folders say now, and what has changed there, looked at once a second and only where it is new."""

import asyncio
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from unnoise.recipe import RunInfo
from unnoise.registry import to_json
from unnoise.reports.words import source_title
from unnoise.run_folder import RunFolder
from unnoise.runs.lock import writing_process
from unnoise.studio import events
from unnoise.studio.errors import Refusal
from unnoise.studio.requests import api_of
from unnoise.studio.tail import Tail, Thinned
from unnoise.utils.errors import UserError

if TYPE_CHECKING:
    from unnoise.studio.train import Trainings

EVERY = 1.0  # seconds between two looks
RECENT = 50  # steps of which the mean loss and speed are shown
POINTS = 2000  # of a curve that is sent at once
NAME = re.compile(r"\w[\w.-]{0,79}")  # of a run: no hidden folder, nothing that leads elsewhere
Json = dict[str, Any]


class Runs:
    """The runs in a folder, and what was last seen of each."""

    def __init__(self, root: Path, trainings: "Trainings") -> None:
        self.root, self._trainings = root, trainings
        self._seen: dict[str, Seen] = {}
        self._lock = threading.Lock()

    def folder(self, name: str) -> Path:
        """The folder of a run. Raises Refusal for any other name, and for links."""
        path = self.root / name
        if not NAME.fullmatch(name) or path.is_symlink() or not (path / "recipe.json").is_file():
            raise Refusal(404, f"there is no run '{name[:80]}' in {self.root}: choose one of the list")
        return path

    def open(self, name: str) -> RunFolder:
        """The same, refusing links within. Raises UserError."""
        return RunFolder.open(self.folder(name))

    def look(self) -> list[Json]:
        """All runs, the last changed first, those among them that are about to begin."""
        with self._lock:  # several pages may look at once
            return self._look()

    def _look(self) -> list[Json]:
        found = [p.parent for p in self.root.glob("*/recipe.json") if NAME.fullmatch(p.parent.name) and not p.parent.is_symlink()]
        self._seen = {p.name: self._seen.get(p.name) or Seen(p) for p in found}
        lines = [self._with_error(seen.look()) for seen in self._seen.values()] + self._trainings.pending()
        return sorted(lines, key=lambda run: (-run["updated"], run["name"]))

    def data(self) -> Iterator[Path]:
        """Where the images of the runs lie."""
        self.look()
        for seen in self._seen.values():
            place = None if seen.info is None else getattr(seen.info.recipe.data.source, "path", None)
            if isinstance(place, str):
                yield Path(place)

    def _with_error(self, run: Json) -> Json:
        """With the reason why its training ended, where that was no plan."""
        failed = None if run["error"] or run["state"] == "training" else self._trainings.error(run["name"])
        return run | {"error": failed} if failed else run


class Seen:
    """What was last seen of one run."""

    def __init__(self, path: Path) -> None:
        self.folder, self._recipe = RunFolder(path), -1
        self.info: RunInfo | None = None
        self._error: str | None = None
        self._metrics, self._held_out = Tail(self.folder.metrics), Tail(self.folder.held_out)
        self._recent = deque[Json](maxlen=RECENT)
        self.best: float | None = None

    def look(self) -> Json:
        """As a line of the list of runs."""
        self._read()
        last = self._recent[-1] if self._recent else {}
        step, total = last.get("step", 0), last.get("total") or (None if self.info is None else self.info.total_steps)
        training = writing_process(self.folder.path) is not None
        speed, grids = self._mean("images_per_second"), list(self.folder.grids())
        known = self.info is not None and self._error is None
        state = "damaged" if not known else "training" if training else "finished" if total and step >= total else "stopped"
        return {"name": self.folder.path.name, "state": state, "step": step, "total_steps": total,
                "loss": self._mean("loss"), "images_per_second": speed,
                "seconds_left": self._seconds_left(step, total, speed) if training else None,
                "updated": self._updated(), "error": self._error,
                "thumbnail": self._grid_url(grids[-1]) if grids else None, **self._described()}  # fmt: skip

    def _read(self) -> None:
        try:
            changed = self.folder.recipe.stat().st_mtime_ns
            if changed != self._recipe:
                self._recipe, self._error = changed, None
                self.info = RunFolder.open(self.folder.path).read_info()
        except (UserError, OSError) as e:
            self._error = str(e)
        for records, anew in self._metrics.parts():
            if anew:
                self._recent.clear()
            self._recent.extend(records)
        for records, anew in self._held_out.parts():
            losses = [r["loss"] for r in records if isinstance(r.get("loss"), int | float)]
            self.best = min([*losses, *([self.best] if self.best is not None and not anew else [])], default=None)

    def _mean(self, name: str) -> float | None:
        values = [r[name] for r in self._recent if isinstance(r.get(name), int | float)]
        return sum(values) / len(values) if values else None

    def _seconds_left(self, step: int, total: int | None, speed: float | None) -> float | None:
        if self.info is None or not total or not speed:
            return None
        return max(0, total - step) * self.info.recipe.training.batch / speed

    def _updated(self) -> float:
        """When the run last changed, in seconds since 1970."""
        times = [p.stat().st_mtime for p in (self.folder.recipe, self.folder.metrics) if p.exists()]
        return max(times, default=0.0)

    def _described(self) -> Json:
        if self.info is None:
            return {"size": None, "channels": None, "classes": [], "data": None}
        c, h, w = self.info.shape
        return {"size": [h, w], "channels": c, "classes": list(self.info.classes),
                "data": source_title(self.info.recipe.data.source)}  # fmt: skip

    def _grid_url(self, step: int) -> str:
        return f"/api/runs/{self.folder.path.name}/samples/{step}.png"

    def samples(self) -> list[Json]:
        """The grids of samples in order."""
        return [{"step": step, "url": self._grid_url(step)} for step in self.folder.grids()]

    def details(self) -> Json:
        """The line of the list, and all else."""
        found = self.look()
        if self.info is None or self._error is not None:
            return found
        recipe: Json = to_json(self.info.recipe)
        sampling = recipe["sampling"]
        shown = {
            "sampler": sampling["sampler"]["name"],
            "steps": sampling["steps"],
            "guidance": sampling["guidance"].get("scale"),
        }
        return found | {"recipe": recipe, "sampling": shown, "samples": self.samples(), "best": self.best,
                        "evaluation": self.folder.evaluation.is_file()}  # fmt: skip


async def list_runs(request: Request) -> Response:
    return JSONResponse(await asyncio.to_thread(api_of(request).runs.look))


async def runs_events(request: Request) -> StreamingResponse:
    return events.stream(_lists(api_of(request).runs))


async def _lists(runs: Runs) -> AsyncIterator[bytes]:
    sent: list[Json] | None = None
    while True:
        found = await asyncio.to_thread(runs.look)
        yield events.encode("runs", found) if found != sent else events.COMMENT
        sent = found
        await asyncio.sleep(EVERY)


async def show_run(request: Request) -> Response:
    path = api_of(request).runs.folder(request.path_params["run"])
    return JSONResponse(await asyncio.to_thread(Seen(path).details))


async def show_grid(request: Request) -> Response:
    folder = api_of(request).runs.open(request.path_params["run"])
    path = folder.grids().get(request.path_params["step"])
    if path is None:
        raise Refusal(404, f"'{folder.path.name}' has no samples of this step: reload the page")
    return FileResponse(path, media_type="image/png")


async def run_events(request: Request) -> StreamingResponse:
    return events.stream(_changes(api_of(request).runs.folder(request.path_params["run"])))


async def _changes(path: Path) -> AsyncIterator[bytes]:
    """What changes in one run, looked at once a second."""
    look = Changes(path)
    while path.is_dir():
        found = await asyncio.to_thread(look)
        for name, data in found:
            yield events.encode(name, data)
        if not found:
            yield events.COMMENT
        await asyncio.sleep(EVERY)


class Changes:
    """Each call gives the events of one run since the last one; the first gives all there is, curves thinned."""

    def __init__(self, path: Path) -> None:
        self.seen, self._samples, self._state = Seen(path), list[Json](), Json()
        self._tails = {"metrics": (Tail(self.seen.folder.metrics), ("step", "loss")),
                       "held_out": (Tail(self.seen.folder.held_out), ("step", "loss", "copy_rate"))}  # fmt: skip

    def __call__(self) -> list[tuple[str, Json]]:
        found = [(name, lines) for name in self._tails if (lines := self._lines(name))]
        if (samples := self.seen.samples()) != self._samples:
            self._samples = samples
            found.append(("samples", {"samples": samples}))
        if (state := self.seen.look()) != self._state:
            self._state = state
            found.append(("state", state))
        return found

    def _lines(self, name: str) -> Json | None:
        """New lines of a curve; `reset`: they are the first, also where a run that went on wrote them anew."""
        tail, fields = self._tails[name]
        curve, reset = Thinned(POINTS), False
        for records, anew in tail.parts():
            if anew:
                curve, reset = Thinned(POINTS), True
            curve.add([{f: r.get(f) for f in fields} for r in records])
        return {"lines": curve.points, "reset": reset} if curve.points or reset else None
