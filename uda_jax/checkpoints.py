"""Checkpoints: Orbax keeps the latest and the best, written asynchronously.

A checkpoint is the whole `TrainState`.  The data position needs no record of its own:
it is the step.  A folder appears under its final name only when it is complete, so a
killed run leaves either a whole checkpoint or none.
"""

import warnings
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from uda_jax.errors import UserError
from uda_jax.program import CHECKPOINTS

PyTree = Any


def has_checkpoint(directory: Path) -> bool:
    """Whether a complete checkpoint is in a folder that need not exist."""
    return latest_step(directory) is not None


def latest_step(directory: Path) -> int | None:
    """Of the complete checkpoints in a folder that need not exist; None for none."""
    names = (path.name for path in directory.glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=None)


class Checkpoints:
    """The checkpoints of one run: its latest, and the best of those it evaluated.

    A run that was stopped and goes on keeps its best one.  A run that continues another
    (`continue_from`) counts its own evaluations alone; the other's best checkpoint
    stays in the other's folder, which nothing writes to.

    Args:
      directory: folder that holds one sub-folder per step.
      read_only: do not clean up what another process may still be writing.
    """

    def __init__(self, directory: Path, *, read_only: bool = False):
        policies = ocp.training.preservation_policies
        self._checkpointer = ocp.training.Checkpointer(
            Path(directory).resolve(),
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(1),
                    policies.BestN(
                        get_metric_fn=lambda metrics: metrics["miou"],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            save_decision_policy=(
                ocp.training.save_decision_policies.FixedIntervalPolicy(1)
            ),
            cleanup_tmp_directories=not read_only,
        )

    def save(self, step: int, state: PyTree, miou: float | None = None) -> None:
        """Starts writing `state`; `miou` makes it a candidate for the best one."""
        metrics = None if miou is None else {"miou": float(miou)}
        self._checkpointer.save_async(step, state, metrics=metrics, overwrite=True)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def find(self, kind: str) -> int | None:
        """Step of that checkpoint, one of `CHECKPOINTS`; None if there is none."""
        if kind not in CHECKPOINTS:
            raise UserError(
                f'checkpoint "{kind}" is unknown: use {", ".join(CHECKPOINTS)}.'
            )
        if kind != "best":
            return max(self.steps(), default=None)
        scored = [c for c in self._checkpointer.checkpoints if c.metrics]
        best = max(scored, key=lambda c: (c.metrics["miou"], -c.step), default=None)
        return best.step if best else None

    def restore(self, step: int, template: PyTree) -> PyTree:
        """The state of `step`, with the shardings of `template`.

        Raises:
          UserError: names, shapes or dtypes differ from the template's.
        """
        stored = self._checkpointer.metadata(step).metadata
        raw_key = jax.tree.map(_without_key_type, template)
        check_same_leaves(
            _leaves(raw_key),
            _leaves(stored),
            f"checkpoint {self.directory / str(step)}",
        )
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            template,
        )
        state = self._checkpointer.load(step, abstract)
        # Orbax gives keys an equal sharding of another spelling, P(None) for P(), and
        # the train step would be compiled a second time for it.
        return jax.tree.map(
            lambda x, like: (
                x if x.sharding == like.sharding else jax.device_put(x, like.sharding)
            ),
            state,
            template,
        )

    def restore_parts(self, step: int, parts: tuple[str, ...]) -> dict[str, PyTree]:
        """Only the named top-level parts of the state, on the first device."""
        stored = self._checkpointer.metadata(step).metadata
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        load = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
        skip = lambda x: ocp.PLACEHOLDER
        wanted = {
            name: jax.tree.map(load if name in parts else skip, tree)
            for name, tree in stored.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            state = self._checkpointer.load(step, wanted)
        return {name: state[name] for name in parts}

    def names(self, step: int, part: str) -> frozenset[str]:
        """Of what a top-level part of the state holds; none for an empty one."""
        return frozenset(self._checkpointer.metadata(step).metadata.get(part) or ())

    @property
    def directory(self) -> Path:
        return Path(self._checkpointer.directory)

    def wait(self) -> None:
        """Returns when the last save is on disk; raises what went wrong there."""
        self._checkpointer.wait()

    def close(self) -> None:
        self.wait()
        self._checkpointer.close()


def check_same_leaves(expected: dict, given: dict, source: str) -> None:
    """Raises UserError unless two {name: (shape, dtype)} tables are the same."""
    missing = sorted(expected.keys() - given.keys())
    extra = sorted(given.keys() - expected.keys())
    if missing or extra:
        raise UserError(
            f"{source} is of another network, method or optimizer: it lacks "
            f"{_some(missing)} and has {_some(extra)} beside; use the config that "
            "wrote it."
        )
    for name, (shape, dtype) in expected.items():
        if given[name] != (shape, dtype):
            raise UserError(
                f"{source} is of another network or another number of classes: {name} "
                f"is {_describe(given[name])} there and {_describe((shape, dtype))} "
                "here; use the config that wrote it."
            )


def _some(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _describe(leaf: tuple) -> str:
    shape, dtype = leaf
    return f"{dtype}{list(shape)}"


def _without_key_type(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.eval_shape(jax.random.key_data, x)
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _leaves(tree: PyTree) -> dict[str, tuple]:
    """{'a/b/0': (shape, dtype)}, alike for dataclasses, tuples and plain dicts."""

    def name(key) -> str:
        for attribute in ("key", "name", "idx"):
            if hasattr(key, attribute):
                return str(getattr(key, attribute))
        return str(key)

    return {
        "/".join(map(name, path)): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
