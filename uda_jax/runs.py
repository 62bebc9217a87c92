"""A run's folder: its config, where it came from, and how to load what it learned."""

import json
import platform
import shlex
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from uda_jax import program
from uda_jax.benchmarks import base_config, evaluated_classes, label_space_of
from uda_jax.data.dataset import check_one_of
from uda_jax.data.resizing import FILTERS
from uda_jax.errors import UserError
from uda_jax.files import write_atomically
from uda_jax.inference import inference_options, pair
from uda_jax.labels import LabelSpace
from uda_jax.models import create_model
from uda_jax.models.model import Model

PyTree = Any

# What may differ when a run goes on: it changes no number of the run.
FREE_KEYS = (
    *("data.threads", "data.workers", "data.prepared"),
    *("log_every", "panels_every", "evaluation.batch_size", "evaluate_teacher", "next"),
)
# Where a run's weights came from.
ORIGINS = ("init_from", "init_new_heads", "frozen_from", "continue_from")
LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "clu", "numpy")


def check_config(config: ConfigDict) -> None:
    """Finds before the first step what would otherwise fail after the last.

    Raises:
      UserError: a number out of range, an unknown label space, benchmark or mode.
    """
    for key, least in (("steps", 1), ("accumulate_steps", 1), ("log_every", 0),
                       ("evaluate_every", 0), ("panels_every", 0),
                       ("checkpoint_every", 0)):  # fmt: skip
        if config[key] < least:
            raise UserError(f"{key}={config[key]} is too small: give {least} or more.")
    if config.init_new_heads and not (config.init_from or config.continue_from):
        raise UserError(
            "init_new_heads=True says which part of init_from to take, and init_from "
            "is empty: give a file or a workdir, or leave it out."
        )
    evaluated_classes(config)
    look = config.evaluation
    inference_options(
        *(look.mode, look.window, look.stride, look.scales, look.flip),
        *(look.resize, look.align_corners),
    )
    for key in ("size", "label_size"):
        if look[key]:
            pair(key, look[key], "evaluation")
    check_one_of("evaluation.filter", look.filter, FILTERS)
    if look.batch_size < 1:
        raise UserError(
            f"evaluation.batch_size={look.batch_size} is too small: give 1 or more."
        )


def make_model(config: ConfigDict) -> Model:
    """The segmentation network that a config describes."""
    return create_model(
        **config.model,
        num_classes=label_space_of(config).num_classes,
        batch_norm=config.batch_norm,
        compute_dtype=config.compute_dtype,
        remat=config.remat,
    )


def check_workdir(workdir: Path, config: ConfigDict) -> bool:
    """Looks whether `workdir` can be that of `config`; changes nothing.

    Returns:
      Whether a run of this config is there already.

    Raises:
      UserError: the folder belongs to another config or to another version of this
        library, or holds something else.
    """
    path = workdir / "config.json"
    text = config.to_json_best_effort()
    if path.exists():
        old = json.loads(path.read_text())
        _check_version(workdir, old)
        differing = differences(old, json.loads(text))
        if differing:
            raise UserError(
                f"workdir {workdir} belongs to a run of another config "
                f"({'; '.join(differing[:4])}{' ...' if differing[4:] else ''}): "
                "choose another --workdir, or repeat the original command to go on."
            )
        return True
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(
            f"workdir {workdir} exists but is not a run (it has no config.json): "
            "choose a new or an empty folder."
        )
    return False


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Claims `workdir` for `config`; raises what `check_workdir` raises."""
    if not check_workdir(workdir, config):
        workdir.mkdir(parents=True, exist_ok=True)
        text = config.to_json_best_effort(indent=2, sort_keys=True)
        write_atomically(workdir / "config.json", text)


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """'key: old -> new' for each differing leaf of two nested dicts."""
    rows = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        a, b = old.get(key, "absent"), new.get(key, "absent")
        if name in FREE_KEYS or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            rows += differences(a, b, f"{name}.")
        else:
            rows.append(f"{name}: {a} -> {b}")
    return rows


def provenance() -> dict[str, Any]:
    """Versions, commit, command line and machine of this process."""
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
    )
    return {
        "command": program.command(),
        "commit": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }


def write_provenance(workdir: Path, origin: str) -> None:
    """Adds this start, with where its weights are from, to workdir/provenance.json."""
    path = workdir / "provenance.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    start = {**provenance(), "weights": origin}
    write_atomically(path, json.dumps([*starts, start], indent=2))


def first_command(workdir: Path) -> tuple[str, ...]:
    """The words of the command line that began the run; () where nobody knows."""
    try:
        starts = json.loads((workdir / "provenance.json").read_text())
        return tuple(shlex.split(starts[0]["command"]))
    except (OSError, ValueError, LookupError, TypeError):
        return ()


def read_config(workdir: Path) -> ConfigDict:
    """The config of the run in `workdir`.

    Raises:
      UserError: no run is there, or one of another version of this library.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(
            f"{workdir} is not the workdir of a run (it has no config.json): "
            "give the --workdir of a training command."
        )
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not readable JSON ({error}): restore it or choose another run."
        ) from error
    _check_version(Path(workdir), values)
    return ConfigDict(values)


def _check_version(workdir: Path, values: Any) -> None:
    """Raises a UserError for a config with other fields than this version's."""
    own = base_config("own").to_dict()
    if not isinstance(values, dict):
        raise UserError(
            f"{workdir}/config.json holds no config: restore it or choose another run."
        )
    differing = sorted(own.keys() ^ values.keys())
    if isinstance(values.get("data"), dict):
        differing += sorted(f"data.{k}" for k in own["data"].keys() ^ values["data"])
    if not differing:
        return
    try:
        commit = json.loads((workdir / "provenance.json").read_text())[0]["commit"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        commit = "unknown"
    version = "another version of this library"
    version += "" if commit == "unknown" else f", commit {commit},"
    raise UserError(
        f"{workdir}/config.json was written by {version} (it differs in "
        f"{', '.join(map(str, differing[:4]))}): go on with that version, or let its "
        f"`python -m uda_jax.convert {workdir} FILE.safetensors` make a file for "
        "init_from."
    )


def load_weights(
    init_from: str,
    params: PyTree,
    batch_stats: PyTree,
    *,
    new_heads: bool = False,
    row: Mapping[str, Any] | None = None,
    label_space: LabelSpace | None = None,
    option: str = "init_from",
) -> tuple[PyTree, PyTree, str]:
    """Weights of another run or of a file for a network with these shapes.

    Args:
      init_from: workdir of the other run, whose latest checkpoint is taken; a converted
        file; or a file of PyTorch's of a known kind, of a self-training checkpoint the
        student.
      params, batch_stats: the new network's own.
      new_heads: leaves outside of the backbone that the file lacks, or has in another
        shape, keep the values that they have in `params`.
      row, label_space: the config's model and classes, which must be what the file says
        of its own; shapes do not show how many branches are summed, or what the first
        convolution sees.  None: not compared.
      option: what the config calls `init_from`, for messages.

    Returns:
      (params, batch_stats, one line that says what was loaded and what stayed).

    Raises:
      UserError: nothing that can be read is there, or a name or shape differs (another
        network, another class count), or `row` or `label_space`.
    """
    # It reads workdirs by this module.
    from uda_jax.weights import fit_like

    path = Path(init_from)
    if not path.is_file() and not (path / "config.json").is_file():
        raise UserError(
            f"{option}={init_from} is neither a file nor the workdir of a run (it has "
            "no config.json): give a run's --workdir, a converted file or a checkpoint "
            "of PyTorch's."
        )
    params, batch_stats, line = fit_like(
        path, params, batch_stats, new_heads=new_heads, row=row,
        label_space=label_space, option=option,
    )  # fmt: skip
    # Arrays of jax's own: a train step takes the memory of those that it is given.
    return *jax.tree.map(jnp.array, (params, batch_stats)), line
