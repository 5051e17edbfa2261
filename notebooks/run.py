"""Run the tutorial's chapters from top to bottom and keep what they show.

    python notebooks/run.py            # about ten minutes; writes notebooks/executed/*.ipynb
    python notebooks/run.py --fast     # seconds of training each: does everything still run?
    python notebooks/run.py 2_noise 8_denoising

Needs the extra `notebooks`: pip install -e '.[notebooks]'. The chapters are text (jupytext's percent format); Jupyter
opens them as notebooks too.
"""

import argparse
import os
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
CHAPTERS = sorted(p.stem for p in HERE.glob("[0-9]_*.py"))


def execute(chapter: str, out: Path) -> Path:
    """Run one chapter in a kernel of its own; an error in it is raised. The notebook with its images goes to `out`."""
    notebook = jupytext.read(HERE / f"{chapter}.py", fmt="py:percent")
    NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE)}},
        extra_arguments=["--log-level=ERROR"],  # the kernel warns of every start that its sockets are not encrypted
    ).execute()
    out.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out / f"{chapter}.ipynb")
    return out / f"{chapter}.ipynb"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=", ".join(CHAPTERS))
    parser.add_argument("--fast", action="store_true")
    a = parser.parse_args()
    if unknown := set(a.chapters) - set(CHAPTERS):
        parser.error(f"no chapter {', '.join(sorted(unknown))}: there is {', '.join(CHAPTERS)}")
    if a.fast:
        os.environ["UNNOISE_FAST"] = "1"
    for chapter in a.chapters or CHAPTERS:
        begun = time.perf_counter()
        path = execute(chapter, HERE / "executed")
        print(f"{path}  {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
