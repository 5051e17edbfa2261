"""A run folder of a stranger's: all that it holds is answered by a sentence, in little memory, and nothing outside is touched."""

import copy
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import save_file

from tests.conftest import quiet, small
from unnoise.cli.options import say
from unnoise.data.arrays import InMemory
from unnoise.export.weights import read_state_dict
from unnoise.model import Model
from unnoise.recipe import RunInfo, command_line
from unnoise.run_folder import RunFolder, list_runs
from unnoise.runs.generate import regenerate
from unnoise.runs.resume import resume
from unnoise.runs.start import begin
from unnoise.runs.trainer import Trainer
from unnoise.training import checkpoint
from unnoise.utils.errors import UserError

MEMORY = 300 * 2**20  # bytes that reading a hostile run may take


@pytest.fixture
def strangers(small_run: Trainer, tmp_path: Path) -> Path:
    """A copy of a run, to be tampered with."""
    return Path(shutil.copytree(small_run.folder.path, tmp_path / "strangers" / "run"))


def tamper(run: Path, path: str, value: Any) -> None:
    """Change a value of recipe.json by its dotted name."""
    recipe = json.loads((run / "recipe.json").read_text())
    *parts, last = path.split(".")
    node = recipe
    for part in parts:
        node = node[part]
    node[last] = value
    (run / "recipe.json").write_text(json.dumps(recipe))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


VALUES = [
    ("recipe.network.widths", [10**9, 10**9]), ("recipe.network.widths", [16] * 10**4), ("recipe.network.widths", [8192, 8192]),
    ("recipe.network.blocks", 10**9), ("recipe.network.patch", 10**6), ("recipe.network.embedding", 10**12),
    ("recipe.sampling.steps", 10**12), ("recipe.training.steps", 10**18), ("recipe.training.batch", 10**12),
    ("recipe.training.learning_rate", 1e300), ("shape", [1, 2**16, 2**16]), ("shape", [0, 8, 8]), ("shape", [1, -8, 8]),
    ("classes", ["a"] * (10**6 + 1)), ("classes", ["a"] * 10**5), ("recipe.schedule", {"name": "linear", "timesteps": 10**12}),
    ("recipe.schedule", {"name": "antigravity:Karras"}), ("recipe.schedule", {"name": "os:PathLike"}),
    ("recipe.network", {"name": "subprocess:Popen"}), ("recipe", None), ("recipe", []),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), VALUES, ids=[f"{p}={str(v)[:30]}" for p, v in VALUES])
def test_numbers_that_nobody_means(strangers: Path, path: str, value: Any) -> None:
    tamper(strangers, path, value)
    with pytest.raises(UserError):
        Model.load(strangers)


TEXTS = ['{"recipe": NaN}', '{"recipe": 1e999}', "[" * 10**5 + "]" * 10**5, '{"a":' * 10**5, "{}", "[]", "null", '"', "\0",
         '{"a":1,' * 9, '{"recipe": {}, "shape": [1, 8, Infinity]}']  # fmt: skip


@pytest.mark.parametrize("text", TEXTS, ids=[t[:16] for t in TEXTS])
def test_json_that_is_none(strangers: Path, text: str) -> None:
    (strangers / "recipe.json").write_text(text)
    with pytest.raises(UserError, match=r"recipe\.json"):
        RunFolder.open(strangers).read_info()
    (found,) = list_runs(strangers.parent)
    assert found.state.startswith("unreadable")


def test_one_bad_run_hides_no_other(strangers: Path) -> None:
    shutil.copytree(strangers, strangers.with_name("bad"))
    (strangers.with_name("bad") / "recipe.json").write_text("{}")
    assert sorted(r.state.partition(" ")[0] for r in list_runs(strangers.parent)) == ["done", "unreadable"]


LINES = ['{"step": 1}', "[1]", '{"step": "x", "loss": 1}', '{"step": 1, "loss": NaN}', '{"step": 1e999, "loss": 0}', "[" * 10**5,
         "\xff{", '{"step": 1,']  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=[t[:20] for t in LINES])
def test_lines_that_are_no_records(strangers: Path, line: str) -> None:
    for name in ("metrics.jsonl", "held-out.jsonl"):
        with (strangers / name).open("a") as file:
            file.write(line + "\n")
    assert RunFolder(strangers).read_losses() is not None
    (found,) = list_runs(strangers.parent)
    assert found.state == "done"


def test_weights_are_held_against_their_header_before_memory_is_taken(strangers: Path) -> None:
    """A recipe of a network of 8 GB beside weights of 1 MB."""
    tamper(strangers, "recipe.network.widths", [8192, 8192])
    code = (f"from unnoise.model import Model\nfrom unnoise.utils.errors import UserError\n"
            f"try: Model.load({str(strangers)!r})\nexcept UserError as e: print(e)")  # fmt: skip
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31))\n"
    done = subprocess.run([sys.executable, "-c", limit + code], capture_output=True, text=True, check=False, timeout=60)
    assert "does not fit the network of its recipe" in done.stdout, done.stderr


@pytest.mark.parametrize("names", [["/dev/zero"], ["../../secret"], ["missing"], [".."], [""]])
def test_manifests_name_files_in_their_folder_alone(strangers: Path, names: list[str]) -> None:
    (newest,) = checkpoint.list_checkpoints(strangers / "checkpoints")[-1:]
    sums = json.loads((newest / "manifest.json").read_text())
    sums["sha256"] |= dict.fromkeys(names, "0" * 64)
    (newest / "manifest.json").write_text(json.dumps(sums))
    with pytest.raises(UserError, match="damaged"):
        resume(strangers, quiet)


@pytest.mark.parametrize("name", ["generated", "checkpoints", "samples", "snapshots", "model.safetensors", "mine"])
def test_links_out_of_a_run_are_refused(strangers: Path, tmp_path: Path, name: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "000000.png").write_bytes(b"a photograph")
    before = snapshot(photos)
    there = strangers / name
    if there.is_dir():
        shutil.rmtree(there)
    there.unlink(missing_ok=True)
    there.symlink_to(photos if name != "model.safetensors" else photos / "000000.png")
    for use in (Model.load, lambda run: resume(run, quiet)):
        with pytest.raises(UserError, match="a link that leads out of its run"):
            use(strangers)
    assert snapshot(photos) == before


def test_temporary_names_lead_nowhere(strangers: Path, tmp_path: Path) -> None:
    """A link at the name that an earlier version wrote to first is not followed."""
    from unnoise.runs.generate import Generation, generate

    secret = tmp_path / "secret"
    secret.write_text("a user's own")
    (strangers / "generated").mkdir()
    for name in (".generation.tmp.json", ".000000.tmp.png"):
        (strangers / "generated" / name).symlink_to(secret)
    model = Model.load(strangers)
    list(generate(model, Generation.of(model, 2, 0, 2, model.info.recipe.sampling), strangers / "generated"))
    assert secret.read_text() == "a user's own"


def test_modules_within_a_run_are_not_imported(strangers: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (strangers / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    monkeypatch.chdir(strangers)
    monkeypatch.syspath_prepend(str(strangers))
    tamper(strangers, "recipe.schedule", {"name": "evil:Karras"})
    with pytest.raises(UserError, match="lies in a run folder"):
        Model.load(strangers)
    assert not (tmp_path / "ran").exists()


TEXT_KEY = "unnoise"
SPEECH = ["null", "[]", "{}", '{"index": 1e999}', '{"index": -1}', "[" * 10**5, '{"index": 1e30, "seed": 0, "count": 1e30}',
          json.dumps({"index": 0, "seed": "x", "count": 1, "batch": 0, "sampling": {}, "label": None, "weights": 3})]  # fmt: skip


@pytest.mark.parametrize("text", SPEECH, ids=[t[:20] for t in SPEECH])
def test_texts_inside_images(strangers: Path, tmp_path: Path, text: str) -> None:
    info = PngInfo()
    info.add_text(TEXT_KEY, text)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError):
        regenerate(Model.load(strangers), tmp_path / "a.png")


def test_only_png_is_read_for_its_text(strangers: Path, tmp_path: Path) -> None:
    """An EPS, whatever its name, would start another program."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    os.rename(tmp_path / "a.eps", tmp_path / "a.png")  # noqa: PTH104
    with pytest.raises(UserError, match="does not say how it was generated"):
        regenerate(Model.load(strangers), tmp_path / "a.png")


def test_names_do_not_reach_the_terminal_as_codes(capsys: pytest.CaptureFixture[str]) -> None:
    say("\x1b[2Jphotos/\x07\u202eg.png \udce9 \u00e9")
    assert capsys.readouterr().out == "\\x1b[2Jphotos/\\x07\\x202eg.png \\xdce9 \u00e9\n"


def test_weights_hold_as_much_as_their_shapes_say(tmp_path: Path) -> None:
    torch.save({"conv0.weight": torch.zeros(1).expand(2**14, 2**14)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds less for 'conv0\.weight' than its shape says"):
        read_state_dict(tmp_path / "a.pth")


def test_what_is_shared_says_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/.venv/bin/unnoise", "train", "/home/me/photos", "--run=/tmp/x", "--size", "64"])
    assert command_line() == "unnoise train photos --run=x --size 64"


def test_of_few_images_no_moments_are_kept(tmp_path: Path) -> None:
    """Of 64 images the mean and 64 components say nearly all."""
    said: list[str] = []
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    recipe = small(training__steps=1, data__held_out=0.0, data__source=InMemory(pixels))
    run = begin(tmp_path / "r", recipe, said.append)
    list(run.train())
    assert run.info.recipe.sampling.start == "noise" and any("nearly are these images" in line for line in said)
    assert RunFolder(tmp_path / "r").read_moments() is None


SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=8), v, max_size=4), max_leaves=12
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(p for key, value in inner for p in places(value, (*path, key)))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_change_of_a_recipe_is_read_or_refused(small_run: Trainer, tmp_path: Path, data: st.DataObject) -> None:
    recipe = json.loads((small_run.folder.path / "recipe.json").read_text())
    *parts, last = data.draw(st.sampled_from([p for p in places(recipe) if p]))
    changed = copy.deepcopy(recipe)
    node = changed
    for part in parts:
        node = node[part]
    if isinstance(node, dict) and data.draw(st.booleans()):
        del node[last]
    else:
        node[last] = data.draw(JSON)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(changed))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        info = RunInfo.load(path)
        info.recipe.weight_shapes(info.shape, len(info.classes))
    except UserError:
        pass
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200), where=st.integers(0, 2000))
def test_any_bytes_in_the_weights(strangers: Path, raw: bytes, where: int) -> None:
    original = (strangers / "model.safetensors").read_bytes()
    (strangers / "model.safetensors").write_bytes(original[:where] + raw + original[where + len(raw) :])
    try:
        Model.load(strangers)
    except UserError:
        pass
    finally:
        (strangers / "model.safetensors").write_bytes(original)


def test_weights_of_another_network_are_named(strangers: Path) -> None:
    save_file({"network.x": np.zeros(3, np.float32)}, strangers / "model.safetensors")
    with pytest.raises(UserError, match=r"does not fit the network of its recipe: '.*' is "):
        Model.load(strangers)
