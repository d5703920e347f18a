"""Options of a command by group: a dataclass of ``goldenctl.flags`` that it gets as one object."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import Field
from typing import Any

import click

from goldenctl.commands.options import BYTES, DTYPE, DTYPES, FAULT, LAYERS, PATH, TEXT, FiniteRange
from goldenctl.flags import Flag, flags_of

Function = Callable[..., Any]
_TYPES: dict[str, click.ParamType[Any]] = {
    "dtype": DTYPE,
    "dtypes": DTYPES,
    "fault": FAULT,
    "integer": click.INT,
    "layers": LAYERS,
    "path": PATH,
    "size": BYTES,
    "text": TEXT,
}


def takes(name: str, kind: type, *only: str) -> Callable[[Function], Function]:
    """Add the options of ``kind``, or ``only`` those of these fields; the command gets them as
    one object called ``name``."""
    chosen = [(field, how) for field, how in flags_of(kind) if not only or field.name in only]

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def given_as_one(*arguments: Any, **values: Any) -> Any:
            given = {field.name: values.pop(field.name) for field, _ in chosen}
            own = {key: value for key, value in given.items() if value is not None}
            return function(*arguments, **{name: kind(**own)}, **values)

        command: Function = given_as_one
        for field, how in reversed(chosen):
            command = _option(field, how)(command)
        return command

    return decorate


def _option(field: Field[Any], how: Flag) -> Callable[[Function], Function]:
    name = how.option(field.name)
    if field.default is False:
        return click.option(name, field.name, is_flag=True, help=how.help)
    default = field.default if how.shown or how.many else None
    settings: dict[str, Any] = {"default": default, "show_default": how.shown, "help": how.help}
    if how.many:
        settings["multiple"] = True
    return click.option(name, field.name, type=_type(how), metavar=how.metavar, **settings)


def _type(how: Flag) -> Any:
    if isinstance(how.kind, tuple):
        return click.Choice(how.kind)
    if how.kind == "number":
        return FiniteRange(how.least, how.most)
    if how.least is not None or how.most is not None:
        least, most = (None if bound is None else int(bound) for bound in (how.least, how.most))
        return click.IntRange(least, most)
    return _TYPES.get(how.kind)
