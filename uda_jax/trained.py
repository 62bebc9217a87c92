"""What a run has learned, ready to use: `load_run(workdir)`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from uda_jax.benchmarks import label_space_of
from uda_jax.checkpoints import Checkpoints
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace
from uda_jax.methods.method import Network
from uda_jax.models.model import Model
from uda_jax.runs import make_model, read_config

PyTree = Any


class Run(NamedTuple):
    """What a workdir holds, ready to use."""

    config: ConfigDict
    model: Model
    params: PyTree  # of the segmentor
    batch_stats: PyTree
    discriminators: dict[str, PyTree]  # {'main', 'aux'}; {} where the method has none
    label_space: LabelSpace
    step: int


@contextmanager
def open_checkpoints(workdir: Path) -> Iterator[Checkpoints]:
    """The checkpoints of a run that may still be training; nothing is written.

    Raises:
      UserError: it has none.
    """
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{workdir} has no checkpoint yet: train it first.")
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def load_run(workdir: str | Path, checkpoint: str = "latest") -> Run:
    """Config, network and weights of a finished or running run.

    Args:
      workdir: what `--workdir` was.
      checkpoint: 'latest', or 'best' by the mIoU on the run's own test images; of a run
        that continues another, among its own steps; 'teacher': the mean teacher of the
        latest.

    Raises:
      UserError: no run there, no such checkpoint yet, or a method without a teacher.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    model = make_model(config)
    parts = ("params", "batch_stats")
    if checkpoint == "teacher":
        parts += ("memory",)
    with open_checkpoints(workdir) as checkpoints:
        step = _find(checkpoints, workdir, checkpoint)
        state = checkpoints.restore_parts(step, parts)
    network = Network(state["params"]["segmentor"], state["batch_stats"])
    if checkpoint == "teacher":
        network = Network(**state["memory"]["teacher"])
    return Run(
        config=config,
        model=model,
        params=network.params,
        batch_stats=network.batch_stats,
        discriminators=state["params"].get("discriminator", {}),
        label_space=label_space_of(config),
        step=step,
    )


def check_checkpoint(workdir: str | Path, checkpoint: str) -> None:
    """Raises what `load_run` raises where the run has no such checkpoint."""
    with open_checkpoints(Path(workdir)) as checkpoints:
        _find(checkpoints, workdir, checkpoint)


def _find(checkpoints: Checkpoints, workdir: str | Path, kind: str) -> int:
    step = checkpoints.find(kind)
    if step is None:
        raise UserError(f"{workdir} has no {kind} checkpoint yet: train it.")
    if kind == "teacher" and "teacher" not in checkpoints.names(step, "memory"):
        raise UserError(
            f"{workdir} is a run of {read_config(workdir).method.name}, which has no "
            "teacher: choose the checkpoint latest or best."
        )
    return step
