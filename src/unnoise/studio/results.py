"""What finished and unfinished jobs give: their events, downloads, one image's trajectory and its nearest training images."""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from unnoise import figures
from unnoise.studio import events, pixels
from unnoise.studio.errors import Refusal
from unnoise.studio.requests import api_of
from unnoise.studio.sample import Samples, samples_of
from unnoise.utils.png import png_text

NEIGHBOURS = 6
Nearest = list[tuple[float, np.ndarray]]


def job_events(request: Request) -> StreamingResponse:
    return events.stream(api_of(request).jobs.find(request.path_params["job"]).watch())


def cancel(request: Request) -> Response:
    api_of(request).jobs.find(request.path_params["job"]).cancel()
    return JSONResponse({})


def grid_png(request: Request) -> Response:
    found, buffer = _samples(request), io.BytesIO()
    figures.grid(found.images).save(buffer, "PNG", pnginfo=png_text({}))
    return _download(buffer.getvalue(), f"{found.run}-{found.seed}.png", "image/png")


def images_npz(request: Request) -> Response:
    found, buffer = _samples(request), io.BytesIO()
    labels: dict[str, Any] = {} if found.labels is None else {"labels": np.array(found.labels)}
    np.savez_compressed(buffer, images=found.images, **labels)
    return _download(buffer.getvalue(), f"{found.run}-{found.seed}.npz", "application/octet-stream")


def trajectory_gif(request: Request) -> Response:
    found = _samples(request)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trajectory.gif"
        figures.film([figures.grid(frame) for frame in found.frames], path)
        return _download(path.read_bytes(), f"{found.run}-{found.seed}.gif", "image/gif")


def trajectory(request: Request) -> Response:
    found = _samples(request)
    return JSONResponse({"frames": pixels.all_to_json(found.frames[:, _index(request, found)])})


def nearest(request: Request) -> Response:
    """The training images nearest to a sample. Raises Refusal where they are not on this machine any more."""
    found, images = _samples(request), api_of(request).models.images(_samples(request).run)
    near = nearest_images(found.images[_index(request, found)], images.split.train.chunks(), NEIGHBOURS)
    return JSONResponse({"neighbours": [{"image": pixels.to_json(image), "distance": d} for d, image in near]})


def nearest_images(image: np.ndarray, chunks: Iterable[np.ndarray], count: int) -> Nearest:
    """The `count` images (H, W, C) of `chunks` (N, H, W, C) that are nearest to `image`, all uint8, the nearest first.

    Distances are the root mean square difference of their values, of 255.
    """
    best: Nearest = []
    for chunk in chunks:
        squares = np.square(chunk.astype(np.float32) - image.astype(np.float32)).reshape(len(chunk), -1).mean(1)
        first = np.argsort(squares)[:count]
        best += [(float(np.sqrt(squares[k])), chunk[k]) for k in first]
        best = sorted(best, key=lambda pair: pair[0])[:count]
    return best


def _samples(request: Request) -> Samples:
    return samples_of(api_of(request).jobs, request.path_params["job"])


def _index(request: Request, found: Samples) -> int:
    index: int = request.path_params["index"]
    if index >= len(found.images):
        raise Refusal(404, f"there are {len(found.images)} images, counted from 0: choose one of them")
    return index


def _download(content: bytes, name: str, kind: str) -> Response:
    disposition = f"attachment; filename*=UTF-8''{quote(name)}"  # RFC 6266
    return Response(content, media_type=kind, headers={"content-disposition": disposition})
