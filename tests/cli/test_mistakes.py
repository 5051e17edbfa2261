"""The command's answer to mistakes: one sentence with the remedy, exit 2, no traceback, nothing written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CASES = [  # {names} are those of `places`
    ("train digts", "neither images nor a preset: did you mean 'digits'"),
    ("train image", "did you mean 'images'"),
    ("train digits --stop-when platau", "did you mean 'plateau'"),
    ("train --data digts", "did you mean 'digits'"),
    ("train --data {tmp}/missing", "check the path"),
    ("train --data {empty}", "no images in"),
    ("train --data {texts}", "none of the 1 files"),
    ("train --data {pickled}", "numpy.savez"),
    ("train digits --sampler hen", "did you mean 'heun'"),
    ("train digits --schedule cosin", "did you mean 'cosine'"),
    ("train digits --network.width 3", "did you mean 'widths'"),
    ("train digits --steps -3", "greater than 0"),
    ("train digits --minutes 0", "greater than 0"),
    ("train digits --size 9 --network simple-unet", "multiples of"),
    ("train digits --steps 1 --run {tmp}/file/r", "choose another folder"),
    ("train --resume {tmp}/nowhere", "no run folder"),
    ("sample {tmp}/nowhere", "no run folder"),
    ("sample {empty}", "no recipe.json"),
    ("sample {no_model}", "no model.safetensors"),
    ("sample {wrong}", "unknown field 'shedule'"),
    ("sample {trained} -n 0", "at least 1"),
    ("sample {trained} --steps 0", "at least 1"),
    ("sample {trained} --out {tmp}/file/x", "choose another --out"),
    ("sample {trained} --out {tmp}/x.jpg", "a folder's name"),
    ("info digitz", "did you mean 'digits'"),
    ("runs {empty}", "no runs in"),
    ("data inspect {empty}", "no images in"),
    ("data inspekt {empty}", "did you mean 'inspect'"),
    ("data inspect", "say what to inspect"),
    ("data inspect fgvc-aircraft --root {empty}", "give --root, the folder that holds it, or set --download"),
    ("data inspect {texts} --size 8 --cache {tmp}/file/x", "choose another --cache"),
    ("train --data {tmp} --labels folder --size 8", "train without --labels folder"),
    ("data inspect digits --root {empty}", "unknown field 'data.source.root'"),
    ("data inspect fgvc-aircraft --data.source.level famly", "did you mean 'family'"),
    ("train notebook --root {empty}", "give --root, the folder that holds it, or set --download"),
    ("train images", "give --data"),
    ("train digits --lr 3", "--lr is --training.learning-rate here"),
    ("train digits --epochs 3", "--epochs is --training.epochs here"),
    ("train digits --batch-size 3", "--batch-size is --batch here"),
    ("train digits --stepps 3", "did you mean --steps?"),
    ("train digits --epoch 3", "--epoch is --training.epochs here"),
    ("train {colours} --out {out}", "--out is --run here"),
    ("train digits --guidance 2", "unknown option --guidance: it is one of distill, sample, and 'unnoise train --help'"),
    ("train digits --shedule cosine", "unknown option --shedule: did you mean --schedule?"),
    ("train digits --devise cpu", "unknown option --devise: 'unnoise train --help'"),
    ("train my photos", "can't take 'photos': write a path with spaces in quotes"),
    ("train digits --fast=yes", "--fast takes no value"),
    ("sample --run {trained}", "RUN is given without --run, as in 'unnoise sample runs/digits"),
    ("sample {trained} -q", "unknown option -q"),
    ("sample {trained} --samplr ddim", "unknown option --samplr: did you mean --sampler?"),
    ("train in/plain", "check the path"),
    ("sample {trained} --clamp-estimate true", "is --sampling.clamp-estimate here"),
    ("sample {trained} --lr 3", "unknown option --lr"),
    ("train --resume {trained} --batch 3", "so it can't take --batch"),
    ("train digits --resume {trained}", "so it can't take 'what'"),
    ("train --resume {trained} --network.widths 16", "so it can't take --network.widths"),
    ("train --resume {trained} --steps 1", "steps already: --steps is the number in all"),
    ("train --resume {trained} --data fashion-mnist", "give --root"),
    ("train digits --from-run {empty}", "no recipe.json"),
    ("train {colours} --from-run {trained} --steps 1 --size 8", "was trained on grey images, and these are colour"),
    ("train digits --from-run {trained} --steps 1 --network.widths 16,48", "don't fit the network"),
    ("figure revers {trained}", "did you mean 'reverse'"),
    ("figure reverse", "unnoise figure reverse RUN"),
    ("figure schedules --schedule.timesteps 300", "takes --out alone"),
    ("figure loss {trained} --sampling.steps 3", "takes no recipe fields"),
    ("figure animation {trained} --out {tmp}/a.webm", ".gif or .mp4"),
    ("figure data digits --out {tmp}/a.jpg", "ends so"),
    ("figure data digits --out {tmp}/file/a.png", "can't read or write"),
    ("sample {trained} --out .", "a folder's name"),
    ("train --data folder", "neither a known data set nor a path"),
    ("train digits --labels yes", "folder or none"),
    ("train digits --labels folder", "takes the sub-folders of a folder of images"),
    ("train {pickled} --labels folder", "labels of its own are used anyway"),
    ("data inspect {pickled} --labels folder", "labels of its own are used anyway"),
    ("data inspect {tmp} --labels yes", "folder or none"),
    ("train --data {tmp} --size big", "--size is a side or height,width"),
    ("train --data {tmp} --size 16,16,3", "--size is a side or height,width"),
    ("train --data {tmp} --data.size big", "must be a list [int, int] or nothing"),
    ("train --data {tmp} --range 4095", "--range is what becomes black and white"),
    ("train --data {tmp} --range 9,9", "--range goes from what is black to what is white"),
    ("train --data {tmp} --bands 1,2", "--bands is one or three numbers"),
    ("train --data {tmp} --bands 0", "--bands are one or three numbers from 1"),
    ("train --data {tmp} --bands 2,3,4 --size 8", "none of number 4"),
    ("data inspect {empty}", "no images in"),
    ("figure loss {no_model}", "no metrics.jsonl"),
    ("figure schedules --out {tmp}/s.jpg", "ends so"),
    ("figure data digits -n 0", "at least 1"),
    ("import {tmp}/no.pth --run {out}", "no file"),
    ("import {pickled} --run {out}", "not a file of plain weights"),
    ("import {pickled} --run {trained}", "holds a run already"),
    ("export {trained} --out {tmp}/x.pth", "simple-unet only"),
    ("export {trained} --out {tmp}/x.pth --format notebok", "did you mean 'notebook'"),
    ("restore {grey} {trained}", "is a run, which comes first"),
    ("sample weights.pth", "unnoise import weights.pth --run OTHER"),
    ("train --resume {tmp}/never", "train one with 'unnoise train IMAGES --run "),
    ("train digits --run {trained}", "(--run OTHER)"),
    ("restore {trained} {texts}/b.jpg", "can't be read as an image"),
    ("restore {trained} {tmp}/missing.png", "missing.png': check the path"),
    ("restore {trained} {colour}", "is colour and this run was trained on grey"),
    ("restore {trained} {grey} --task denoize", "did you mean 'denoise'"),
    ("restore {trained} {grey} --mode men", "did you mean 'mean'"),
    ("restore {trained} {grey} --sigma 0", "greater than 0"),
    ("restore {trained} {grey} --sigma 9e5", "of 255"),
    ("restore {trained} {grey} {grey}", "written over"),
    ("restore {trained} {grey} --out {tmp}", "written over"),
    ("restore {trained} {grey} --out {tmp}/clean.png", "is the name of an image: --out "),
    ("restore {trained} {grey} --sampling.steps 5", "add --mode sample"),
    ("restore {trained} {grey} --mode sample --sampling.stpes 5", "did you mean 'steps'"),
    ("restore {trained} {grey}", "no noise to speak of"),
    ("restore {trained} {empty} --sigma 9", "no images in"),
    ("restore {trained} {grey} --task inpaint", "needs --mask"),
    ("restore {trained} {grey} --task inpaint --mask {holed}", "make them the same size"),
    ("restore {trained} {grey} --task colourise", "trained on grey"),
    ("restore {trained} {grey} --task dejpeg", "is no JPEG file"),
    ("restore {trained} {grey} --task deblur --motion 9", "LENGTH,DEGREES"),
    ("restore {trained} {grey} --noise poison:3", "did you mean 'poisson'"),
    ("restore {trained} {grey} --noise camera:x", "a name and its numbers"),
    ("restore {trained} {grey} --noise poisson:9 --sigma 9", "leave --sigma away"),
    ("restore {trained} {grey} --task deblur --blur 9", "too wide for an image"),
    ("restore {trained} {grey} --task deblur --motion -3,0", "greater than 0 pixels"),
    ("restore {trained} {grey} --task upscale --factor 99 --add-noise 0", "not 99"),
    ("restore {trained} {grey} --factor 2", "--factor is for --task upscale"),
    ("restore {trained} {grey} --task dejpeg --quality 9 --sigma 9", "knows its own noise"),
    ("restore {trained} {grey} --task deblur --motion 9,inf", "a number of degrees"),
    ("restore {trained} {grey} --task deblur --motion 0,30", "greater than 0 pixels"),
    ("restore {trained} {grey} --task deblur --motion 9,30 --blur 2", "give one"),
    ("restore {trained} {grey} --task deblur --mode mean", "for white noise"),
    ("restore {trained} {grey} --sigma 9 --samples 4", "add --mode average"),
    ("restore {trained} {grey} --sigma 9 --method ddnm", "the denoiser's own"),
    ("restore {trained} {grey} --task deblur --sigma 9 --method ddnm", "takes no noise into account"),
    ("restore {trained} {grey} --task deblur --sampling.start data", "is for sampling new images"),
    ("restore {trained} {grey} --noise poisson:1e30 --add-noise 0", "below a million"),
    ("restore {trained} {grey} --sigma 9 --label cat", "unknown label 'cat'"),
    ("restore {trained} {tiny} --sigma 9", "at least"),
    ("restore {trained} {small}", "too small to estimate"),
    ("restore {trained} {grey} --task upscale --method mpms", "did you mean 'mmps'"),
    ("import {pickled} --run {out} --root {empty}", "add --data"),
    ("sample {trained} --label eight", "unknown label 'eight'"),
    ("sample {trained} --guidance -1", "at least 0"),
    ("sample {trained} --guidance 2 --sampling.guidance atuo", "did you mean 'auto'"),
    ("sample {trained} --from {grey} --strength 0", "at most 1"),
    ("sample {trained} --from {grey} --out {tmp}/x.npz", "a folder's name"),
    ("sample {trained} --regenerate {grey}", "does not say how it was generated"),
    ("sample {trained} --sampler dpm++2", "did you mean 'dpm++2"),
    ("interpolate {trained} 3 --out {out}/m.png", "two ends or more"),
    ("interpolate {trained} 3 4 --out {out}/m.jpg", "give a name that ends so"),
    ("average {trained} --width 0.1 --out {out}", "holds 0 stored averages"),
    ("train digits --batch many", "--batch is auto or a number"),
    ("train digits --training.optimizer mion", "did you mean 'muon'"),
    ("restore {trained} {grey} --sigma 9 --out {tmp}/file/x", "choose another --out"),
    ("restore {trained} {grey} --sigma 9 --bits 12", "--bits is 8 or 16, not 12"),
]


@pytest.fixture(scope="module")
def places(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders and files that the cases name."""
    tmp = tmp_path_factory.mktemp("mistakes")
    found = {name: tmp / name for name in ("empty", "texts", "no_model", "wrong", "here", "colours")}
    for folder in found.values():
        folder.mkdir()
    for k in range(4):
        Image.new("RGB", (8, 8), (k, 99, 200)).save(found["colours"] / f"{k}.png")
    (found["texts"] / "a.txt").write_text("hello")
    (found["texts"] / "b.jpg").write_text("not an image")
    recipe = (trained / "recipe.json").read_text()
    (found["no_model"] / "recipe.json").write_text(recipe)
    (found["wrong"] / "recipe.json").write_text(recipe.replace('"schedule"', '"shedule"'))
    np.savez(tmp / "pickled.npz", np.array([{}], dtype=object))
    (tmp / "file").write_text("")
    Image.new("RGB", (8, 8), "red").save(tmp / "colour.png")
    Image.new("L", (8, 8), 128).save(tmp / "grey.png")
    Image.fromarray(np.zeros((1, 3), np.uint8)).save(tmp / "tiny.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp / "small.png")
    Image.fromarray(np.pad(np.full((9, 9), 255, np.uint8), 5)).save(tmp / "holed.png")
    found |= {path.stem: path for path in tmp.iterdir() if path.suffix}
    return found | {"tmp": tmp, "out": tmp / "out", "trained": trained}


@pytest.mark.parametrize(("line", "hint"), CASES, ids=[line for line, _ in CASES])
def test_a_mistake(
    line: str, hint: str, places: dict[str, Path], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places["here"])
    before = [sorted(places[name].rglob("*")) for name in ("tmp", "trained")]
    words = [word.format(**places) for word in line.split()]
    if words[0] == "train" and not {"--run", "--resume"} & set(words):
        words += ["--run", str(places["out"])]
    error = refused(*words)
    assert hint in error, error
    assert [sorted(places[name].rglob("*")) for name in ("tmp", "trained")] == before
