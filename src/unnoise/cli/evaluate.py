"""`unnoise evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import progress_bar, say

if TYPE_CHECKING:
    from unnoise.evaluation.result import Evaluation


def evaluate(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    data: Annotated[str | None, arg(help="images to hold samples against; by default those that the run held out")] = None,
    n: Annotated[int | None, arg(aliases=["-n"], help="how many samples; 1000, or as many as there are training images")] = None,
    features: Annotated[
        str | None, arg(help="classifier, pixels, dinov2, inception, these two with :FILE too, or FILE.onnx")
    ] = None,
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
    from unnoise.hub import local
    from unnoise.runs.evaluated import evaluated_before

    run = local(run)
    found = evaluated_before(run, n, features, seed) if data is None else None
    found = found or _evaluate(run, data, n, features, seed, quiet=json_)
    if found is None:
        return 0
    if json_:
        print(json.dumps(found.to_json()))
        return 0
    say(f"{found.n} samples against {found.real} images that the run never saw")
    say(found.table())
    say(f"{run / 'evaluation.json'}; {run / 'evaluation-nearest.png'}: suspicious samples, each left of its nearest image")
    return 0


def _evaluate(run: Path, data: str | None, n: int | None, features: str | None, seed: int,
              quiet: bool) -> "Evaluation | None":  # fmt: skip
    """What is found now; None in other processes than the first."""
    from unnoise.runs.evaluate import prepare
    from unnoise.utils.runtime import Runtime

    runtime = Runtime.join()
    with runtime.guard():
        job = prepare(run, data, n, features, seed, runtime=runtime)
        with progress_bar(job.total, "images", shown=runtime.is_first and not quiet) as advance:
            found = job.run(advance)
        runtime.leave()
    return found if runtime.is_first else None
