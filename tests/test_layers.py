"""Who may import whom: read from the source, so that the shape in docs/architecture.md stays true."""

import ast
from pathlib import Path

import unnoise

ROOT = Path(unnoise.__file__).parent
BASE = {"errors", "draws", "files", "__init__"}
MAY = {
    "errors": set(),
    "draws": set(),
    "files": set(),
    "noise": set(),
    "times": {"noise"},
    "network": set(),
    "denoiser": {"noise"},
    "loss": {"denoiser", "noise"},
    "gaussian": {"denoiser", "noise"},
    "solvers": {"denoiser"},
    "guidance": {"denoiser"},
    "sampler": {"denoiser", "gaussian", "guidance", "solvers", "times"},
    "data": set(),
    "ema": set(),
    "checkpoint": {"processes"},
    "figures": {"noise", "sampler"},
    "muon": set(),
    "processes": set(),
    "plan": {"loss", "muon", "times"},
    "batches": {"data", "noise", "plan", "processes", "times"},
    "precision": set(),
    "training": {"precision", "batches", "data", "denoiser", "ema", "loss", "network", "plan", "processes"},
    "tuning": {"batches", "data", "denoiser", "plan", "precision", "recipe", "training"},
    "runs": {"recipe"},
    "recipe": {
        "data",
        "denoiser",
        "guidance",
        "loss",
        "network",
        "noise",
        "plan",
        "processes",
        "sampler",
        "solvers",
        "times",
        "training",
    },
    "presets": {"data", "denoiser", "loss", "network", "noise", "plan", "recipe", "sampler", "solvers", "times"},
    "restore": {"data", "denoiser", "figures", "noise", "sampler"},
    "explore": {"denoiser", "sampler", "solvers"},
    "model": {
        "precision",
        "checkpoint",
        "data",
        "denoiser",
        "explore",
        "figures",
        "gaussian",
        "guidance",
        "processes",
        "recipe",
        "restore",
        "sampler",
        "solvers",
        "training",
    },
    "gallery": {"figures", "model", "processes", "recipe", "sampler"},
    "run": {
        "checkpoint",
        "data",
        "denoiser",
        "ema",
        "figures",
        "gaussian",
        "model",
        "processes",
        "recipe",
        "runs",
        "training",
        "tuning",
    },
    "export": {"checkpoint", "denoiser", "ema", "gaussian", "model", "network", "presets", "processes", "recipe", "run"},
    "cli": {
        "data",
        "explore",
        "export",
        "figures",
        "gallery",
        "model",
        "noise",
        "precision",
        "presets",
        "processes",
        "recipe",
        "restore",
        "run",
        "runs",
        "sampler",
        "training",
    },
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path} imports by a relative name"
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{a.name}" if node.module == "unnoise" else node.module for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("unnoise.")}
    return found


def test_layers() -> None:
    for path in ROOT.rglob("*.py"):
        module = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if module in ("__init__", "__main__"):
            continue
        extra = {m for m in imports(path) if not m.startswith("__")} - BASE - {module} - MAY[module]
        assert not extra, f"{path.relative_to(ROOT)} may not import {sorted(extra)}"
