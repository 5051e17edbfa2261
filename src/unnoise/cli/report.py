"""`unnoise report`."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from unnoise.cli.options import progress_bar, say


def report(
    run: Annotated[Positional[Path], arg(help="folder of a run")],
    evaluate: Annotated[bool, arg(help="evaluate it first, unless it has been")] = False,
) -> int:
    """Write a run's report card: one HTML file to look at or to publish, and the same as markdown.

    RUN/report.html needs no other file and asks nothing of the network. What was not measured is not in it, and it says so.

    Examples: unnoise report runs/digits
              unnoise report runs/photos --evaluate
    """
    from unnoise.run_folder import RunFolder
    from unnoise.runs.evaluate import prepare
    from unnoise.runs.report import report as write_report

    folder = RunFolder.open(run)
    if evaluate and not folder.evaluation.is_file():
        job = prepare(run)
        with progress_bar(job.total, "images") as advance:
            job.run(advance)
    path = write_report(run)
    if not folder.evaluation.is_file():
        say(f"not evaluated yet, which the page says too: 'unnoise report {run} --evaluate'")
    say(f"{path}; {path.with_suffix('.md')}")
    return 0
