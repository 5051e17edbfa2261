"""Commands in several processes, as torchrun starts them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def launch(*arguments: str) -> "subprocess.Popen[str]":
    """`python -m arguments` in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
               "--rdzv-endpoint", "localhost:0", "-m", "--", *arguments]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: "subprocess.Popen[str]", seconds: float = 240) -> str:
    """All that it printed."""
    printed, _ = process.communicate(timeout=seconds)
    return printed
