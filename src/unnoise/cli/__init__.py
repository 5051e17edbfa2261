"""The command: verbs with few options each; every other field of a recipe by its dotted name.

Nothing heavy is imported before a verb has understood its options.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable

import tyro

from unnoise.cli.drawing import figure, morph, sample
from unnoise.cli.exchange import average, export, import_
from unnoise.cli.looking import data, doctor, info, runs
from unnoise.cli.options import say, take_dotted
from unnoise.cli.restoring import restore
from unnoise.cli.training import demo, train
from unnoise.errors import UserError, nearest

_VERBS = (demo, train, sample, morph, restore, figure, data, runs, info, average, import_, export, doctor)
VERBS: dict[str, Callable[..., int]] = {verb.__name__.rstrip("_"): verb for verb in _VERBS}

USAGE = "unnoise: train a diffusion model on your own pictures, and draw new ones from it.\n\n" + "\n".join(
    f"  unnoise {name:8}{(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()
) + "\n\nunnoise VERB --help tells more. Begin with: unnoise demo"  # fmt: skip


def _dispatch(arguments: list[str]) -> int:
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
    plain, dotted = take_dotted(arguments[1:], short="sampler" not in own)
    if dotted and "changes" not in own:
        raise UserError(f"'{arguments[0]}' takes no recipe fields, but got --{next(iter(dotted))}")
    call = functools.partial(verb, changes=dotted) if dotted else verb
    status: int = tyro.cli(call, args=plain, prog=f"unnoise {arguments[0]}", config=(tyro.conf.FlagCreatePairsOff,))
    return status


def main() -> None:
    """Run the command and exit: 0 done, 2 something the user can mend, 128 + signal when stopped."""
    try:
        sys.exit(_dispatch(sys.argv[1:]))
    except UserError as e:
        print(f"unnoise: {e}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read our words, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as e:
        where = f" '{e.filename}'" if e.filename else ""
        print(f"unnoise: can't read or write{where}: {e.strerror or e}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
