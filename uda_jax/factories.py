"""Builds a named thing from its row of a config.

A row is a mapping with 'name' and, beside it, exactly the keyword arguments of the
factory of that name: a name in a config is the argument that it becomes.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from uda_jax.errors import UserError, did_you_mean


def build(table: Mapping[str, Callable], kind: str, row: Mapping[str, Any], *args):
    """`table[row["name"]](*args, **rest of row)`, with the user's mistakes explained.

    Raises:
      UserError: it is no row or has no name, the name is not in the table, a key is not
        a keyword of its factory or one without a default is missing, or a value is of
        another type than it.
    """
    choices = ", ".join(sorted(table))
    if not isinstance(row, Mapping | ConfigDict):
        raise UserError(
            f'{kind}={row!r} is no row: write {{"name": ...}} with one of {choices}.'
        )
    options = dict(row)
    if not options.get("name"):
        raise UserError(f'{kind} has no name: give its row a "name" out of {choices}.')
    name = options.pop("name")
    if name not in table:
        raise UserError(
            f'{kind} "{name}" is unknown{did_you_mean(str(name), table)}: '
            f"choose one of {choices}."
        )
    allowed = keywords(table[name])
    for key in options:
        if key not in allowed:
            raise UserError(
                f'{kind} "{name}" has no option "{key}"{did_you_mean(key, allowed)}: '
                f"its options are {', '.join(allowed) or 'none'}; a row with another "
                "name needs that name's options, so write it in the config file."
            )
    missing = [key for key in required(table[name]) if key not in options]
    if missing:
        raise UserError(
            f'{kind} "{name}" needs {" and ".join(missing)}: add that to its row.'
        )
    # A tuple survives a round trip through JSON as a list; factories get tuples.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    options = {
        k: v.to_dict() if isinstance(v, ConfigDict) else v for k, v in options.items()
    }
    _check_types(f'{kind} "{name}"', table[name], options)
    return table[name](*args, **options)


def _check_types(what: str, factory: Callable, options: Mapping[str, Any]) -> None:
    """Compares values with annotations, or with the type of the default."""
    hints = typing.get_type_hints(factory)
    parameters = inspect.signature(factory).parameters
    for key, value in options.items():
        default = parameters[key].default
        hint = hints.get(key, type(default))
        if default is inspect.Parameter.empty and key not in hints:
            continue
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        choices = typing.get_args(hint) if union else (hint,)
        allowed = [typing.get_origin(choice) or choice for choice in choices]
        if not any(_is(value, kind) for kind in allowed):
            names = " or ".join(_TYPES.get(kind, kind.__name__) for kind in allowed)
            raise UserError(f"option {key}={value!r} of {what} must be {names}.")


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):  # True is no number here
        return type(value) in (int, kind)
    return isinstance(value, kind)


_TYPES = {
    float: "a number",
    int: "a whole number",
    str: "a name in quotes",
    bool: "True or False",
    tuple: "a tuple",
    dict: "a row",
    type(None): "None",
}


def keywords(factory: Callable) -> list[str]:
    """Names of the keyword-only arguments of `factory`, in order."""
    return [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]


def required(factory: Callable) -> list[str]:
    """Names of those keyword-only arguments that have no default."""
    parameters = inspect.signature(factory).parameters
    return [
        k for k in keywords(factory) if parameters[k].default is inspect.Parameter.empty
    ]
