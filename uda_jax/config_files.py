"""Config files: loading them, and one sentence for what is wrong with them."""

import argparse
import os
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from uda_jax.errors import UserError, did_you_mean

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def parse_beside_config(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """The parser's own arguments, and the --config.x=... behind its --config.

    Raises:
      UserError: an option is neither.
    """
    arguments, rest = parser.parse_known_args(argv)
    for option in rest:
        if not (option.startswith("--config.") and arguments.config):
            raise UserError(f'"{option}" is no option: see --help.')
    return arguments, rest


def load_config(path: str, overrides: Sequence[str]) -> ConfigDict:
    """The config of a file, with fields set as on the command line.

    Args:
      path: configs/x.py, or configs/x.py:variant.
      overrides: such as "--config.source.root=/data/cityscapes".

    Raises:
      UserError: what the file raises, it cannot be loaded, or it lacks a field.
    """
    values = flags.FlagValues()  # apart from those of the program
    argv = ["", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    parse_flags(values, argv)
    return values["config"].value


def parse_flags(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parses a command line that has --config; a mistake in it becomes a UserError.

    Args:
      values: the flags, one of them "config"; they get their values.
      argv: the command line, its first entry is the program.

    Raises:
      UserError: an option or value that cannot be used, or what is wrong with the file.
    """
    try:
        rest = values(list(argv))
        if values["config"].value is not None:
            # A missing file fails only when it is looked into.
            dict(values["config"].value)
    except Exception as error:
        raise UserError(_explain(error, values, argv)) from error
    if len(rest) > 1:
        raise UserError(f'"{rest[1]}" is no option: write --name=value.')


def _explain(error: Exception, values: flags.FlagValues, argv: Sequence[str]) -> str:
    """One sentence for what absl, ml_collections or the config file itself raised."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    for cause in reversed(chain):
        if isinstance(cause, UserError):
            return str(cause)
    text = " ".join(str(error).replace("\\", "").split())
    if isinstance(error, flags.UnrecognizedFlagError):
        close = did_you_mean(error.flagname, values)
        return f"--{error.flagname} is no option{close}: see --help."
    if found := re.match(r"flag --(\S+?)=(.*?): (.*)", text):
        name, value, reason = found.groups()
        # Of --config itself it is the file that is wrong.
        if name != "config":
            kind = _KINDS.get(values[name].flag_type().split()[-1], "")
            must = f"must be {kind}" if kind else f"cannot be used: {reason}"
            return f"--{name}={value} {must}."
    if found := re.match(r"Missing value for flag (\S+)", text):
        return f"{found[1]} has no value: write {found[1]}=value."
    no_field = isinstance(error, AttributeError | KeyError)
    missing = re.search(r"'(\w+)'.*Did you mean \"(\w+)\"", text) or re.search(
        r"'(\w+)'", text
    )
    for argument in argv if no_field else ():
        name = argument.removeprefix("--").split("=")[0]
        if missing and missing[1] in name.split(".")[1:]:
            close = f' (did you mean "{missing[2]}"?)' if missing.lastindex > 1 else ""
            return f"the config has no field --{name}{close}: see the config file."
    path = _file_of(argv)
    if isinstance(error, OSError) and not os.path.isfile(path):
        return f"the config file {path} cannot be opened: give the path of a .py file."
    reason = " ".join(f"{type(chain[-1]).__name__}: {chain[-1]}".split())
    return (
        f"the config file {path} cannot be loaded ({reason}): correct it, --debug "
        "shows where."
    )


def _file_of(argv: Sequence[str]) -> str:
    """What --config names: the flag itself knows nothing when its parsing failed."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config":
            return (value if equals else following).partition(":")[0]
    return ""
