"""What a training costs."""

import json
from pathlib import Path

import pytest

from unnoise.run_folder import RunFolder
from unnoise.runs import cost


def counter(folder: Path, joules: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")
    (folder / "max_energy_range_uj").write_text("100000000\n")


def test_energy_of_all_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters that begin anew are followed; parts of a package are not counted twice."""
    monkeypatch.setattr(cost, "POWERCAP", tmp_path)
    monkeypatch.setattr(cost, "EVERY", -1.0)
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        counter(tmp_path / name, 90)
    meter = cost.CostMeter()
    counter(tmp_path / "intel-rapl:0", 99)  # 9 J
    meter.update()
    counter(tmp_path / "intel-rapl:0", 4)  # 5 J, past the end at 100 J
    counter(tmp_path / "intel-rapl:0:0", 99)
    counter(tmp_path / "intel-rapl:1", 97)  # 7 J
    meter.write(RunFolder(tmp_path), 0, 12)
    (line,) = [json.loads(text) for text in (tmp_path / "cost.jsonl").read_text().splitlines()]
    assert line["joules"] == pytest.approx(21) and (line["from"], line["to"]) == (0, 12)
    assert 0 <= line["seconds"] < 10 and "thread" in line["machine"]


def test_a_machine_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "POWERCAP", tmp_path / "none")
    cost.CostMeter().write(RunFolder(tmp_path), 0, 1)
    assert json.loads((tmp_path / "cost.jsonl").read_text())["joules"] is None
