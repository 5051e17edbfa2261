"""A run as a web page: a folder for any static host, in which the model runs in the visitor's browser.

index.html, *.js, page.css   the page; components/ are those of the studio
denoiser.onnx                the network (`unnoise.export.onnx`)
model.json                   its shape and classes, and how it samples, as tables (`unnoise.export.table`)
start.bin                    mean and covariance of the training images, where sampling starts from them
runtime/                     onnxruntime-web, which runs the network, and its licence
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import unnoise
from unnoise.diffusion.guidance import ClassGuidance, NoGuidance
from unnoise.diffusion.inversion import start_time
from unnoise.diffusion.samplers import DDIM
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.export.onnx import graph_error, require_onnx, write_graph
from unnoise.export.place import bare_denoiser, write_folder
from unnoise.export.runtime import Say, runtime_files
from unnoise.export.smaller import WEIGHTS, store_weights
from unnoise.export.table import Table, sampler_table
from unnoise.hub import is_on_hub
from unnoise.model import Model
from unnoise.utils.errors import UserError, nearest

PAGE = Path(__file__).with_name("page")
STUDIO = Path(unnoise.__file__).parent / "studio" / "static"
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50)  # that the page offers, beside the recipe's own
STRENGTHS = tuple(k / 20 for k in range(1, 20))
MORPH_STEPS = 20
MOST_STEPS = 50  # of a variation and of a morph, whatever the recipe's


def export_webpage(
    run: Path, out: Path, overwrite: bool = False, weights: str = "float32", runtime: Path | None = None, say: Say = str
) -> str:
    """Write the folder `out`; says its size and what is worth knowing.

    `weights` is how they are stored, `runtime` and `say` are as in `runtime_files`. Raises UserError where libraries are missing,
    for images that no page can show, for a network that ONNX can't hold, and for a sampler that isn't linear.
    """
    if weights not in WEIGHTS:
        raise UserError(f"unknown weights '{weights}': {nearest(weights, WEIGHTS)}")
    require_onnx()
    model = Model.load(run, "cpu")
    _check(model)
    facts, files = page_facts(model) | {"name": _name(run)}, runtime_files(runtime, say)
    said = []

    def fill(folder: Path) -> None:
        shutil.copytree(PAGE, folder, dirs_exist_ok=True)
        shutil.copytree(STUDIO / "components", folder / "components")
        shutil.copyfile(STUDIO / "icon.svg", folder / "icon.svg")
        for name, content in files.items():
            (folder / "runtime" / name).write_bytes(content)
        graph, denoiser = folder / "denoiser.onnx", bare_denoiser(model)
        dynamic, error = write_graph(denoiser, model, graph)
        if store_weights(graph, weights):
            error = graph_error(denoiser, model, graph, dynamic)
        if facts["start"]["from"] == "data":
            _write_moments(model, folder / "start.bin")
        heavy = [p for p in ("runtime/ort.wasm", "denoiser.onnx", "start.bin") if (folder / p).is_file()]
        facts.update(dynamic_batch=dynamic, sizes={name: (folder / name).stat().st_size for name in heavy})
        (folder / "model.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")
        said.append(f"{_size(folder)}; the network agrees with torch to {error:.1e}")

    write_folder(out, overwrite, fill)
    if not isinstance(model.info.recipe.sampling.guidance, ClassGuidance | NoGuidance):
        said.append("the page has no guidance by an early average")
    return "; ".join([*said, f"next: python -m http.server -d {out}"])


def _name(run: Path) -> str:
    """What the page is called: the run's own name, on the hub, too."""
    return run.name.partition("@")[0] if is_on_hub(run) else run.resolve().name


def _check(model: Model) -> None:
    channels, size = model.info.shape[0], model.info.shape[1:]
    if channels not in (1, 3):
        raise UserError(f"a page shows grey and colour images, and this run's have {channels} channels: choose format onnx")
    if max(size) > 512:
        raise UserError(f"images of {size[0]}x{size[1]} are too large for a browser (512 at most): choose format onnx")


def page_facts(model: Model) -> dict[str, Any]:
    """All that the page knows of the model but for its weights."""
    info, recipe = model.info, model.info.recipe
    one, config = torch.ones((), dtype=torch.float64), recipe.sampling
    schedule, few = recipe.schedule, min(config.steps, MOST_STEPS)
    steps = [n for n in STEPS if n <= min(schedule.steps or n, config.times.max_steps or n)]
    # A student is trained for the times of its own calls alone.
    ddim = replace(config, sampler=DDIM(), steps=config.steps if model.is_student else min(MORPH_STEPS, steps[-1]))
    return {
        "version": unnoise.__version__, "shape": info.shape, "classes": info.classes, "images": info.images,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "steps": config.steps, "clamp": config.clamp_estimate, "dynamic": config.dynamic, "guidance": _guidance(model),
        "start": {
            "from": config.start if model.moments else "noise",
            "alpha": float(schedule.alpha(one)), "sigma": float(schedule.sigma(one)),
        },
        "highest": min(1e9, float(schedule.ratio(one))),
        "sample": {n: sampler_table(schedule, replace(config, steps=n)) for n in sorted({*steps, config.steps})},
        "vary": {f"{strength:g}": _variation(model, replace(config, steps=few), strength) for strength in STRENGTHS},
        "ddim": sampler_table(schedule, ddim),
        "restore": sampler_table(schedule, config if model.is_student else info.restoring()),
    }  # fmt: skip


def _variation(model: Model, config: SamplingConfig, strength: float) -> Table:
    """The table of image to image (`Model.image_to_image`), with the scales that it starts at."""
    schedule = model.info.recipe.schedule
    start = start_time(config, schedule, strength)
    t = schedule.at(torch.tensor(start, dtype=torch.float64))
    return sampler_table(schedule, config, start) | {"alpha": float(t.alpha), "sigma": float(t.sigma)}


def _guidance(model: Model) -> dict[str, float] | None:
    """Guidance by class, of scale 1 where the recipe has none; None where the run can't have it."""
    if not model.info.classes or not model.info.recipe.training.label_dropout or model.is_student:
        return None
    own = model.info.recipe.sampling.guidance
    found = own if isinstance(own, ClassGuidance) else ClassGuidance(scale=1.0)
    return {"scale": found.scale, "low": found.low, "high": found.high, "rescale": found.rescale}


def _write_moments(model: Model, path: Path) -> None:
    """residual_std, mean and basis, float32, little-endian."""
    assert model.moments is not None
    parts = [v.float().numpy().ravel() for v in (model.moments.residual_std, model.moments.mean, model.moments.basis)]
    path.write_bytes(np.concatenate(parts).astype("<f4").tobytes())


def _size(folder: Path) -> str:
    """Of all its files, and of the runtime among them."""
    sizes = {p: p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    wasm = sizes[folder / "runtime" / "ort.wasm"]
    return f"{sum(sizes.values()) / 1e6:.1f} MB, of which {wasm / 1e6:.1f} are onnxruntime-web"
