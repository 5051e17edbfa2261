"""What people and programs expect of a command: completion, --quiet, --json, exit codes, plain terminals, odd names of files."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import QUICK, Command
from unnoise.cli import VERBS, options
from unnoise.cli.completion import SHELLS
from unnoise.runs.progress import TrainingProgress
from unnoise.runs.trainer import Trainer

SOURCES = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))
POSIX = re.compile(
    r"\bos\.(fork|get[ep]?[ug]id|get[ps]?gid|set\w*id|killpg|nice|uname|sched_\w+|mkfifo|chown|statvfs|sync)\b|\bsignal\.SIG(HUP|KILL|USR\d|ALRM)\b"
    r"|^\s*(import|from) (fcntl|resource|pwd|grp|pty|tty|termios|syslog)\b", re.M
)  # fmt: skip


@pytest.mark.parametrize("text", [p.read_text(encoding="utf-8") for p in SOURCES], ids=[p.name for p in SOURCES])
def test_nothing_is_for_one_system_alone(text: str) -> None:
    """What Windows lacks is asked for before it is used, in the same line."""
    assert all("hasattr" in line for line in text.splitlines() if POSIX.search(line))


@pytest.mark.parametrize("shell", SHELLS)
def test_shells_complete_verbs_and_options(
    shell: str, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("completion", shell) == 0
    script = capsys.readouterr().out
    for word in (*VERBS, "stop-when-copying", "regenerate"):
        assert word in script, word
    assert "changes" not in script and "no-download" not in script
    if found := shutil.which(shell):
        path = tmp_path / "completion"
        path.write_text(script)
        assert subprocess.run([found, "-n", str(path)], check=False).returncode == 0


def test_bash_really_completes(command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As a shell would ask: the verbs that begin with sa, and the options of sample."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    assert command("completion", "bash") == 0
    path = tmp_path / "completion"
    path.write_text(capsys.readouterr().out)
    for typed, expected in (("unnoise sa", "sample"), ("unnoise sample --reg", "--regenerate")):
        words = typed.split()
        ask = (f"source {path}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{typed}'; COMP_POINT={len(typed)}; "
               "_tyro_unnoise; printf '%s\\n' \"${COMPREPLY[@]}\"")  # fmt: skip
        env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        assert expected in subprocess.run([bash, "-c", ask], capture_output=True, text=True, env=env, check=False).stdout.split()


def test_an_unknown_shell(refused: Callable[..., str]) -> None:
    assert "did you mean 'zsh'" in refused("completion", "zhs")


def test_quiet(trained: Path, command: Command, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["runs", trained.parent, "--quiet"], ["--quiet", "info", "digits"]):
        assert command(*words) == 0
        captured = capsys.readouterr()
        assert captured.out == captured.err == ""
    assert "unknown verb 'rnus'" in refused("--quiet", "rnus")  # errors are shown
    assert "leave out one of them" in refused("runs", trained.parent, "--json", "--quiet")


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["runs", "{runs}"], {"folder", "state", "step", "total", "loss", "best"}),
        (["doctor"], {"unnoise", "python", "torch", "devices", "threads", "device", "precision"}),
        (["compare", "{run}", "{other}", "--out", "{out}"], {"runs", "differ", "measures", "not_compared"}),
        (["data", "list"], {"images", "bytes"}),
        (["data", "inspect", "digits", "--out", "{out}"], {"rows", "skipped"}),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else "",
)
def test_json(
    words: list[str], keys: set[str], trained: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One value and nothing else on the output."""
    other = shutil.copytree(trained, tmp_path / "other")
    out = tmp_path / ("sheet.png" if words[0] == "data" else "c.html")
    filled = [w.format(runs=trained.parent, run=trained, other=other, out=out) for w in words]
    assert command(*filled, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    if words[:2] == ["data", "list"] and not found:
        return
    assert keys <= (found[0] if isinstance(found, list) else found).keys()


def test_names_with_spaces_and_other_letters(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images, run, samples and restored images in folders called as people call them."""
    photos, rng = tmp_path / "été à Zürich – 写真", np.random.default_rng(0)
    photos.mkdir()
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(photos / f"vue n° {k}.png")
    monkeypatch.chdir(tmp_path)
    run, out = Path("mes essais") / "été 1", Path("neue Bilder (2)")
    assert command("train", photos.name, "--size", "8", "--run", run, *QUICK) == 0
    assert command("sample", run, "-n", "2", "--out", out) == 0
    assert command("restore", run, next(photos.glob("*.png")), "--sigma", "20", "--out", "rétabli") == 0
    assert len(list(out.glob("*.png"))) == 2 and list(Path("rétabli").glob("*.png"))
    assert command("train", "--resume", run, "--steps", "3") == 0


@pytest.mark.parametrize(("term", "bar"), [("xterm", True), ("dumb", False)])
def test_a_plain_terminal_gets_lines(term: str, bar: bool, small_run: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can't move its cursor would show nothing of a bar."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # has rich take the output for a terminal
    assert TrainingProgress(small_run).bar == bar


def test_progress_in_a_log(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("unnoise.runs.progress.LINE_EVERY", 0.0)
    with options.progress_bar(4, "images") as advance:
        advance(2)
        advance(2)
    assert re.fullmatch(r"2 of 4 images, 0\.0 minutes left\n", capsys.readouterr().out)
    with options.progress_bar(4, "images", shown=False) as advance:
        advance(2)
    assert not capsys.readouterr().out


def test_no_color() -> None:
    """Help in a terminal has no codes where NO_COLOR is set."""
    pty = pytest.importorskip("pty")
    for color, coded in (({}, True), ({"NO_COLOR": "1"}, False)):
        env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | color
        master, slave = pty.openpty()
        with subprocess.Popen([sys.executable, "-m", "unnoise", "train", "--help"], stdout=slave, env=env) as process:
            os.close(slave)
            read = b""
            while True:
                try:
                    chunk = os.read(master, 65536)
                except OSError:
                    break
                if not chunk:
                    break
                read += chunk
            process.wait()
        os.close(master)
        assert (b"\x1b[" in read) == coded
