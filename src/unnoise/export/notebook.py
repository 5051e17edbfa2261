"""The teaching notebook's weights: its `state_dict` file, in and out."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unnoise.diffusion.denoiser import NetworkDenoiser
from unnoise.export.place import make_run
from unnoise.export.weights import read_state_dict
from unnoise.model import Model
from unnoise.networks.simple_unet import SimpleUnet, SimpleUnetConfig
from unnoise.presets import PRESETS
from unnoise.recipe import RunInfo, override
from unnoise.run_folder import RunFolder
from unnoise.runs.settle import measure_moments
from unnoise.training.distributed import full_state_dict
from unnoise.utils import atomic
from unnoise.utils.errors import UserError

PARALLEL = "module."  # before each name, where nn.DataParallel was saved
NAMED = 8  # keys in a message


def import_notebook(path: Path, run: Path, changes: dict[str, Any] | None = None, measure: bool = False) -> RunInfo:
    """Make a run folder of a notebook's `state_dict`; its widths and channels are read off the weights.

    `changes` alter the `notebook` preset by dotted names. `measure` reads the recipe's data and stores its mean and
    covariance, for sampling that starts from them. Raises UserError, naming wrong keys and shapes.
    """
    folder = RunFolder(run)
    folder.refuse_existing()
    state = {name.removeprefix(PARALLEL): tensor for name, tensor in read_state_dict(path).items()}
    channels, config = _config_of(state)
    if own := [name for name in changes or {} if name.startswith("network")]:
        raise UserError(f"{own[0]} can't be chosen: the network is read off the weights")
    recipe = replace(override(PRESETS["notebook"], changes or {}), network=config)
    if recipe.data.size is None:
        raise UserError("say the size that the weights were trained at, e.g. data.size 64")
    with torch.device("meta"):
        network = config.build(channels, recipe.data.size, 0)
    _compare(state, network.state_dict(), path)
    network.load_state_dict(state, assign=True)
    denoiser = NetworkDenoiser(network, recipe.schedule, recipe.target)

    shape, fingerprint, moments = (channels, *recipe.data.size), "", None
    if measure:
        images = recipe.data.load()
        if images.shape != shape:
            raise UserError(f"'{path}' is for images of {channels} channels, {recipe.data.source} has {images.shape[0]}: "
                            "leave `data` away or give the images that it was trained on")  # fmt: skip
        fingerprint, moments = images.fingerprint(), measure_moments(images)
    info = RunInfo(recipe, shape, fingerprint=fingerprint)
    make_run(folder, info, full_state_dict(denoiser), moments)
    return info


def export_notebook(run: Path, out: Path, overwrite: bool = False) -> str:
    """Write a run's averaged weights as the plain `state_dict` that the notebook loads; says how that is done.

    Raises UserError for another network and, unless `overwrite`, where `out` is there already.
    """
    if out.exists() and not overwrite:
        raise UserError(f"'{out}' is there already: choose another `out`, or `overwrite` it")
    network = Model.load(run, "cpu").network
    if not isinstance(network, SimpleUnet):
        raise UserError(f"the notebook can load a simple-unet only, and '{run}' is another network: "
                        "train one with network simple-unet")  # fmt: skip
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    try:
        atomic.write(out, lambda p: torch.save(state, p))
    except OSError as e:
        raise UserError(f"can't write '{out}' ({e.strerror}): choose another `out`") from e
    return f"next: model.load_state_dict(torch.load('{out}'))"


def _config_of(state: dict[str, Tensor]) -> tuple[int, SimpleUnetConfig]:
    """Channels and widths read off the weights; the notebook's own where they can't be, for the comparison to name why."""
    try:
        first, time = state["conv0.weight"], state["time_mlp.1.weight"]
        depth = len({m[1] for name in state if (m := re.match(r"downs\.(\d+)\.", name))})
        widths = (len(first), *(len(state[f"downs.{k}.conv2.weight"]) for k in range(depth)))
        return first.shape[1], SimpleUnetConfig(widths, len(time))
    except (KeyError, IndexError, TypeError, UserError):
        return 3, SimpleUnetConfig()


def _compare(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Raises UserError that names keys that are missing, too many, or of another shape."""
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is unknown" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} where the notebook's has {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        shown = wrong[:NAMED] + [f"and {len(wrong) - NAMED} more"] * (len(wrong) > NAMED)
        raise UserError(f"'{path}' holds another network than the notebook's: {', '.join(shown)}")
