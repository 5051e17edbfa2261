"""Make every figure of README and docs again.

    python tools/figures.py --root DIR                  # those of the README: a run of ten minutes on Fashion-MNIST in DIR
    python tools/figures.py scaling tutorial            # the curves of docs/scaling.md; the tutorial's pages (half an hour)
    python tools/figures.py samplers --judge 'COMMAND' --digits RUN --fashion RUN    # see benchmarks/samplers.py

Prints each command before it runs it.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
UNNOISE = [sys.executable, "-m", "unnoise"]


def call(*words: object) -> None:
    """Run a command in the repository; an error in it ends this program."""
    print("$", shlex.join(map(str, words)), flush=True)
    subprocess.run([*map(str, words)], cwd=ROOT, check=True)


def readme(a: argparse.Namespace) -> None:
    """docs/figures/clearing.gif and restoration.png."""
    with tempfile.TemporaryDirectory() as folder:
        run = a.run or Path(folder) / "fashion-mnist"
        if not run.exists():
            call(*UNNOISE, "train", "fashion-mnist", "--root", a.root, "--minutes", 10, "--run", run)
        clearing = DOCS / "figures" / "clearing.gif"
        which = ("-n", 9, "--sampling.steps", 26, "--every", 2)  # small enough for a page
        call(*UNNOISE, "figure", "animation", run, *which, "--out", clearing, "--overwrite")
        call(*UNNOISE, "report", run)
        shutil.copy(run / "report-example.png", DOCS / "figures" / "restoration.png")


def scaling(a: argparse.Namespace) -> None:
    """docs/scaling.png, from the trials that are kept."""
    call(sys.executable, "benchmarks/scaling.py", "fit", "benchmarks/scaling-trials.jsonl", "--out", DOCS / "scaling.png")


def samplers(a: argparse.Namespace) -> None:
    """docs/samplers-digits.png and samplers-fashion.png."""
    for name, run in (("digits", a.digits), ("fashion", a.fashion)):
        with tempfile.TemporaryDirectory() as folder:
            call(sys.executable, "benchmarks/samplers.py", run, folder, "--judge", f"{a.judge} {name}")
            shutil.copy(Path(folder) / "samplers.png", DOCS / f"samplers-{name}.png")


def tutorial(a: argparse.Namespace) -> None:
    """docs/tutorial."""
    call(sys.executable, "notebooks/run.py")
    call(sys.executable, "notebooks/pages.py")


FIGURES = {"readme": readme, "scaling": scaling, "samplers": samplers, "tutorial": tutorial}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", default=["readme"], metavar="WHICH", help=", ".join(FIGURES))
    parser.add_argument("--root", help="the folder that holds fashion-mnist")
    parser.add_argument("--run", type=Path, help="a run on Fashion-MNIST that there is already")
    parser.add_argument("--judge", help="a command that prints distances")
    parser.add_argument("--digits", type=Path, help="a run on digits")
    parser.add_argument("--fashion", type=Path, help="a run on Fashion-MNIST")
    a = parser.parse_args()
    if unknown := set(a.which) - FIGURES.keys():
        parser.error(f"no figure {', '.join(sorted(unknown))}: there is {', '.join(FIGURES)}")
    if "readme" in a.which and not (a.root or a.run):
        parser.error("the README's figures need --root DIR or --run RUN")
    if "samplers" in a.which and not (a.judge and a.digits and a.fashion):
        parser.error("the figures of samplers need --judge, --digits and --fashion")
    (DOCS / "figures").mkdir(exist_ok=True)
    for name in a.which:
        FIGURES[name](a)


if __name__ == "__main__":
    main()
