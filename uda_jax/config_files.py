"""Config files for commands that take other options beside them."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from uda_jax.errors import UserError


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
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=argv
    )
    try:
        values(argv)
        dict(holder.value)  # a missing file fails only when it is looked into
    except Exception as error:
        cause = error
        while not isinstance(cause, UserError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        what = " ".join([f"--config {path}", *overrides])
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise UserError(
            f"{what} cannot be loaded ({reason}): give a config file and fields that "
            "it has."
        ) from error
    return holder.value
