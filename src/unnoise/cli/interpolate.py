"""`unnoise interpolate`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import say


def interpolate(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    ends: Annotated[Positional[tuple[str, ...]], arg(help="two or more: indices of samples, or image files")],
    n: Annotated[int, arg(aliases=["-n"], help="images in all, ends included")] = 9,
    seed: Annotated[int, arg(help="of the samples named by index")] = 0,
    label: Annotated[str | None, arg(help="the class of all of them, for a run with labels")] = None,
    steps: Annotated[int, arg(help="sampling steps; images need about 100 to come back as they were")] = 100,
    out: Annotated[Path, arg(help="a .png with all of them in a row, or a .gif or .mp4")] = Path("interpolation.png"),
    overwrite: Annotated[bool, arg(help="replace a file of that name that this program did not write")] = False,
) -> int:
    """Interpolate between images through the noise that they come from, by DDIM.

    An image file is first inverted to its noise.

    Examples: unnoise interpolate runs/digits 3 8 --label 5
              unnoise interpolate runs/photos mine.png yours.png -n 24 --out interpolation.gif
    """
    from dataclasses import replace

    import torch

    from unnoise import figures
    from unnoise.data.labels import class_index
    from unnoise.data.pixels import to_uint8
    from unnoise.diffusion.inversion import interpolate
    from unnoise.model import Model

    figures.check_name(out, out.suffix in (".gif", ".mp4"), overwrite)
    model = Model.load(run).mean_model
    sampling = replace(model.info.recipe.sampling, steps=steps)
    sampling.times(model.info.recipe.schedule, steps)
    index = None if label is None else torch.tensor([class_index(label, model.info.classes)], device=model.info.device)
    noises = []
    for end in ends:
        if end.isdigit():
            noises.append(model.noise_of(int(end), seed))
        else:
            noises.append(model.invert(model.read_image(end, fitted=True), sampling, index)[0])
    x = model.sample_from_noise(interpolate(noises, n), sampling, None if index is None else index.expand(n))
    if out.suffix == ".png":
        figures.save(figures.grid(to_uint8(x), columns=n), out, overwrite=overwrite)
    else:
        figures.film([figures.grid(p[None]) for p in to_uint8(x)], out, overwrite=overwrite)
    say(f"{out}: {n} images from {ends[0]} to {ends[-1]}")
    return 0
