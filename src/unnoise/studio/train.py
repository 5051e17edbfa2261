"""Trainings that the studio begins: each is `unnoise train` in a process of its own, which outlives the studio.

What the process prints goes to RUNS/.studio/logs; a run tells all else by its folder.
"""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unnoise.data.sources import find_source
from unnoise.presets import PRESETS
from unnoise.runs.lock import writing_process
from unnoise.runs.places import run_name
from unnoise.studio.errors import Refusal
from unnoise.studio.inspect import data_of
from unnoise.studio.requests import api_of, read_fields
from unnoise.studio.uploads import PLACE
from unnoise.studio.watch import NAME

MOST = 4  # trainings at once
SIDES, MINUTES = (8, 512), (0.05, 60 * 24 * 30)
FAILURE = re.compile(r"^unnoise: (.*)$|^(\w*(?:Error|Exception)\b.*)$", re.MULTILINE)
Json = dict[str, Any]


@dataclass
class Training:
    """A process, and where it prints to."""

    process: "subprocess.Popen[bytes]"
    log: Path
    begun: float

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def error(self) -> str | None:
        """Why it ended, where that was not as planned or by a signal."""
        if self.runs or self.process.returncode in (0, 130, 143) or self.process.returncode < 0:
            return None
        found = FAILURE.findall(self.log.read_text(encoding="utf-8", errors="replace"))
        said = next(filter(None, found[-1])) if found else f"see {self.log}"
        return f"the training ended with status {self.process.returncode}: {said}"


class Trainings:
    """The trainings that this start of the studio began, by the names of their runs."""

    def __init__(self, runs: Path) -> None:
        self.runs, self._begun = runs, dict[str, Training]()

    def begin(self, name: str, *arguments: str) -> None:
        """Start `unnoise train`, which writes to the run of this name. Raises Refusal where too many go on already."""
        if sum(training.runs for training in self._begun.values()) >= MOST:
            raise Refusal(429, f"{MOST} trainings go on already: stop one first")
        log = self.runs / PLACE / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "unnoise", "train", *arguments]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        self._begun[name] = Training(process, log, time.time())

    def stop(self, name: str) -> None:
        """As Ctrl-C; on Windows it ends at once, as if killed. Raises Refusal where it is not being trained on this machine."""
        begun, writing = self._begun.get(name), writing_process(self.runs / name)
        process = writing if writing is not None else begun.process.pid if begun is not None and begun.runs else None
        if process is None:
            raise Refusal(409, f"'{name}' is not being trained: there is nothing to stop")
        if process == 0:
            raise Refusal(409, f"'{name}' is trained on another machine: stop it there")
        os.kill(process, signal.SIGINT)

    def forget(self, name: str) -> None:
        """A failed start. Raises Refusal for anything else."""
        begun = self._begun.get(name)
        if begun is None or begun.runs or (self.runs / name / "recipe.json").exists():
            raise Refusal(409, f"'{name}' is a run: remove its folder yourself if you don't want it any more")
        del self._begun[name]

    def error(self, name: str) -> str | None:
        """Why the last training of a run ended, where this start of the studio began it and it failed."""
        begun = self._begun.get(name)
        return None if begun is None else begun.error

    def is_known(self, name: str) -> bool:
        """Whether a training of this name has begun, or there is anything of that name."""
        return (self.runs / name).exists() or (name in self._begun and self._begun[name].runs)

    def pending(self) -> list[Json]:
        """Lines of the list of runs, for those that have no folder yet."""
        found: list[Json] = []
        for name, training in list(self._begun.items()):
            if (self.runs / name / "recipe.json").exists():
                continue
            error = training.error
            if not training.runs and error is None:  # stopped before it had begun
                del self._begun[name]
                continue
            found.append({"name": name, "state": "failed" if error else "starting", "step": 0, "total_steps": None, "loss": None,
                          "images_per_second": None, "seconds_left": None, "updated": training.begun, "error": error,
                          "thumbnail": None, "size": None, "channels": None, "classes": [], "data": None})  # fmt: skip
        return found


async def begin(request: Request) -> Response:
    fields, trainings = await read_fields(request), api_of(request).trainings
    data = data_of(api_of(request), fields.text_or_object("data", "path"))
    find_source(data)  # refuses what is not there
    size, minutes = fields.whole("size", *SIDES, None), fields.number("minutes", *MINUTES, None)
    preset, by_folder = fields.choice("preset", PRESETS, None), fields.flag("labels")
    name = _free_name(trainings, fields.text("name", None), run_name(data))
    fields.end()
    arguments = [data] if preset is None else [preset, "--data", data]
    arguments += ["--run", str(trainings.runs / name)]
    arguments += [*(["--size", str(size)] if size else []), *(["--minutes", f"{minutes:g}"] if minutes else [])]
    trainings.begin(name, *arguments, *(["--labels", "folder"] if by_folder else []))
    return JSONResponse({"name": name})


def _free_name(trainings: Trainings, asked: str | None, usual: str) -> str:
    """Raises Refusal for a name that is taken, or that can't be a folder's."""
    if asked is not None and not NAME.fullmatch(asked):
        raise Refusal(400, f"'{asked[:80]}' can't be a run's name: take up to 80 letters, digits, '-', '_' and '.'")
    if asked is not None and trainings.is_known(asked):
        raise Refusal(409, f"there is a run '{asked}' already: choose another name")
    name, k = asked or usual[:70], 2
    while trainings.is_known(name):
        name, k = f"{usual[:70]}-{k}", k + 1
    return name


async def stop(request: Request) -> Response:
    (await read_fields(request)).end()
    api_of(request).trainings.stop(_named(request))
    return JSONResponse({})


async def resume(request: Request) -> Response:
    fields, name = await read_fields(request), _named(request)
    minutes = fields.number("minutes", *MINUTES, None)
    fields.end()
    path = api_of(request).runs.open(name).path
    if writing_process(path) is not None:
        raise Refusal(409, f"'{name}' is being trained: stop it first")
    api_of(request).trainings.begin(name, "--resume", str(path), *(["--minutes", f"{minutes:g}"] if minutes else []))
    return JSONResponse({"name": name})


def forget(request: Request) -> Response:
    api_of(request).trainings.forget(_named(request))
    return JSONResponse({})


def _named(request: Request) -> str:
    """The name in the address. Raises Refusal for one that no run can have."""
    name: str = request.path_params["run"]
    if not NAME.fullmatch(name):
        raise Refusal(404, f"there is no run '{name[:80]}': choose one of the list")
    return name
