"""benchmarks/gpu.py where there is no GPU: it says so, and each of its checks runs on the CPU."""

import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from unnoise.networks.unet import UNetConfig

TINY = {"network": UNetConfig((16, 32), blocks=1, embedding=16), "training.batch": 8}


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu", Path(__file__).parents[1] / "benchmarks" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_it_says_so(gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    said = capsys.readouterr()
    assert end.value.code == 2 and said.err.startswith("no GPU was found") and said.err.count("\n") == 1 and not said.out


def test_noise_is_compared(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal on one device; a difference is said."""
    assert [value for _, value in gpu.noise("cpu", 4, 8)][1:] == ["equal", "0.0e+00"]
    normal, calls = gpu.philox.normal, itertools.count()
    monkeypatch.setattr(gpu.philox, "normal", lambda *a: normal(*a) + 1e-4 * next(calls))
    assert list(gpu.noise("cpu", 4, 8))[2][1].endswith("TOO LARGE")


def test_every_check_runs(gpu: Any) -> None:
    rows = [*gpu.products("cpu", 32), *gpu.waiting("cpu", TINY, 8, 1, False, 4), *gpu.attention("cpu", 1, 2, 4),
            *gpu.largest_batch("cpu", TINY, 8, 64)]  # fmt: skip
    found = dict(rows)
    assert len(found) == len(rows) == 6 and "failed" not in str(found)
    assert "32: " in found["images/s by batch, 8x8, up to the largest"] and "64: " in str(rows[-1])


def test_resuming_is_compared(gpu: Any, tmp_path: Path) -> None:
    assert [value for _, value in gpu.resuming("cpu", tmp_path, 4)] == ["equal to the bit"]


def test_compiled_code_is_compared(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself takes minutes on a CPU."""
    modes: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode, **_: modes.append(mode))
    rows = list(gpu.compiling("cpu", TINY, 8))
    assert modes == ["default", "reduce-overhead"] and len(rows) == 3 and all("ms, ready after" in value for _, value in rows)


@pytest.mark.slow
def test_digits(gpu: Any, tmp_path: Path) -> None:
    assert "steps in" in dict(gpu.digits("cpu", tmp_path, 12.0))["digits for 12 s"]
