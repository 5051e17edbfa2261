"""Errors that are a user's to mend: each is one sentence that says what is wrong, where, and what works instead."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave; the command prints it without a traceback and exits with 2."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """`did you mean 'x'?` where something comes close, and the list of what exists."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}There is: {', '.join(names)}."
