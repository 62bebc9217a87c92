"""Data parallelism: one mesh axis, one code path for 1..N devices and processes.

The train step is one `jax.jit` of the mathematics of the global batch.  The batch is
sharded along the mesh axis 'data' and everything else is replicated, so XLA inserts the
sums and the result does not depend on how many devices there are (up to rounding).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uda_jax.errors import UserError

AXIS = "data"


def start_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Joins this process to the others of a multi-host run; call before any jax use.

    Args:
      coordinator: 'host:port' of process 0, or 'auto' where the cluster tells (TPU
        pods, Slurm, Open MPI); None for a single process.
      num_processes: how many processes there are; None with 'auto'.
      process_id: 0 <= process_id < num_processes; None with 'auto'.

    Raises:
      UserError: a coordinator without the other two, or the reverse.
    """
    given = (num_processes is not None, process_id is not None)
    if coordinator is None:
        if any(given):
            raise UserError(
                "--num_processes and --process_id were given without --coordinator: "
                "add --coordinator=HOST:PORT of process 0."
            )
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if not all(given):
        raise UserError(
            f"--coordinator={coordinator} needs --num_processes and --process_id too."
        )
    jax.distributed.initialize(coordinator, num_processes, process_id)


def make_mesh() -> Mesh:
    """All devices of all processes along one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch(batch_size: int, accumulate_steps: int, mesh: Mesh) -> None:
    """Raises UserError unless every device gets the same share of each forward pass."""
    pieces = mesh.size * accumulate_steps
    if batch_size < 1 or batch_size % pieces:
        raise UserError(
            f"batch_size={batch_size} cannot be divided among {mesh.size} devices x "
            f"{accumulate_steps} accumulation steps: choose a multiple of {pieces}."
        )


def replicate(tree, mesh: Mesh):
    """The same values on every device; never aliases (or donates) what was given."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def put(x):
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(
            x.dtype, jax.dtypes.prng_key
        ):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)))
        return jax.device_put(np.array(x), sharding)

    return jax.tree.map(put, tree)


def shard_batch(batch, mesh: Mesh):
    """Global arrays from this process's part of the batch, sharded over the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
    )


def to_host(tree):
    """Numpy arrays of a replicated tree, for what one process does alone."""
    return jax.tree.map(np.asarray, jax.device_get(tree))


def is_main() -> bool:
    """Whether this process writes files and speaks to the user."""
    return jax.process_index() == 0


def check_equal(value: str, complaint: str) -> None:
    """Raises a UserError in every process where `value` is not the same in all.

    Args:
      value: this process's.
      complaint: what the processes would do, for the sentence.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    everywhere = np.asarray(multihost_utils.process_allgather(digest))
    if (everywhere != everywhere[0]).any():
        raise UserError(
            f"the processes of this run {complaint}: give all hosts the same files."
        )


@contextmanager
def mistakes_shared() -> Iterator[None]:
    """At its end all processes raise an error if one of them has.

    Else the others would wait for that one at the next barrier, for ever.  What is done
    meanwhile must not wait for another process either.
    """
    mistake = None
    try:
        yield
    except Exception as error:  # of any kind: a full disk stops one process alone
        mistake = error
    anywhere = mistake is not None
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        flags = multihost_utils.process_allgather(np.array(anywhere))
        anywhere = bool(np.any(flags))
    if mistake is not None:
        raise mistake
    if anywhere:
        raise UserError("another process of this run stopped, and says there why.")


def wait_for_all(name: str) -> None:
    """A barrier: no process goes on before all have come here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
