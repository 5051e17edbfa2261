"""Errors that are a user's to mend: each is one sentence that says what is wrong, where, and what works instead."""

import difflib
from collections.abc import Iterable

from unnoise.utils.names import RENAMED


class UserError(ValueError):
    """A mistake in what the user gave; the command prints it without a traceback and exits with 2.

    A message names fields of the recipe by their dotted names; the command shows them as options.
    """


def printable(text: str) -> str:
    """A text for a terminal, which names of files may be in: without codes that move its cursor or change its colours."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


class SystemLimit(UserWarning):
    """Something that this system can't do, and what that means; said once."""


class AmbiguousName(UserWarning):
    """A name that stands for two things: which one it is taken for, and how the other is meant."""


def renamed_to(name: str, valid: Iterable[str]) -> str | None:
    """The present name of what was once called `name`, if it is one of `valid`."""
    present = RENAMED.get(name.replace("-", "_"), ())
    return next((n for n in ((present,) if isinstance(present, str) else present) if n in valid), None)


def nearest(name: str, valid: Iterable[str]) -> str:
    """`did you mean 'x'?` where something comes close or a name has changed, and the list of valid names."""
    names = sorted(valid)
    if (renamed := renamed_to(name, names)) is not None:
        return f"it is now '{renamed}'. There is: {', '.join(names)}."
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'? There is: {', '.join(names)}." if close else f"there is: {', '.join(names)}."
