"""What a training costs: its seconds, the machine, and the energy where the machine measures it.

Energy is that of the processors' packages by their counters (Intel's RAPL, which Linux shows in /sys/class/powercap, AMD's
processors too), whatever else ran meanwhile included, and memory and graphics cards not.
"""

import json
import platform
import time
from pathlib import Path

import torch

from unnoise.run_folder import RunFolder

POWERCAP = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:[0-9]*"
EVERY = 10.0  # seconds after which counters are read again: they begin anew after minutes at the soonest


class CostMeter:
    """Begins to measure when it is made."""

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.begun = device, time.perf_counter()
        self.joules = 0.0
        self._counters = {path: value for path in _packages() if (value := _read(path / "energy_uj")) is not None}
        self._read_at = self.begun

    def update(self) -> None:
        """Called now and then; reads the counters if it is time."""
        if time.perf_counter() - self._read_at > EVERY:
            self._read_counters()

    def write(self, folder: RunFolder, first: int, last: int) -> None:
        """Append a line for the steps from `first` to `last` to cost.jsonl. Raises OSError."""
        self._read_counters()
        line = {"from": first, "to": last, "seconds": time.perf_counter() - self.begun, "machine": machine(self.device),
                "joules": self.joules if self._counters else None}  # fmt: skip
        with folder.cost.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _read_counters(self) -> None:
        self._read_at = time.perf_counter()
        for path, before in self._counters.items():
            now = _read(path / "energy_uj")
            if now is not None:
                largest = _read(path / "max_energy_range_uj") or 0
                self.joules += (now - before if now >= before else now - before + largest) / 1e6
                self._counters[path] = now


def machine(device: str) -> str:
    """The processor, or the graphics card, by its name, and how many threads or cards train."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


def _packages() -> list[Path]:
    """One a processor: parts of these, such as its cores, have a further colon."""
    return [path for path in sorted(POWERCAP.glob(PACKAGES)) if path.name.count(":") == 1]


def _read(path: Path) -> int | None:
    """A counter; None where it is not there or, as for most users, not to be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
