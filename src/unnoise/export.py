"""Weights from and to other programs. Only tensors are read: no pickled object is ever loaded."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise import checkpoint, files
from unnoise.denoiser import NetworkDenoiser
from unnoise.ema import reconstruct
from unnoise.errors import UserError
from unnoise.gaussian import Moments
from unnoise.model import Model
from unnoise.network.simple_unet import SimpleUnet, SimpleUnetPlan
from unnoise.presets import PRESETS
from unnoise.processes import choose_device
from unnoise.recipe import RunInfo, load_run, override
from unnoise.run import VERSIONS, measure_moments, refuse_existing, writing


def import_notebook(path: Path, folder: Path, changes: dict[str, Any] | None = None, measure: bool = False) -> RunInfo:
    """Make a run folder of a notebook's `state_dict`; its widths and channels are read off the weights.

    `changes` alter the `notebook` preset by dotted names. `measure` reads the recipe's data and keeps its mean and
    covariance, for sampling that starts from them. Raises UserError, naming each wrong key and shape.
    """
    refuse_existing(folder)
    state = read_state_dict(path)
    channels, plan = _plan_of(state)
    if own := [name for name in changes or {} if name.startswith("network")]:
        raise UserError(f"{own[0]} can't be chosen: the network is read off the weights")
    recipe = replace(override(PRESETS["notebook"], changes or {}), network=plan)
    if recipe.data.size is None:
        raise UserError("say the size that the weights were trained at, e.g. --size 64")
    with torch.device("meta"):
        network = plan.build(channels, recipe.data.size, 0)
    _compare(state, network.state_dict(), path)
    network.load_state_dict(state, assign=True)
    denoiser = NetworkDenoiser(network, recipe.schedule, recipe.target)

    shape, fingerprint, moments = (channels, *recipe.data.size), "", None
    if measure:
        pictures = recipe.data.load()
        if pictures.shape != shape:
            raise UserError(f"'{path}' is for pictures of {channels} channels, {recipe.data.source} has {pictures.shape[0]}: "
                            "leave --data away or give the pictures that it was trained on")  # fmt: skip
        fingerprint, moments = pictures.fingerprint(), measure_moments(pictures)
    info = RunInfo(recipe, shape, fingerprint=fingerprint, device=choose_device(), versions=VERSIONS,
                   command=" ".join(sys.argv))  # fmt: skip
    with writing(folder):
        if moments:
            moments.save(folder / "moments.safetensors")
        checkpoint.save_tensors(folder / "model.safetensors", checkpoint.state_of(denoiser))
        info.save(folder)
    return info


def export_notebook(run: Path, out: Path) -> None:
    """Write a run's averaged weights as the plain `state_dict` that the notebook loads."""
    model = Model.open(run, "cpu")
    network = model.denoiser.get_submodule("network")
    if not isinstance(network, SimpleUnet):
        raise UserError(f"the notebook can load a simple-unet only, and '{run}' is another network: "
                        "train one with --network simple-unet")  # fmt: skip
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    try:
        files.write(out, lambda p: torch.save(state, p))
    except OSError as e:
        raise UserError(f"can't write '{out}' ({e.strerror}): choose another --out") from e


FORMATS: dict[str, Callable[[Path, Path], None]] = {"notebook": export_notebook}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `torch.save`d state dict, by name."""
    if not path.is_file():
        raise UserError(f"no file '{path}': give the .pth that the notebook saved")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # UnpicklingError, RuntimeError of a broken zip, EOFError, ...
        raise UserError(f"'{path}' is not a file of plain weights, or is damaged ({_first_line(e)}): save it with "
                        "torch.save(model.state_dict(), path)") from e  # fmt: skip
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"'{path}' holds {_kind(state)}, not a state_dict: save it with torch.save(model.state_dict(), path)")
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _kind(value: object) -> str:
    if isinstance(value, dict):
        other = next((k for k, v in value.items() if not isinstance(v, Tensor)), None)
        return f"a dict whose '{other}' is no tensor"
    return f"a {type(value).__name__}"


def _plan_of(state: dict[str, Tensor]) -> tuple[int, SimpleUnetPlan]:
    """Channels and widths read off the weights; the notebook's own where they can't be, for the comparison to name why."""
    try:
        first, time = state["conv0.weight"], state["time_mlp.1.weight"]
        depth = len({m[1] for name in state if (m := re.match(r"downs\.(\d+)\.", name))})
        widths = (len(first), *(len(state[f"downs.{k}.conv2.weight"]) for k in range(depth)))
        return first.shape[1], SimpleUnetPlan(widths, len(time))
    except (KeyError, IndexError, TypeError, UserError):
        return 3, SimpleUnetPlan()


def _compare(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Raises UserError that names every key that is missing, too many, or of another shape."""
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} where the notebook's has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        raise UserError(f"'{path}' holds another network than the notebook's: {', '.join(wrong)}")


def reaverage(run: Path, width: float, out: Path, step: int | None = None) -> None:
    """Write the run folder `out`: `run` with the average of its weights of another width, made from its snapshots.

    Raises UserError where it has too few, where they can't make that width, or where `out` holds a run already.
    """
    info = load_run(run)
    refuse_existing(out)
    tensors = reconstruct(run / "snapshots", width, step)
    recipe = replace(info.recipe, training=replace(info.recipe.training, ema=width))
    with writing(out):
        replace(info, recipe=recipe).save(out)
        if (moments := Moments.find(run)) is not None:
            moments.save(out / "moments.safetensors")
        checkpoint.save_tensors(out / "model.safetensors", tensors)
