"""A run's denoiser as ONNX, with a program that samples from it by NumPy and onnxruntime alone.

    denoiser.onnx   x (N, C, H, W), alpha (N,), sigma (N,) and, with classes, label (N,) -> the estimate x_hat (N, C, H, W)
    sampler.json   the scales to step through, the sampler, the classes
    start.npz       mean and covariance of the training images, where sampling starts from them
    sample.py       python sample.py -n 16 --seed 0: the images of `unnoise sample`

The graph knows no schedule: x = alpha image + sigma noise, however another program scales it (Karras et al. 2022: alpha 1).
"""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unnoise.diffusion import samplers
from unnoise.diffusion.denoiser import NetworkDenoiser
from unnoise.diffusion.guidance import ClassGuidance, NoGuidance
from unnoise.diffusion.sampling import SamplingConfig
from unnoise.export.place import bare_denoiser, write_folder
from unnoise.model import Model
from unnoise.utils.errors import UserError

TOLERANCE = 1e-4  # of the estimate, against torch's
OPSET = 20
MAX_BYTES = 2**31 - 2**20  # of one file of ONNX
EXAMPLE = Path(__file__).with_name("onnx_sample.py")


class AtScales(nn.Module):
    """The graph's function: scales come as float32 and are computed with in float64."""

    def __init__(self, denoiser: NetworkDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        return self.denoiser.at_scales(x, alpha.double(), sigma.double(), label)


def export_onnx(run: Path, out: Path, overwrite: bool = False) -> str:
    """Write the folder `out`, once onnxruntime gives torch's numbers to 1e-4; says what is worth knowing.

    The batch is dynamic, or 1 where the network does not export otherwise. Raises UserError where the libraries are missing, and
    for a network that ONNX can't hold.
    """
    require_onnx()
    model = Model.load(run, "cpu")
    denoiser = bare_denoiser(model)
    said = []

    def fill(folder: Path) -> None:
        dynamic, error = write_graph(denoiser, model, folder / "denoiser.onnx")
        fixed = "" if dynamic else "; one image a call, since this network has no other batch as ONNX"
        said.append(f"it agrees with torch to {error:.1e}{fixed}")
        said.append(_write_sampling(model, folder, dynamic))
        shutil.copyfile(EXAMPLE, folder / "sample.py")

    write_folder(out, overwrite, fill)
    return "; ".join([*filter(None, said), f"next: python {out / 'sample.py'} -n 16"])


def require_onnx() -> None:
    """Raises UserError where a library is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise UserError(f"ONNX needs {e.name}: pip install 'unnoise[export]'") from e


def write_graph(denoiser: NetworkDenoiser, model: Model, path: Path) -> tuple[bool, float]:
    """Whether the batch is dynamic, and the largest error. Raises UserError where the graph can't be made or is not the same."""
    if sum(p.numel() * p.element_size() for p in denoiser.state_dict().values()) > MAX_BYTES:
        raise UserError("this network is larger than 2 GiB, the most that a file of ONNX holds: export a smaller one")
    failed: Exception | None = None
    for dynamic in (True, False):
        try:
            _export(denoiser, model, path, dynamic)
        except Exception as e:  # the exporter raises many kinds
            failed = e
            continue
        if not dynamic or _is_dynamic(path):
            error = graph_error(denoiser, model, path, dynamic)
            if not error <= TOLERANCE:
                raise UserError(
                    f"onnxruntime's estimates differ from torch's by {error:.1e}, more than {TOLERANCE:g}: not written"
                )
            return dynamic, error
    assert failed is not None
    reason = (str(failed.__cause__ or failed).strip().splitlines() or [type(failed).__name__])[0]
    raise UserError(f"torch can't write this network as ONNX ({reason}): see what its exporter supports") from failed


def _is_dynamic(path: Path) -> bool:
    """Whether the graph's batch has no number: the exporter fixes one where the network asks for it."""
    import onnx

    dimension = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[0]
    return not dimension.HasField("dim_value")


def _inputs(model: Model, count: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *model.info.shape, generator=generator)
    scales = torch.linspace(0.9, 0.5, count), torch.linspace(0.4, 0.9, count)
    return (x, *scales, torch.arange(count) % len(model.info.classes)) if model.info.classes else (x, *scales)


def _export(denoiser: NetworkDenoiser, model: Model, path: Path, dynamic: bool) -> None:
    inputs = _inputs(model, 2 if dynamic else 1)
    names = ["x", "alpha", "sigma", "label"][: len(inputs)]
    batch = {0: torch.export.Dim("batch", min=1, max=2**16)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of itself
        torch.onnx.export(
            AtScales(denoiser), inputs, str(path), dynamo=True, external_data=False, opset_version=OPSET, verbose=False,
            custom_translation_table={torch.ops.aten.searchsorted.Tensor: _search_sorted}, input_names=names,
            output_names=["x_hat"], dynamic_shapes=tuple(batch for _ in inputs) if dynamic else None,
        )  # fmt: skip
    _strip(path)


def _strip(path: Path) -> None:
    """Take away the exporter's notes: a third of a small file, with the paths of this machine in them."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


def _search_sorted(falling: Any, values: Any, **_: Any) -> Any:
    """torch.searchsorted, which ONNX lacks: how many of a sorted sequence are less than each value."""
    import onnxscript

    op: Any = onnxscript.opset20
    less = op.Less(falling, op.Unsqueeze(values, op.Constant(value_ints=[-1])))
    return op.ReduceSum(op.Cast(less, to=7), op.Constant(value_ints=[-1]), keepdims=0)  # 7: int64


def graph_error(denoiser: NetworkDenoiser, model: Model, path: Path, dynamic: bool) -> float:
    """The largest difference of onnxruntime's estimates from torch's, where they exceed 1 in proportion to them.

    At the noise levels that sampling steps through, for batches of one and, where it is `dynamic`, of three. Raises UserError for
    a graph that onnxruntime can't read.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as e:  # of its own kinds
        raise UserError(f"onnxruntime {onnxruntime.__version__} can't read opset {OPSET} of this network "
                        f"({str(e).splitlines()[0]}): pip install -U onnxruntime") from e  # fmt: skip
    levels, worst = _levels(model), 0.0
    for count in (1, 3) if dynamic else (1,):
        x, _, _, *label = _inputs(model, count)
        for alpha, sigma in levels[:: max(1, len(levels) // 4)]:
            scales = torch.full((count,), alpha), torch.full((count,), sigma)
            noised = alpha * x.tanh() + sigma * x
            feed = dict(zip((i.name for i in session.get_inputs()), (noised, *scales, *label), strict=True))
            found = session.run(None, {name: value.numpy() for name, value in feed.items()})[0]
            with torch.no_grad():
                expected = AtScales(denoiser)(noised, *scales, *label).numpy()
            worst = max(worst, float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max())))
    return worst


def _levels(model: Model) -> list[tuple[float, float]]:
    """alpha and sigma at each time that sampling steps through, but the last."""
    recipe = model.info.recipe
    t = recipe.sampling.times(recipe.schedule, recipe.sampling.steps)[:-1]
    return list(zip(recipe.schedule.alpha(t).tolist(), recipe.schedule.sigma(t).tolist(), strict=True))


def _write_sampling(model: Model, folder: Path, dynamic: bool) -> str:
    """All that sample.py needs beside the graph; what it does otherwise than the recipe is said."""
    config, levels, notes = model.info.recipe.sampling, _levels(model), []
    method = _method(config)
    if method is None:
        method = {"sampler": "dpm++2m", "eta": 0.0}
        notes.append(f"sample.py samples by dpm++2m, not {type(config.sampler).__name__}")
    start = config.start if model.moments is not None else "noise"
    if start == "data":
        assert model.moments is not None
        arrays = {name: value.numpy() for name, value in vars(model.moments).items()}
        np.savez(folder / "start.npz", **arrays)
    scale = config.guidance.scale if isinstance(config.guidance, ClassGuidance) else 1.0
    if config.guidance not in (NoGuidance(), ClassGuidance(scale)):
        notes.append("sample.py has no guidance by an early average, in an interval or rescaled")
        scale = 1.0
    if config.dynamic:
        notes.append("sample.py has no dynamic thresholding")
    last = torch.zeros((), dtype=torch.float64)
    schedule = model.info.recipe.schedule
    facts: dict[str, Any] = {
        "shape": model.info.shape, "classes": model.info.classes, "dynamic_batch": dynamic, **method,
        "clamp": config.clamp_estimate, "start": start, "guidance": scale,
        "alpha": [*(a for a, _ in levels), float(schedule.alpha(last))],
        "sigma": [*(s for _, s in levels), float(schedule.sigma(last))],
    }  # fmt: skip
    (folder / "sampler.json").write_text(json.dumps(facts, indent=1))
    return "; ".join(notes)


def _method(config: SamplingConfig) -> dict[str, Any] | None:
    """The sampler as one that sample.py knows; None where it knows none that is the same."""
    sampler = config.sampler
    if isinstance(sampler, samplers.DDIM):
        return {"sampler": "ddim", "eta": sampler.eta}
    if isinstance(sampler, samplers.DDPM) and not sampler.clamp and sampler.variance == "posterior":
        return {"sampler": "ddim", "eta": 1.0}
    if type(sampler) is samplers.Euler and not sampler.churn:
        return {"sampler": "ddim", "eta": 0.0}
    known = {samplers.DPMpp2M: "dpm++2m", samplers.DPMpp2MSDE: "dpm++2m-sde"}
    return {"sampler": known[type(sampler)], "eta": 0.0} if type(sampler) in known else None
