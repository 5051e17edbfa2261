"""What guidance buys: how many samples are recognised as of the class asked for, and how far they are from real images.

    python benchmarks/guidance.py RUN OUT [--samplers dpm++2m,dpm++2m-sde] [-n 500] [--judge 'python judge.py digits']

RUN was trained on images with labels. N samples of all classes in turn, always from the same noise, are recognised where logistic
regression on the features of a small classifier gives their class; both are fitted to the training images. The Frechet distance
in the same features is to as many held-out images as there are, beside that of training images. A judge is a command that takes
.npz files and prints a line of JSON for each with `samples` (the file) and `fd`.
"""

import argparse
import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from unnoise.data.dataset import split
from unnoise.diffusion.guidance import AutoGuidance, ClassGuidance, Guidance, NoGuidance
from unnoise.evaluation.distances import frechet_distance
from unnoise.evaluation.features import classifier_features
from unnoise.evaluation.per_class import Labelled, measure_classes
from unnoise.model import Model

ROWS: dict[str, Guidance] = {
    "none": NoGuidance(),
    "class, 1.5": ClassGuidance(1.5),
    "class, 2": ClassGuidance(2.0),
    "class, 2, noise levels 0.2 to 2": ClassGuidance(2.0, 0.2, 2.0),
    "class, 3": ClassGuidance(3.0),
    "auto, 1.5": AutoGuidance(1.5),
    "auto, 2": AutoGuidance(2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samplers", default="dpm++2m,dpm++2m-sde")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--judge")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    model = Model.load(a.run)
    data, classes = model.info.recipe.data, model.info.classes
    parts = split(data.load(), data.held_out)
    if parts.train.labels is None or parts.held_out.labels is None or not len(parts.held_out):
        parser.error("the run needs labels and images that it held out")
    features = classifier_features(parts.train)
    training, real = (Labelled(features(x.pixels), np.asarray(x.labels)) for x in (parts.train, parts.held_out))
    labels = np.arange(a.n) % len(classes)

    def measure(pixels: np.ndarray, of: np.ndarray) -> dict[str, object]:
        found = Labelled(features(pixels), of)
        results = measure_classes("classifier", found, real, training, classes).values()
        count = min(len(pixels), len(real.labels))
        recognised = sum((r.recognised or 0.0) * r.n for r in results) / len(pixels)
        distance = frechet_distance(found.features[:count], real.features[:count])
        return {"recognised": round(recognised, 4), "frechet": round(distance, 2), "n": count}

    shuffled = np.random.default_rng(0).permutation(len(parts.train))[: len(parts.held_out)]
    print(json.dumps({"of": "training images", **measure(parts.train.pixels[shuffled], parts.train.labels[shuffled])}))
    lines: dict[Path, dict[str, object]] = {}
    for name in a.samplers.split(","):
        for row, guidance in ROWS.items():
            sampling = replace(model.sampling(name), guidance=guidance)
            pixels = model.sample(a.n, label="all", sampling=sampling)
            path = a.out / f"{name}-{row}.npz".replace(" ", "-").replace(",", "")
            np.savez(path, images=pixels)
            lines[path] = {"sampler": name, "guidance": row, **measure(pixels, labels)}
    if a.judge:
        printed = subprocess.run([*shlex.split(a.judge), *map(str, lines)], capture_output=True, text=True, check=True).stdout
        for judged in map(json.loads, printed.splitlines()):
            lines[Path(judged["samples"])] |= {"judge": judged["fd"]}
    for line in lines.values():
        print(json.dumps(line))


if __name__ == "__main__":
    main()
