r"""Trains or evaluates what a config file describes.

    python -m uda_jax.main --config configs/tufl_rio.py --workdir runs/tufl_rio

Repeating the command goes on where the run was stopped.  Any field of the config can be
given on the command line: --config.steps=500 --config.method.unsup_weight=0.1
"""

import os
import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from uda_jax import program
from uda_jax.errors import UserError, did_you_mean

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; configs/x.py:argument passes an argument to it."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "latest", ["latest", "best"], "Which weights --mode=evaluate takes."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks of mistakes.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0 of a multi-host run, or auto."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of a multi-host run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this process, from 0.")


def parse(argv: list[str]) -> None:
    """Parses the command line; a mistake in it becomes a UserError."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            dict(_CONFIG.value)  # a missing file fails only when it is looked into
    except Exception as error:
        raise UserError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise UserError(f'"{rest[1]}" is no option: write --name=value.')
    for name in ("config", "workdir"):
        if flags.FLAGS[name].value is None:
            raise UserError(f"--{name} is missing: see python -m uda_jax.main --help.")


_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def _explain(error: Exception, argv: list[str]) -> str:
    """One sentence for what absl, ml_collections or the config file itself raised."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    for cause in reversed(chain):
        if isinstance(cause, UserError):
            return str(cause)
    text = " ".join(str(error).replace("\\", "").split())
    if isinstance(error, flags.UnrecognizedFlagError):
        close = did_you_mean(error.flagname, flags.FLAGS)
        return f"--{error.flagname} is no option{close}: see --help."
    if found := re.match(r"flag --(\S+?)=(.*?): (.*)", text):
        name, value, reason = found.groups()
        kind = _KINDS.get(flags.FLAGS[name].flag_type().split()[-1], "")
        must = f"must be {kind}" if kind else f"cannot be used: {reason}"
        return f"--{name}={value} {must}."
    missing = re.search(r"'(\w+)'.*Did you mean \"(\w+)\"", text) or re.search(
        r"'(\w+)'", text
    )
    for argument in argv:
        name = argument.removeprefix("--").split("=")[0]
        if missing and name.endswith(f".{missing[1]}"):
            close = f' (did you mean "{missing[2]}"?)' if missing.lastindex > 1 else ""
            return f"the config has no field --{name}{close}: see the config file."
    if isinstance(error, OSError):
        path = config_flags.get_config_filename(flags.FLAGS["config"])
        return f"the config file {path} cannot be opened: give the path of a .py file."
    return (
        f"the config file cannot be loaded ({type(chain[-1]).__name__}: {chain[-1]}): "
        "correct it, --debug shows where."
    )


def main() -> None:
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__)
        print(flags.FLAGS.get_help(include_special_flags=False))
        return
    parse(sys.argv)
    # Imported late: jax must not start its backends before the processes have met.
    from uda_jax import parallel

    parallel.start_processes(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    use_compilation_cache()
    workdir = Path(_WORKDIR.value)
    if _MODE.value == "evaluate":
        from uda_jax.summary import evaluate_run

        evaluate_run(_CONFIG.value, workdir, _CHECKPOINT.value)
        return
    from uda_jax.train import fit

    fit(_CONFIG.value, workdir)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the folder that UDA_JAX_CACHE names, if it is set."""
    folder = os.environ.get("UDA_JAX_CACHE")
    if folder:
        import jax

        jax.config.update("jax_compilation_cache_dir", str(Path(folder).resolve()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def run() -> None:
    """The command `uda-jax`."""
    program.run(main)


if __name__ == "__main__":
    run()
