"""A run folder: training that writes down what it does, and models taken out again to draw with."""

import json
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unnoise import __version__, checkpoint, figures
from unnoise.data.sources import split
from unnoise.denoiser import Denoiser
from unnoise.draws import PictureNoise, stream
from unnoise.errors import UserError
from unnoise.recipe import Recipe, RunInfo, load_run
from unnoise.sampler import Sampling, sample, starting_noise, trajectory
from unnoise.training import TrainingRecord, bf16_pays, train

GRID = 36
Say = Callable[[str], None]


def choose_device() -> str:
    """cuda where there is one, else cpu. Not mps: it has no float64, which the schedules' scales are computed in."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Run:
    """A run folder being trained. `for record in Run.begin(...).train(): ...`"""

    def __init__(self, folder: Path, info: RunInfo, say: Say) -> None:
        self.folder, self.info, self.say = folder, info, say
        pictures = info.recipe.data.load()
        if pictures.shape != info.shape or (info.fingerprint and pictures.fingerprint() != info.fingerprint):
            raise UserError(f"the data '{info.recipe.data.source}' is not what '{folder}' was trained on: restore it, "
                            "or begin a new run")  # fmt: skip
        self.skipped = pictures.skipped
        self.split = split(pictures, info.recipe.data.held_out)
        self.training = info.recipe.build_training(info.shape, len(info.classes), info.device)

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe, say: Say) -> "Run":
        """Look at the data, decide what is left to decide, and write the recipe down. Nothing is written on an error."""
        if (folder / "recipe.json").exists():
            raise UserError(f"'{folder}' holds a run already: go on with 'unnoise train --resume {folder}' "
                            "or choose another --run")  # fmt: skip
        if recipe.training.steps is None and recipe.training.minutes is None:
            raise UserError("training needs a budget: give --steps or --minutes")
        pictures = recipe.data.load()
        device = choose_device()
        bf16, gain = recipe.training.precision == "bf16", None
        if recipe.training.precision == "auto":
            bf16, gain = bf16_pays(device)
        info = RunInfo(recipe, pictures.shape, pictures.classes, pictures.fingerprint(), device, bf16,
                       versions=f"unnoise {__version__}, torch {torch.__version__}", command=" ".join(sys.argv))  # fmt: skip
        run = cls(folder, info, say)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            info.save(folder)
        except OSError as e:
            raise UserError(f"can't write to '{folder}' ({e.strerror}): choose another --run") from e
        c, h, w = info.shape
        measured = f" (bf16 measured {gain:.1f} times as fast as fp32)" if gain else ""
        say(f"{len(run.split.train)} pictures of {h}x{w}x{c} to train on, {len(run.split.held_out)} held out; "
            f"{sum(p.numel() for p in run.training.model.parameters()):,} parameters; "
            f"{device}, {torch.get_num_threads()} threads, {'bf16' if bf16 else 'fp32'}{measured}")  # fmt: skip
        return run

    @classmethod
    def resume(cls, folder: Path, say: Say) -> "Run":
        """Go on from the newest checkpoint."""
        info = load_run(folder)
        run = cls(folder, info, say)
        found = checkpoint.list_checkpoints(folder / "checkpoints")
        if found:
            t = run.training
            state = checkpoint.load(found[-1], t.model, t.average, t.optimizer)
            t.step, t.total = state["step"], state["total"]
        run._cut_metrics()
        say(f"going on from step {run.training.step}" + (f" of {run.training.total}" if run.training.total else ""))
        return run

    def _cut_metrics(self) -> None:
        """Forget the lines of steps that will be done again."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= self.training.step]
        path.write_text("".join(line + "\n" for line in kept))

    def save(self) -> None:
        """A checkpoint, and the averaged weights for use."""
        t = self.training
        if t.step:
            state = {"step": t.step, "total": t.total}
            checkpoint.save(self.folder / "checkpoints", t.model, t.average, t.optimizer, state)
        checkpoint.save_model(self.folder / "model.safetensors", t.average)

    def draw_grid(self) -> None:
        """The grid of samples from fixed noise, at the present step."""
        count, classes = GRID, len(self.info.classes)
        label = torch.arange(count, device=self.info.device) % classes if classes else None
        x = self.sample(range(count), label)
        figures.save(figures.grid(figures.to_uint8(x)), self.folder / "samples" / f"{self.training.step:06d}.png")

    def sample(self, numbers: Sequence[int], label: Tensor | None) -> Tensor:
        sampling = self.info.recipe.sampling
        with torch.autocast(torch.device(self.info.device).type, torch.bfloat16, enabled=self.info.bf16):
            return sample(self.training.average, self.info.shape, numbers, sampling, self.info.recipe.training.seed,
                          label, self.info.device)  # fmt: skip

    def train(self) -> Generator[TrainingRecord, None, None]:
        """Train, logging each step, drawing and saving now and then; saved whenever the loop ends or is left."""
        plan, recipe = self.info.recipe.training, self.info.recipe
        drawn = saved = time.perf_counter()
        records = train(self.training, self.split.train, plan, self.info.device, self.info.bf16, recipe.data.flip)
        try:
            with (self.folder / "metrics.jsonl").open("a", buffering=1) as log:
                for record in records:
                    log.write(json.dumps(asdict(record)) + "\n")
                    if record.total and record.total != self.info.total_steps:
                        self.info = replace(self.info, total_steps=record.total)
                        self.info.save(self.folder)
                    now = time.perf_counter()
                    if now - drawn > plan.sample_every:
                        self.draw_grid()
                        drawn = time.perf_counter()
                    if now - saved > plan.save_every:
                        self.save()
                        saved = time.perf_counter()
                    yield record
        finally:
            self.save()

    def finish(self) -> None:
        """The figures of a finished or stopped run: the last grid, a strip from noise, the loss curve."""
        self.draw_grid()
        figures.save(self.strip(), self.folder / "strip.png")
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        if lines:
            figures.loss_curve([r["step"] for r in lines], [r["loss"] for r in lines], self.folder / "loss.png")

    def strip(self) -> Image.Image:
        return reverse_strip(self.training.average, self.info)


def reverse_strip(model: Denoiser, info: RunInfo, number: int = 0) -> Image.Image:
    """Picture `number`'s way from noise."""
    noise = PictureNoise(info.recipe.training.seed, [number])
    x = starting_noise(model, noise, torch.empty(1, *info.shape, device=info.device))
    label = torch.zeros(1, dtype=torch.long, device=info.device) if info.classes else None
    return figures.strip([(r.x, r.x_hat) for r in trajectory(model, x, info.recipe.sampling, noise, label)])


class Stop:
    """Inside it, the first Ctrl-C or SIGTERM only sets `asked`; a second one ends at once."""

    def __enter__(self) -> "Stop":
        self.asked = 0
        self._before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def open_model(folder: Path, device: str | None = None) -> tuple[Denoiser, RunInfo]:
    """A trained model, ready to draw with: needs only recipe.json and model.safetensors."""
    info = load_run(folder)
    if not (folder / "model.safetensors").is_file():
        raise UserError(f"'{folder}' has no model.safetensors yet: train it with 'unnoise train --resume {folder}'")
    device = device or choose_device()
    model = info.recipe.build_denoiser(info.shape, len(info.classes))
    checkpoint.load_model(folder / "model.safetensors", model)
    return model.eval().to(device), replace(info, device=device, bf16=info.bf16 and device == info.device)


def draw(model: Denoiser, info: RunInfo, count: int, seed: int = 0, batch: int = 250,
         sampling: Sampling | None = None) -> Iterator[np.ndarray]:  # fmt: skip
    """Pictures 0 .. count-1 in batches, uint8 (B, H, W, C). Classes, where there are any, are drawn evenly."""
    for first in range(0, count, batch):
        numbers = range(first, min(first + batch, count))
        label = None
        if info.classes:
            drawn = [int(stream(seed, "label", n).integers(len(info.classes))) for n in numbers]
            label = torch.tensor(drawn, device=info.device)
        with torch.autocast(torch.device(info.device).type, torch.bfloat16, enabled=info.bf16):
            x = sample(model, info.shape, numbers, sampling or info.recipe.sampling, seed, label, info.device)
        yield figures.to_uint8(x)
