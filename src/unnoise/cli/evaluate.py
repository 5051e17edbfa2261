"""`unnoise evaluate`."""

import json
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import progress_bar, say


def evaluate(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    data: Annotated[str | None, arg(help="images to hold samples against; by default those that the run held out")] = None,
    n: Annotated[int | None, arg(aliases=["-n"], help="how many samples; 1000, or as many as there are training images")] = None,
    features: Annotated[str | None, arg(help="classifier, pixels, inception, inception:FILE, or FILE.onnx")] = None,
    seed: Annotated[int, arg(help="of the samples, and of what is chosen at random")] = 0,
    json_: Annotated[bool, arg(name="json", help="print one JSON object and nothing else")] = False,
) -> int:
    """Say how good a model is, beside the best that can be, and whether it copies its training images.

    Prints each measure with its 95 % interval and its floor: the value of as many training images in place of the samples. Writes
    RUN/evaluation.json and, of the samples most like a training image, RUN/evaluation-nearest.png.

    Examples: unnoise evaluate runs/digits
              unnoise evaluate runs/photos -n 500 --features encoder.onnx
              unnoise evaluate runs/photos --data other/photos --json
    """
    from unnoise.runs.evaluate import prepare

    job = prepare(run, data, n, features, seed)
    with progress_bar(job.total, "images", shown=not json_) as advance:
        found = job.run(advance)
    if json_:
        print(json.dumps(found.to_json()))
        return 0
    say(f"{found.n} samples against {found.real} images that the run never saw")
    say(found.table())
    say(f"{job.folder.evaluation}; {job.folder.evaluation_nearest}: suspicious samples, each left of its nearest training image")
    return 0
