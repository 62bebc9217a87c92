"""Builds a named thing from its row of a config.

A row is a mapping with 'name' and, beside it, exactly the keyword arguments of the
factory of that name: a name in a config is the argument that it becomes.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from uda_jax.errors import UserError, did_you_mean


def build(table: Mapping[str, Callable], kind: str, row: Mapping[str, Any], *args):
    """`table[row["name"]](*args, **rest of row)`, with the user's mistakes explained.

    Raises:
      UserError: the name is not in the table, or a key is not a keyword of its factory.
    """
    options = dict(row)
    name = options.pop("name", None)
    if name not in table:
        raise UserError(
            f'{kind} "{name}" is unknown{did_you_mean(str(name), table)}: '
            f"choose one of {', '.join(sorted(table))}."
        )
    allowed = keywords(table[name])
    for key in options:
        if key not in allowed:
            raise UserError(
                f'{kind} "{name}" has no option "{key}"{did_you_mean(key, allowed)}: '
                f"its options are {', '.join(allowed)}."
            )
    # A tuple survives a round trip through JSON as a list; factories get tuples.
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return table[name](*args, **options)


def keywords(factory: Callable) -> list[str]:
    """Names of the keyword-only arguments of `factory`, in order."""
    return [
        p.name
        for p in inspect.signature(factory).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    ]
