r"""Trains or evaluates what a config file describes.

    python -m uda_jax.main --config configs/tufl_rio.py --workdir runs/tufl_rio

Repeating the command goes on where the run was stopped.  Any field of the config can be
given on the command line: --config.steps=500 --config.method.unsup_weight=0.1
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from uda_jax import program
from uda_jax.config_files import parse_flags
from uda_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file; configs/x.py:argument passes an argument to it."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "latest", program.CHECKPOINTS, "Which weights --mode=evaluate takes."
)
_ON = flags.DEFINE_enum(
    "on", "test", ["test", "validation"], "Which images --mode=evaluate scores."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks of mistakes.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0 of a multi-host run, or auto."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of a multi-host run.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of this process, from 0.")


def parse(argv: list[str]) -> None:
    """Parses the command line; a mistake in it becomes a UserError."""
    parse_flags(flags.FLAGS, argv)
    for name in ("config", "workdir"):
        if flags.FLAGS[name].value is None:
            raise UserError(f"--{name} is missing: see python -m uda_jax.main --help.")


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
    workdir = Path(_WORKDIR.value)
    if _MODE.value == "evaluate":
        from uda_jax.evaluate_run import evaluate_run

        evaluate_run(_CONFIG.value, workdir, _CHECKPOINT.value, _ON.value)
        return
    if _ON.value != "test":
        raise UserError("--on=validation is of --mode=evaluate: leave it out.")
    from uda_jax.train import fit

    fit(_CONFIG.value, workdir)


def run() -> None:
    """The command `uda-jax`."""
    program.run(main)


if __name__ == "__main__":
    run()
