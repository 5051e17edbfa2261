"""The command: verbs with few options each, a file a verb; every other field of a recipe by its dotted name.

Nothing heavy is imported before a verb has understood its options.
"""

import contextlib
import functools
import inspect
import io
import os
import sys
import warnings
from collections.abc import Callable

import tyro

from unnoise.cli.average import average
from unnoise.cli.compare import compare
from unnoise.cli.completion import completion
from unnoise.cli.data import data
from unnoise.cli.demo import demo
from unnoise.cli.distill import distill
from unnoise.cli.doctor import doctor
from unnoise.cli.evaluate import evaluate
from unnoise.cli.export import export
from unnoise.cli.figure import figure
from unnoise.cli.import_weights import import_
from unnoise.cli.info import info
from unnoise.cli.interpolate import interpolate
from unnoise.cli.options import as_options, say, split_dotted
from unnoise.cli.push import push
from unnoise.cli.refusals import refuse
from unnoise.cli.report import report
from unnoise.cli.restore import restore
from unnoise.cli.runs import runs
from unnoise.cli.sample import sample
from unnoise.cli.studio import studio
from unnoise.cli.train import train
from unnoise.utils.errors import AmbiguousName, SystemLimit, UserError, nearest, printable

_VERBS = (demo, studio, train, distill, sample, interpolate, restore, evaluate, report, compare, figure, data, runs, info,
          average, import_, export, push, doctor, completion)  # fmt: skip
VERBS: dict[str, Callable[..., int]] = {verb.__name__.rstrip("_"): verb for verb in _VERBS}

USAGE = "unnoise: train a diffusion model on your own images, sample from it, restore images with it.\n\n" + "\n".join(
    f"  unnoise {name:12}{(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()
) + "\n\nunnoise VERB --help tells more; --quiet prints nothing but errors. Begin with: unnoise demo"  # fmt: skip


QUIET = "--quiet"


def _dispatch(arguments: list[str]) -> int:
    if QUIET in arguments:
        return _dispatch_quietly([word for word in arguments if word != QUIET])
    if not arguments or arguments[0] in ("-h", "--help"):
        say(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from unnoise import __version__

        say(__version__)
        return 0
    verb = VERBS.get(arguments[0])
    if verb is None:
        raise UserError(f"unknown verb '{arguments[0]}': {nearest(arguments[0], VERBS)}")
    own = inspect.signature(verb).parameters
    plain, dotted = split_dotted(arguments[1:], short=not own.keys() & {"sampler"})
    if dotted and "changes" not in own:
        raise UserError(f"'{arguments[0]}' takes no recipe fields, but got --{next(iter(dotted))}")
    parts = ("training", "data", "network") if verb is train else ("sampling",) * ("changes" in own)
    refuse(arguments[0], VERBS, plain, parts)
    sys.path.append(os.getcwd())  # noqa: PTH109  (a network or schedule of the user's own may lie here)
    call = functools.partial(verb, changes=dotted) if dotted else verb
    status: int = tyro.cli(call, args=plain, prog=f"unnoise {arguments[0]}", config=(tyro.conf.FlagCreatePairsOff,))
    return status


def _dispatch_quietly(arguments: list[str]) -> int:
    """The same without output; errors and warnings are shown."""
    if "--json" in arguments:
        raise UserError(f"{QUIET} prints nothing and --json one object: leave out one of them")
    with open(os.devnull, "w", encoding="utf-8") as nothing, contextlib.redirect_stdout(nothing):  # noqa: PTH123  (no path)
        return _dispatch(arguments)


def _format_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    ours = issubclass(category, SystemLimit | AmbiguousName)
    return f"unnoise: {message}\n" if ours else f"{filename}:{lineno}: {category.__name__}: {message}\n"


def main() -> None:
    """Run the command and exit: 0 done, 1 in part, 2 something the user can mend, 128 + signal when stopped."""
    if os.environ.get("NO_COLOR"):
        tyro._experimental_options["ansi_codes"] = False
    warnings.formatwarning = _format_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what the terminal can't show
    try:
        sys.exit(_dispatch(sys.argv[1:]))
    except UserError as e:
        print(f"unnoise: {printable(as_options(str(e)))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as e:
        where = f" '{e.filename}'" if e.filename else ""
        print(f"unnoise: can't read or write{where}: {e.strerror or e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("unnoise: stopped", file=sys.stderr)
        sys.exit(130)
