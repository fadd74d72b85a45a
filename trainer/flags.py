"""A command line out of a pydantic model: flags, help and validation from one definition.

Each field is a flag of its name in kebab case (or of its alias); its description is the help.
Everything that is wrong, unknown flags and wrong values alike, comes back in one message.

Why not pydantic-settings, which the worker uses: it joins the values of a repeated flag with
commas and splits them again, so that `--set hidden=128,64` and a file name with a comma arrive
in pieces.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from schemas.errors import SettingsError, did_you_mean

Command = TypeVar("Command", bound=BaseModel)


@dataclass(frozen=True)
class Flag:
    """How a field appears on the command line; goes into `Annotated`."""

    positional: bool = False
    repeated: bool = False
    metavar: str | None = None


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are ours, so that they end like every other one."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}. See {self.prog} --help")


def parse(
    program: str, about: str, commands: Mapping[str, type[Command]], argv: Sequence[str]
) -> Command:
    """Return the command that `argv` asks for.

    Raises:
        SettingsError: it asks for none, or for one that is wrong; the text names every problem.
        SystemExit: help was asked for, and printed.
    """
    parser = _Parser(prog=program, description=about, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    subs: dict[str, argparse.ArgumentParser] = {}
    for name, model in commands.items():
        summary = (model.__doc__ or "").strip().splitlines()[0]
        subs[name] = sub = subparsers.add_parser(
            name,
            usage=_usage(model),
            help=summary,
            description=summary,
            epilog=_epilog(model),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for field_name, field in model.model_fields.items():
            _add(sub, _flag_name(field_name, field), field)
    # The command stands first; whatever follows it may stand in any order.
    chosen = parser.parse_known_args(argv[:1])[0].command
    known, unknown = subs[chosen].parse_known_intermixed_args(argv[1:])
    model = commands[chosen]
    values, problems = _single_values(vars(known), model)
    problems += _unknown(unknown, model)
    command = None
    try:
        command = model.model_validate(values)
    except ValidationError as error:
        problems += describe(error, model)
    if problems or command is None:
        raise SettingsError("; ".join(problems) + f". See {program} {chosen} --help")
    return command


def describe(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one sentence for each thing that pydantic found wrong."""
    return [_sentence(problem, model) for problem in error.errors(include_url=False)]


def _sentence(problem: Mapping[str, object], model: type[BaseModel]) -> str:
    where = [str(part) for part in problem["loc"]]  # type: ignore[attr-defined]  # A tuple.
    field = next((f for n, f in model.model_fields.items() if (f.alias or n) == where[0]), None)
    is_positional = field is not None and _flag(field).positional
    flag = where[0].upper() if is_positional else f"--{where[0].replace('_', '-')}"
    if problem["type"] == "missing" or (is_positional and problem["type"] == "too_short"):
        return f"{flag} is missing"
    # Below a flag stands one of the settings that it takes by name, or a place in a list.
    below = ".".join(part for part in where[1:] if not part.isdigit())
    if problem["type"] == "extra_forbidden" and field is not None:
        return f"{flag} {below}: no such setting{did_you_mean(below, _settings(field))}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    seen = "" if isinstance(problem["input"], dict | list) else f" (seen: {problem['input']!r})"
    return f"{flag}{' ' + below if below else ''}: {message[0].lower()}{message[1:]}{seen}"


def _single_values(
    given: Mapping[str, Any], model: type[BaseModel]
) -> tuple[dict[str, Any], list[str]]:
    """Take the flags that hold one value out of their lists; name those that were given twice."""
    values = {name: value for name, value in given.items() if value is not None}
    problems = []
    for field_name, field in model.model_fields.items():
        flag_name = _flag_name(field_name, field)
        key = flag_name.replace("-", "_")
        if _flag(field).repeated or not isinstance(values.get(key), list):
            continue
        *earlier, values[key] = values[key]
        if earlier:
            problems.append(f"--{flag_name} is given {len(earlier) + 1} times; wanted once")
    return values, problems


def _unknown(arguments: Sequence[str], model: type[BaseModel]) -> list[str]:
    """Return a sentence for each unknown flag or, without any, for the first stray argument."""
    flags = {
        f"--{_flag_name(name, field)}"
        for name, field in model.model_fields.items()
        if not _flag(field).positional
    }
    names = [argument.split("=")[0] for argument in arguments if argument.startswith("-")]
    if names:
        # What follows an unknown flag is most likely its value.
        return [f"there is no flag {name}{did_you_mean(name, flags)}" for name in names]
    return [f"{argument!r} belongs to no flag" for argument in arguments[:1]]


def _add(parser: argparse.ArgumentParser, name: str, field: FieldInfo) -> None:
    flag = _flag(field)
    about = (field.description or "").replace("%", "%%")
    about += " (required)" if field.is_required() else ""
    if flag.positional:
        # "*" and not "+": pydantic says what is missing, along with everything else.
        nargs = "*" if flag.repeated else "?"
        parser.add_argument(name, nargs=nargs, metavar=name.upper(), help=about)
    elif field.annotation is bool:
        parser.add_argument(f"--{name}", action="store_true", default=None, help=about)
    else:
        if not field.is_required() and not flag.repeated and field.default is not None:
            about += f" (default: {_written(field.default)})"
        parser.add_argument(
            f"--{name}",
            # Single values too: argparse would let the last of several win.
            action="append",
            metavar=flag.metavar or name.upper().replace("-", "_"),
            help=about,
        )


def _usage(model: type[BaseModel]) -> str:
    """Return what must be given; argparse, which is to require nothing, would bracket it."""
    words = ["%(prog)s"]
    for field_name, field in model.model_fields.items():
        name, flag = _flag_name(field_name, field), _flag(field)
        metavar = flag.metavar or name.upper().replace("-", "_")
        if field.is_required():
            words += [] if flag.positional else [f"--{name}"]
            words += [metavar + "..." * flag.repeated]
    return " ".join([*words, "[option...]"])


def _epilog(model: type[BaseModel]) -> str | None:
    """Return the list of settings that a flag of this command takes by name, if one does."""
    lines = [
        f"  {f'{name}={_written(setting.default)}':<24} {setting.description}"
        for field in model.model_fields.values()
        for name, setting in _settings(field).items()
    ]
    return "\n".join(["settings, with the reason for each default:", *lines]) if lines else None


def _settings(field: FieldInfo) -> Mapping[str, FieldInfo]:
    kind = field.annotation
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}


def _written(default: object) -> str:
    """Return a default as one would write it on the command line."""
    if isinstance(default, tuple):
        mark = "." if all(isinstance(part, str) for part in default) else ","
        return mark.join(map(str, default))
    if isinstance(default, dict):
        return ",".join(map(str, default.values()))
    return "" if default is None else str(default)


def _flag(field: FieldInfo) -> Flag:
    return next((item for item in field.metadata if isinstance(item, Flag)), Flag())


def _flag_name(name: str, field: FieldInfo) -> str:
    return (field.alias or name).replace("_", "-")
