"""Help, start-up, and words that have a new name."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from unnoise import __version__
from unnoise.cli import VERBS
from unnoise.cli.options import as_options
from unnoise.utils.names import RENAMED

LIGHT = [["--help"], ["trian"], ["train", "--help"], ["sample", "--stpes", "3", "x"], ["sample", "--redraw", "x.png"]]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_help_and_mistypes_do_not_load_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom unnoise import cli\n"
        f"sys.argv = ['unnoise', *{words}]\n"
        "try: cli.main()\nexcept SystemExit as e: print('code', e.code)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"code {0 if '--help' in words else 2}" in done.stdout


def test_neither_training_nor_sampling_imports_the_compiler(tmp_path: Path) -> None:
    """It takes as long as importing torch, and most machines compile nothing."""
    code = (
        "import sys\nimport unnoise as un\n"
        "un.train('digits', steps=2, out='r', **{'network.widths': [16], 'training.sample_count': 1})\n"
        "un.load('r').sample(1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_usage_names_every_verb(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in VERBS:
        assert any(line.startswith(f"  unnoise {verb} ") for line in lines), verb
    assert command() == 2
    assert command("--version") == 0
    assert capsys.readouterr().out.endswith(f"{__version__}\n")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(verb, "--help") == 0
    first = (VERBS[verb].__doc__ or "").splitlines()[0]
    assert " ".join(first.split()[:3]) in capsys.readouterr().out


NEW_NAMES = {  # each old word: a command that has it, and the new word
    "noise": ("train digits --target noise", "epsilon"),
    "picture": ("train digits --target picture", "x0"),
    "karras": ("train digits --target karras", "edm"),
    "pictures": ("train pictures --data {data}", "images"),
    "penalty": ("train digits --training.penalty l1", "loss"),
    "fall": ("train digits --training.fall cosine", "lr_schedule"),
    "recompute": ("train digits --training.recompute true", "activation_checkpointing"),
    "parts": ("train digits --training.parts 2", "micro_batches"),
    "more_ema": ("train digits --training.more-ema 0.05", "extra_ema"),
    "spread_times": ("train digits --training.spread-times=false", "stratified_times"),
    "part": ("train --data {data}/a-{{000..003}}.tar --data.source.part 1", "split"),
    "divide": ("train --data {data}/a-{{000..003}}.tar --data.source.divide true", "per_process"),
    "redraw": ("sample {trained} --redraw x.png", "--regenerate"),
    "morph": ("morph {trained} 3 4", "interpolate"),
}
ALSO = [
    ("info pictures", "images"),
    ("sample {trained} --redraw=x.png", "--regenerate"),
    ("train digits --training.penalty.delta 2 --training.penalty huber", "loss"),
    ("train --data {data}/a-{{000..003}}.tar --data.source.parts 2", "splits"),
]


@pytest.mark.parametrize(("line", "new"), [*NEW_NAMES.values(), *ALSO], ids=lambda v: v.split(" --")[-1])
def test_an_old_name_is_answered_with_the_new_one(
    line: str, new: str, tmp_path: Path, trained: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for k in range(4):
        (tmp_path / f"a-{k:03d}.tar").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    error = refused(*(word.format(data=tmp_path, trained=trained) for word in line.split()))
    assert f"it is now '{new}'" in error or f"is now {new}\n" in error, error
    assert sorted(tmp_path.rglob("*")) == before


def test_every_old_name_is_tried() -> None:
    assert NEW_NAMES.keys() == RENAMED.keys()


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("give training.steps or training.minutes", "give --steps or --minutes"),
        ("choose another `out`, or `add_noise` 0", "choose another --out, or --add-noise 0"),
        ("give data.source.root, or set data.source.download", "give --root, or set --download"),
        ("lower training.learning_rate", "lower --training.learning-rate"),
        ("choose sampling.guidance auto", "choose --sampling.guidance auto"),
        ("choose network unet, or data.augment 0", "choose --network unet, or --data.augment 0"),
        ("choose target velocity or flow", "choose --target velocity or flow"),
        ("unknown field 'data.source.root'", "unknown field 'data.source.root'"),
        ("can't read '/my/data.size/training.steps'", "can't read '/my/data.size/training.steps'"),
        ("a target that this schedule lacks", "a target that this schedule lacks"),
    ],
)
def test_messages_show_fields_as_options(message: str, shown: str) -> None:
    assert as_options(message) == shown
