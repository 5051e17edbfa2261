"""Sample images with NumPy and onnxruntime alone: python sample.py -n 16 --seed 0 [--label NAME] [--out images.npz]

Image k of a seed is that of `unnoise sample --seed`. x = alpha image + sigma noise; lambda = log(alpha / sigma).
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

HERE = Path(__file__).parent


def stream(seed: int, purpose: str, k: int) -> np.random.Generator:
    digest = hashlib.blake2b(repr((seed, purpose, (k,))).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def sample(count: int, seed: int = 0, label: str | None = None) -> np.ndarray:
    """Images (count, C, H, W) on [-1, 1]; `label` is one of the classes, None chooses them at random."""
    facts, session = json.loads((HERE / "sampler.json").read_text()), onnxruntime.InferenceSession(HERE / "denoiser.onnx")
    alpha, sigma, shape, classes = np.array(facts["alpha"]), np.array(facts["sigma"]), facts["shape"], facts["classes"]
    with np.errstate(divide="ignore"):
        lam = np.log(alpha) - np.log(sigma)
    streams = [stream(seed, "sample", k) for k in range(count)]
    labels = [classes.index(label) if label else stream(seed, "label", k).integers(len(classes)) for k in range(count) if classes]

    def normal(*shape: int) -> np.ndarray:
        return np.stack([s.standard_normal(shape, dtype=np.float32) for s in streams])

    def call(x: np.ndarray, k: int, labels: list[Any]) -> np.ndarray:
        feed = {"x": x, "alpha": np.full(len(x), alpha[k], np.float32), "sigma": np.full(len(x), sigma[k], np.float32)}
        feed |= {"label": np.array(labels)} if classes else {}
        batches = [slice(None)] if facts["dynamic_batch"] else [slice(i, i + 1) for i in range(len(x))]
        return np.concatenate([session.run(None, {name: v[part] for name, v in feed.items()})[0] for part in batches])

    def estimate(x: np.ndarray, k: int) -> np.ndarray:
        found = call(x, k, labels)
        if facts["guidance"] != 1:  # classifier-free (Ho & Salimans 2022): -1 is no label
            without = call(x, k, [-1] * count)
            found = without + facts["guidance"] * (found - without)
        return found.clip(-1, 1) if facts["clamp"] else found

    if facts["start"] == "data":
        start = np.load(HERE / "start.npz")
        x = start["residual_std"] * normal(*shape) + np.tensordot(normal(len(start["basis"])), start["basis"], 1) + start["mean"]
        x = alpha[0] * x + sigma[0] * normal(*shape)
    else:
        x = np.hypot(alpha[0], sigma[0]) * normal(*shape)
    before, sde = None, facts["sampler"] == "dpm++2m-sde"
    for k in range(len(alpha) - 1):
        x_hat, last = estimate(x.astype(np.float32), k), k == len(alpha) - 2
        if facts["sampler"] == "ddim":  # Song et al. 2021, equations 12 and 16
            eps, kept = (x - alpha[k] * x_hat) / sigma[k], alpha[k] * sigma[k + 1] / (alpha[k + 1] * sigma[k])
            fresh = facts["eta"] * sigma[k + 1] * np.sqrt(1 - kept**2)
            x = alpha[k + 1] * x_hat + np.sqrt(np.maximum(sigma[k + 1] ** 2 - fresh**2, 0)) * eps
        else:  # Lu et al. 2022, algorithm 2, and with fresh noise equation 14
            h, best = lam[k] - lam[k + 1], x_hat
            if before is not None and not last:
                best = x_hat + h / (2 * (lam[k - 1] - lam[k])) * (x_hat - before)
            decay = np.exp(h) if sde else 1.0
            x = sigma[k + 1] / sigma[k] * decay * x - alpha[k + 1] * np.expm1((1 + sde) * h) * best
            fresh, before = sigma[k + 1] * np.sqrt(1 - decay**2), x_hat if alpha[k] else None
        x = x if last or not fresh else x + fresh * normal(*shape)
    images: np.ndarray = x.clip(-1, 1)
    return images


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--label")
    parser.add_argument("--out", default="images.npz")
    asked = parser.parse_args()
    images = np.rint((sample(asked.n, asked.seed, asked.label) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    np.savez_compressed(asked.out, images=images)
    print(f"{asked.out}: {images.shape}")
