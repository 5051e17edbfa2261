"""A verb without what it needs, and options without a value or with the wrong one: one sentence each, over the table of verbs."""

import re
import shlex
from collections.abc import Callable

import pytest

from unnoise.cli import VERBS
from unnoise.cli.options import split_dotted
from unnoise.cli.refusals import NUMBERS, Argument, arguments_of, refuse

ARGUMENTS = [(verb, argument) for verb in VERBS for argument in arguments_of(VERBS[verb])]
OPTIONS = [(verb, a) for verb, a in ARGUMENTS if not a.positional and a.type is not bool]
PARTS = ("training", "data", "network", "sampling")


def value_of(argument: Argument) -> str:
    return "1" if argument.type in NUMBERS else "x"


def needed(verb: str) -> list[Argument]:
    """Positional ones first."""
    return sorted((a for a in arguments_of(VERBS[verb]) if a.required), key=lambda a: not a.positional)


def complete(arguments: list[Argument]) -> list[str]:
    """A value for each."""
    return [word for a in arguments for word in ([] if a.positional else [f"--{a.name}"]) + [value_of(a)]]


@pytest.mark.parametrize(("verb", "given"), [(verb, k) for verb in VERBS for k in range(len(needed(verb)))])
def test_what_is_missing(verb: str, given: int, refused: Callable[..., str]) -> None:
    """The first that is missing by its name, and an example of the verb."""
    before, missing = needed(verb)[:given], needed(verb)[given]
    name = missing.name.upper() if missing.positional else f"--{missing.name}"
    error = refused(verb, *complete(before))
    assert error.startswith(f"unnoise: {verb} needs {name} (") and f"as in 'unnoise {verb} " in error


@pytest.mark.parametrize(("verb", "option"), OPTIONS, ids=lambda v: getattr(v, "name", v))
def test_an_option_without_its_value_or_with_the_wrong_one(verb: str, option: Argument, refused: Callable[..., str]) -> None:
    words = [verb, *complete([a for a in needed(verb) if a != option]), f"--{option.name}"]
    assert f"--{option.name} needs a value" in refused(*words)
    if option.type in NUMBERS:
        assert f"--{option.name} is {NUMBERS[option.type]}, not 'many'" in refused(*words, "many")


@pytest.mark.parametrize("verb", VERBS)
def test_every_example_is_taken(verb: str) -> None:
    found = re.findall(rf"unnoise ({verb} .+)", VERBS[verb].__doc__ or "")
    for line in found:
        plain, _ = split_dotted(shlex.split(line.partition(" > ")[0])[1:], short=verb != "sample")
        refuse(verb, VERBS, plain, PARTS)
    assert found or not needed(verb)
