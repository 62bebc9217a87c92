"""Where weights come from: PyTorch's files, converted files, workdirs of runs.

Each becomes a `Source`: arrays by the paths of their leaves, and what is known of the
network that they are for.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from uda_jax import torch_files
from uda_jax.checkpoint_kinds import recognise
from uda_jax.convert import Given, by_path, leaves_by_path
from uda_jax.errors import UserError
from uda_jax.models import Model

FORMAT = "uda_jax weights 1"  # of converted files, see uda_jax.weights


class Source(NamedTuple):
    """Arrays on their way into a network, and what is known of it.

    Attributes:
      what: for messages and the log: the path and what it is.
      kind: what the file is.
      models: the networks that it fits; a whole network fits its own alone.
      options: of that network, as far as known.
      num_classes: of its classifier; 0 for a backbone alone.
      label_space: key of LABEL_SPACES or "".
      dropped: rule -> names.
      pairs: network -> (path, array) pairs for `convert.fit`.
      asks: (option, sentence) that the file does not say.
      backbone_only: there are no heads in it.
      settled: it is this library's own, whose options leave nothing open.
      step: of the run, for a workdir.
    """

    what: str
    kind: str
    models: tuple[str, ...]
    options: dict[str, Any]
    num_classes: int
    label_space: str
    dropped: dict[str, list[str]]
    pairs: Callable[[Model], Iterable[tuple[str, Given]]]
    asks: tuple[tuple[str, str], ...] = ()
    backbone_only: bool = False
    settled: bool = False
    step: int | None = None


def open_source(
    path: str | os.PathLike, *, copy: str = "student", model: str = ""
) -> Source:
    """What `path` holds, before it is fitted to a network.

    Args:
      path, copy: see `load_weights_file`.
      model: what a file of no known kind is taken for.

    Raises:
      UserError: unreadable, or of no known kind.
    """
    path = Path(path)
    saved = None if path.is_dir() else torch_files.read(path)
    own = isinstance(saved, dict) and any(str(n).startswith("params/") for n in saved)
    if (own or saved is None) and copy != "student":
        raise UserError(f"{path} holds one network alone: leave out --copy={copy}.")
    if saved is None:
        return _open_workdir(path)
    if own:
        return _open_converted(path, path.with_suffix(".json"), saved)
    found = recognise(saved, str(path), copy, model)
    kind = found.kind

    def pairs(network):
        table = network.torch.to_flax
        if kind.table:
            table = (*kind.table, (r"^", network.backbone.replace("/", ".")))
        return by_path(found.tensors, table)

    return Source(
        f"{path} ({kind.name})", kind.name, kind.models, found.options,
        found.num_classes, "", found.dropped, pairs, kind.asks,
        backbone_only=bool(kind.table),
    )  # fmt: skip


def _open_workdir(path) -> Source:
    from uda_jax.runs import load_run  # which imports this module

    run = load_run(path)
    options = dict(run.config.model)
    name = options.pop("name")
    return Source(
        f"{path} (a run)", "a run", (name,), options, run.label_space.num_classes,
        run.config.label_space, {},
        lambda network: leaves_by_path(run.params, run.batch_stats), settled=True,
        step=run.step,
    )  # fmt: skip


def _open_converted(path, description, saved) -> Source:
    try:
        known = json.loads(description.read_text())
        with safe_open(path, framework="np") as file:
            together = (file.metadata() or {}).get("pair") == known["pair"]
        row = known["model"]
        name = row.pop("name")
        rest = [known[key] for key in ("kind", "num_classes", "label_space")]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} needs {description.name} beside it, which says what network it is "
            f"for, and it cannot be used ({type(error).__name__}: {error}): keep the "
            "two files together."
        ) from error
    if known.get("format") != FORMAT or not together:
        raise UserError(
            f"{path} and {description.name} do not belong together, or are of another "
            "version of this library: convert the original file again."
        )
    pairs = [(p, Given(p, f"{p} {list(a.shape)}", a)) for p, a in saved.items()]
    kind, num_classes, label_space = rest
    return Source(
        f"{path} ({kind})", kind, (name,), row, num_classes, label_space, {},
        lambda network: pairs, settled=True,
    )  # fmt: skip
