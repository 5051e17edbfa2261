"""Features of networks that others trained: any ONNX encoder, DINOv2, and Inception, in which a Frechet distance is called FID.

onnxruntime, timm and torch-fidelity are the extra `evaluation`, imported when used. Of weights only plain tensors are loaded.
"""

import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unnoise.utils.errors import UserError

Features = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) -> float64 (N, D)
BATCH = 50  # images at once
DINOV2 = {384: "vit_small_patch14_dinov2", 768: "vit_base_patch14_dinov2", 1024: "vit_large_patch14_dinov2"}  # timm's, by width
DINOV2_SIDE = 224
URL_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"
INSTALL = "pip install 'unnoise[evaluation]'"


def file_key(path: Path) -> str:
    """A short hash of a file's content. Raises UserError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as e:
        raise UserError(f"can't read '{path}' ({e.strerror or e}): check the path in `features`") from e


def onnx_features(path: Path) -> Features:
    """Of an encoder as an ONNX file: input float32 (n, 3, H, W) in 0..255, its first output (n, ...) flattened to (n, D).

    Images are resized to H x W (bilinear, antialiased), grey ones get three equal channels. Raises UserError for a file that is
    no such encoder.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise UserError(f"an ONNX encoder needs onnxruntime: {INSTALL}") from e
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises its own kinds
        raise UserError(f"'{path}' is no ONNX file that can be run ({str(e).splitlines()[0]}): give another encoder") from e
    inputs = session.get_inputs()
    shape = list(inputs[0].shape) if inputs else []
    sides = shape[2:]
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not all(isinstance(s, int) for s in sides):
        found = " and ".join("x".join(map(str, i.shape)) for i in inputs) or "nothing"
        raise UserError(f"'{path}' takes {found}, not images of n x 3 x height x width: give an encoder of such images")

    def encode(x: Tensor) -> np.ndarray:
        try:
            output: Any = session.run(None, {inputs[0].name: x.numpy()})[0]
        except Exception as e:  # as above
            raise UserError(f"'{path}' fails on {len(x)} images ({str(e).splitlines()[0]}): give another encoder") from e
        if not isinstance(output, np.ndarray) or output.ndim < 2 or len(output) != len(x):
            shown = "x".join(map(str, getattr(output, "shape", ())))
            raise UserError(f"'{path}' gives {shown} for {len(x)} images, not features of each: give another encoder")
        return output.reshape(len(x), -1)

    return lambda pixels: np.concatenate([encode(_resize(part, sides)) for part in _batches(pixels)]).astype(np.float64)


def inception_features(weights: Path | None = None) -> Features:
    """The 2048 features of Inception as torch-fidelity has it, in which FID is defined; weights from a file, or its download.

    Raises UserError where they can't be had.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except ImportError as e:
        raise UserError(f"Inception's features need torch-fidelity: {INSTALL}") from e
    path = weights or _download(URL_INCEPTION_V3)
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity itself would load any pickle
        network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as e:
        raise UserError(f"'{path}' does not hold Inception's weights as torch-fidelity publishes them "
                        f"({str(e).splitlines()[0]}): get {URL_INCEPTION_V3}") from e  # fmt: skip

    @torch.no_grad()
    def features(pixels: np.ndarray) -> np.ndarray:
        parts = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in _batches(pixels))
        found: np.ndarray = torch.cat([network(x.expand(-1, 3, -1, -1).contiguous())[0] for x in parts]).double().numpy()
        return found

    return features


def dinov2_features(weights: Path | None = None) -> Features:
    """The class token of DINOv2 (Oquab et al. 2023; for evaluation Stein et al. 2023) by timm, (N, 384) of the small one.

    Weights from a file as Meta or timm publish it (.pth or .safetensors), small, base or large by its content, or timm's download
    of the small one. Raises UserError where they can't be had.
    """
    try:
        import timm
        from timm.models import load_state_dict
    except ImportError as e:
        raise UserError(f"DINOv2's features need timm: {INSTALL}") from e
    try:
        if weights is None:
            logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it warns of is said below
            network = timm.create_model(DINOV2[384], pretrained=True, img_size=DINOV2_SIDE)
        else:
            width = load_state_dict(str(weights), weights_only=True)["cls_token"].shape[2]
            network = timm.create_model(DINOV2[width], pretrained=True, img_size=DINOV2_SIDE,
                                        pretrained_cfg_overlay={"file": str(weights)})  # fmt: skip
    except Exception as e:  # timm, the hub, safetensors and torch each raise their own kinds
        why = next(iter(str(e).strip().splitlines()), type(e).__name__).partition(". ")[0]
        if weights is None:
            raise UserError(f"can't download DINOv2's weights ({why}): get {URL_DINOV2} where there is a network and give "
                            "`features` dinov2:FILE, or choose pixels") from e  # fmt: skip
        raise UserError(
            f"'{weights}' does not hold DINOv2's weights as Meta or timm publish them ({why}): get {URL_DINOV2}"
        ) from e
    network = network.eval().requires_grad_(False)
    mean, std = (torch.tensor(network.pretrained_cfg[name]).reshape(3, 1, 1) for name in ("mean", "std"))

    def features(pixels: np.ndarray) -> np.ndarray:
        parts = ((_resize(part, [DINOV2_SIDE] * 2, "bicubic") / 255 - mean) / std for part in _batches(pixels))
        found: np.ndarray = torch.cat([network(x) for x in parts]).double().numpy()
        return found

    return features


def _download(url: str) -> Path:
    """The file that this address leads to, in torch's cache, its hash checked when it comes."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.is_file():
        try:
            torch.hub.load_state_dict_from_url(url, progress=False, check_hash=True, weights_only=True)
        except (URLError, OSError, RuntimeError) as e:
            raise UserError(f"can't download Inception's weights ({e}): get {url} where there is a network and give "
                            "`features` inception:FILE, or choose pixels") from e  # fmt: skip
    return path


def _batches(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[k : k + BATCH] for k in range(0, len(pixels), BATCH)]


def _resize(pixels: np.ndarray, size: list[int], mode: str = "bilinear") -> Tensor:
    """uint8 (B, H, W, 1 or 3) -> float32 (B, 3, *size) in 0..255."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
    return functional.interpolate(x, size, mode=mode, antialias=True).clamp(0, 255).contiguous()
