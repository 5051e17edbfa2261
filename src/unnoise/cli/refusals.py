"""Words that a verb can't take are answered with one sentence, before tyro reads them: it would print a box."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args, get_origin, get_type_hints

import tyro

from unnoise.cli.options import as_options
from unnoise.utils.errors import UserError, renamed_to
from unnoise.utils.names import PARTS

Verb = Callable[..., int]
CALLED = {
    "lr": ("learning_rate",),
    "batch_size": ("batch",),
    "num_epochs": ("epochs",),
    "max_steps": ("steps",),
    "num_steps": ("steps",),
    "image_size": ("size",),
    "resolution": ("size",),
    "out": ("run",),
    "output": ("out", "run"),
    "output_dir": ("out", "run"),
    "num_samples": ("n",),
}  # what other programs, other verbs or Python call options and fields; the first that there is
NUMBERS = {int: "a whole number", float: "a number"}
POSITIONAL = get_args(tyro.conf.Positional[int])[1]


@dataclass(frozen=True)
class Argument:
    """What a verb takes: an option by its name, or a positional argument; `type` is that of one value."""

    name: str
    type: type
    help: str
    positional: bool
    required: bool
    many: bool

    def __str__(self) -> str:
        return f"{self.name.upper() if self.positional else f'--{self.name}'} ({self.help})"


def arguments_of(verb: Verb) -> list[Argument]:
    """In their order; `changes`, the fields of a recipe, are none."""
    hints, found = get_type_hints(verb, include_extras=True), []
    for name, parameter in inspect.signature(verb).parameters.items():
        if name == "changes":
            continue
        hint, *marks = get_args(hints[name])
        text = next(mark.help for mark in marks if hasattr(mark, "help")).replace("`", "'")
        required, many = parameter.default is parameter.empty, get_origin(hint) is tuple
        called = name.rstrip("_").replace("_", "-")
        found.append(Argument(called, (get_args(hint) or (hint,))[0], text, POSITIONAL in marks, required, many))
    return found


def refuse(name: str, verbs: Mapping[str, Verb], words: list[str], parts: Iterable[str]) -> None:
    """Raises UserError for words that the verb of this name can't take; of a recipe it may change fields of `parts`."""
    if {"-h", "--help"} & set(words):
        return
    arguments = arguments_of(verbs[name])
    options = {prefix + a.name: a for a in arguments if not a.positional for prefix in ("--", "-")[: 1 + (a.name == "n")]}
    loose, given, rest = [], set[str](), iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in options:
            given.add(options[option].name)
            _refuse_value(option, options[option], value if equals else None, rest)
        elif re.match("--?[a-z]", option):
            raise UserError(_unknown(option, name, verbs, parts))
        elif word != "--":
            loose.append(word)
    _refuse_count(name, verbs[name], arguments, loose, given)


def _refuse_value(option: str, argument: Argument, value: str | None, rest: Iterator[str]) -> None:
    """The same for an option's value, which is the next of `rest` where it is not joined to the option."""
    if argument.type is bool:
        if value is not None:
            raise UserError(f"{option} takes no value: leave out '={value}'")
        return
    value = next(rest, None) if value is None else value
    if value is None:
        raise UserError(f"{option} needs a value: {argument.help}")
    if argument.type in NUMBERS:
        try:
            argument.type(value)
        except ValueError:
            raise UserError(f"{option} is {NUMBERS[argument.type]}, not '{value}': {argument.help}") from None


def _refuse_count(name: str, verb: Verb, arguments: list[Argument], loose: list[str], given: set[str]) -> None:
    """The same for what is missing, and for more positional arguments than there are."""
    places = [a for a in arguments if a.positional]
    needed = [*places[len(loose) :], *(a for a in arguments if not a.positional and a.name not in given)]
    if missing := next((a for a in needed if a.required), None):
        raise UserError(f"{name} needs {missing}, as in '{example_of(verb)}'")
    if len(loose) > len(places) and not any(a.many for a in places):
        raise UserError(f"{name} can't take '{loose[len(places)]}': write a path with spaces in quotes")


def example_of(verb: Verb) -> str:
    """The first example of its help."""
    found = re.search(r"Examples?: (.+)", verb.__doc__ or "")
    return found[1] if found else ""


def _unknown(option: str, verb: str, verbs: Mapping[str, Verb], parts: Iterable[str]) -> str:
    """What is said of an option that the verb has not: what it is called here, the nearest ones, or whose it is."""
    arguments = arguments_of(verbs[verb])
    name, known = option.lstrip("-"), {a.name for a in arguments if not a.positional}
    if (renamed := renamed_to(name, known)) is not None:
        return f"{option} is now --{renamed}"
    if name in {a.name for a in arguments}:
        return f"{name.upper()} is given without {option}, as in '{example_of(verbs[verb])}'"
    chosen = PARTS if "training" in parts else {}
    mistyped = difflib.get_close_matches(name, known | chosen.keys(), n=3, cutoff=0.75)
    if mistyped:
        return f"unknown option {option}: did you mean {' or '.join(f'--{n}' for n in mistyped)}?"
    names = CALLED.get(name.replace("-", "_"), (name.replace("-", "_"),))
    if here := next((n for n in names if n in known), None) or _field_called(names, parts):
        return f"{option} is {as_options(here) if '.' in here else f'--{here}'} here"
    others = [other for other in verbs if any(a.name == name and not a.positional for a in arguments_of(verbs[other]))]
    whose = f"it is one of {', '.join(others)}, and " if others else ""
    return f"unknown option {option}: {whose}'unnoise {verb} --help' lists those of {verb}"


def _field_called(names: Iterable[str], parts: Iterable[str]) -> str | None:
    """The field, by its dotted name, that ends in one of these or almost."""
    from unnoise.recipe import Recipe
    from unnoise.registry import to_json

    recipe = to_json(Recipe())
    fields = {field: f"{part}.{field}" for part in reversed(list(parts)) for field in recipe[part]}
    return next((fields[n] for name in names for n in difflib.get_close_matches(name, fields, n=1, cutoff=0.85)), None)
