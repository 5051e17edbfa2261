"""`unnoise restore`."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from unnoise.cli.options import Changes, as_options, data_changes, progress_bar, say
from unnoise.cli.restore_files import Images, find_images, refuse_overwriting
from unnoise.cli.restore_images import Restoration
from unnoise.cli.restore_options import Degradation, Mode, parse_noise
from unnoise.utils.errors import UserError, printable


def restore(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    images: Annotated[Positional[tuple[Path, ...]], arg(help="images, or folders of them")],
    task: Annotated[str, arg(help="denoise, salt-and-pepper, inpaint, upscale, deblur, colourise, dejpeg")] = "denoise",
    sigma: Annotated[float | None, arg(help="the noise's standard deviation in 1/255; denoise: estimated if not given")] = None,
    noise: Annotated[str | None, arg(help="poisson:PEAK, speckle:SIGMA, camera:GAIN,READ or correlated:SIGMA,PIXELS")] = None,
    mask: Annotated[Path | None, arg(help="inpaint: an image that is white, or painted, where pixels are missing")] = None,
    invert_mask: Annotated[bool, arg(help="inpaint: the mask is black, or transparent, where pixels are missing")] = False,
    factor: Annotated[int | None, arg(help="upscale: how many times; 4 by default")] = None,
    blur: Annotated[float | None, arg(help="deblur: the blur's standard deviation in pixels; 1.5 by default")] = None,
    motion: Annotated[str | None, arg(help="deblur: LENGTH,DEGREES of a motion")] = None,
    quality: Annotated[int | None, arg(help="dejpeg: the JPEG's quality; read from the file if not given")] = None,
    mode: Annotated[str | None, arg(help="mean: least error; sample: one, sharper; average: the mean of samples")] = None,
    samples: Annotated[int | None, arg(help="how many samples an average and its deviation are of; 8 by default")] = None,
    method: Annotated[str | None, arg(help="mmps, spectral, diffpir, ddnm; experimental: dps")] = None,
    label: Annotated[str | None, arg(help="the images' class, if the run was trained with labels")] = None,
    add_noise: Annotated[float | None, arg(help="try it out: degrade clean images first, with this noise; 0: none")] = None,
    range: Annotated[str | None, arg(help="values that are black and white: 0,4095; those of training by default")] = None,
    bands: Annotated[str | None, arg(help="the images' bands that are red, green and blue, or grey: 1,2,3 or 4")] = None,
    bits: Annotated[int, arg(help="of the results' channels: 8 or 16, which are read too where an image has them")] = 8,
    out: Annotated[Path, arg(help="folder for the results")] = Path("restored"),
    overwrite: Annotated[bool, arg(help="replace files that are no results of restoring; never the originals")] = False,
    seed: Annotated[int, arg(help="of added noise and of samples")] = 0,
    *,
    changes: tyro.conf.Suppress[Changes | None] = None,
) -> int:
    """Denoise and restore images of any size with a trained model.

    Each gets OUT/NAME.png and, in OUT/details, NAME-difference.png (grey: nothing changed), NAME-strip.png (before, after,
    difference, deviation) and, of several samples, NAME-std.png (bright: uncertain); sub-folders are kept. Originals are never
    written over. An image that can't be restored is named, the others are restored, and the exit code is 1.

    Examples: unnoise restore runs/photos noisy.png
              unnoise restore runs/photos noisy.png --sigma 25 --mode sample
              unnoise restore runs/photos holed.png --task inpaint --mask holes.png
              unnoise restore runs/photos small/ --task upscale --factor 4 --out large
              unnoise restore runs/photos clean.png --task deblur --blur 1.5 --add-noise 2
    """
    from unnoise.model import Model
    from unnoise.restoration.noise import GaussianNoise

    degradation = Degradation(task, noise, mask, invert_mask, factor, blur, motion, quality)
    degradation.check(sigma, add_noise)
    if bits not in (8, 16):
        raise UserError(f"--bits is 8 or 16, not {bits}")
    if noise is not None and isinstance(kind := parse_noise(noise), GaussianNoise):  # the same as --sigma
        degradation, sigma = replace(degradation, noise=None), kind.sigma
        add_noise = kind.sigma if add_noise == 0 else add_noise
    how = Mode(mode or ("mean" if degradation.white else "average"), samples, method, seed, label)
    how.check(degradation.white, bool(sigma or add_noise or degradation.noise) or task == "dejpeg", changes or {})
    found = find_images(images, out)
    refuse_overwriting(found.places, mask, out, overwrite)
    model = Model.load(run).mean_model.reading(data_changes(None, value_range=range, bands=bands))
    sampling = model.info.restoring(changes)
    if mask is not None:
        say(degradation.read_mask().said)
    with progress_bar(len(found.places) * how.sample_count, "samples" if how.sample_count > 1 else "images") as advance:
        restoration = Restoration(model, degradation, how, sampling, sigma, add_noise, bits, out, overwrite, advance)
        return _restore_each(found, restoration, lambda: advance(how.sample_count))


def _restore_each(images: Images, restoration: Restoration, skip: Callable[[], None]) -> int:
    """Restore one after the other; one that can't be is named and left out. Raises UserError where it is the only one."""
    left_out, places = images.unread, images.places
    for sentence in images.left_out:
        print(f"unnoise: {printable(sentence)}", file=sys.stderr, flush=True)
    for number, place in enumerate(places):
        try:
            job = restoration.prepare(place)
        except UserError as e:
            if len(places) == 1:
                raise
            print(f"unnoise: left out: {printable(as_options(str(e)))}", file=sys.stderr, flush=True)
            left_out += 1
            skip()
        else:
            restoration.run(number, job)
    if left_out:
        print(f"unnoise: {left_out} of {images.unread + len(places)} images could not be restored", file=sys.stderr)
    return 1 if left_out else 0
