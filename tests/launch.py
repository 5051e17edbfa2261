"""Commands in several processes, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(*arguments: str, processes: int = 2) -> "subprocess.Popen[str]":
    """`python -m arguments` in several processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "localhost:0", "-m", "--", *arguments]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: "subprocess.Popen[str]", seconds: float = 240) -> str:
    """All that it printed."""
    printed, _ = process.communicate(timeout=seconds)
    return printed
