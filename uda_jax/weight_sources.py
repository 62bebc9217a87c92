"""Where weights come from: PyTorch's files, converted files, workdirs of runs.

Each becomes a `Source`: arrays by the paths of their leaves, and what is known of the
network that they are for.
"""

import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from uda_jax import torch_files
from uda_jax.convert import Given, by_path, leaves_by_path
from uda_jax.errors import UserError, did_you_mean
from uda_jax.factories import build, keywords
from uda_jax.labels import LabelSpace, space_of
from uda_jax.models import MODELS, Model, Prediction
from uda_jax.models.deeplabv2 import FORMS, Form
from uda_jax.models.discriminator import discriminator
from uda_jax.models.model import check_options
from uda_jax.recognise import recognise

FORMAT = "uda_jax weights 2"  # of converted files, see uda_jax.weights

# Options that say how a network is run or trained; its numbers fit them all.
RUNNING = ("batch_norm", "compute_dtype", "remat", "drop_path", "dropout")
# What only the heads show: new ones may differ.
OF_HEADS = ("branches", "multi_level", "aux_heads", "channels")


def _discriminator(num_classes: int, *, naming: str = "advent") -> Model:
    """A discriminator, so that its files are converted like the segmentors'."""
    network = discriminator(num_classes)
    check_options("discriminator", naming=(naming, tuple(network.torch)))

    def forward(params, batch_stats, x, *, train, rngs=None):
        return Prediction(network.forward(params, x)), batch_stats

    init = lambda key: (network.init(key), {})
    return Model(init, forward, torch=network.torch[naming])


NETWORKS = {**MODELS, "discriminator": _discriminator}


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
      pairs: network -> (path, array) pairs for `convert.fit`; an array that the file
        does not hold, and that its names imply, has the name "".
      asks: (option, sentence) that the file does not say.
      backbone_only: there are no heads in it.
      settled: it is this library's own, whose options leave nothing open.
      step: of the run, for a workdir.
      steps: that it is to have.
      classes: rows of a user's own label space, or ().
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
    steps: int | None = None
    classes: tuple = ()


def open_source(
    path: str | os.PathLike, *, copy: str = "student", model: str = "", part: str = ""
) -> Source:
    """What `path` holds, before it is fitted to a network.

    Args:
      path, copy, part: see `load_weights_file`.
      model: what a file of no known kind is taken for.

    Raises:
      UserError: unreadable, or of no known kind.
    """
    path = Path(path)
    saved = None if path.is_dir() else torch_files.read(path)
    own = isinstance(saved, dict) and any(
        isinstance(name, str) and name.startswith("params/") for name in saved
    )
    if own and copy != "student":
        raise UserError(f"{path} holds one network alone: leave out --copy={copy}.")
    if saved is None:
        return _open_discriminator(path, part) if part else _open_workdir(path, copy)
    if part:
        raise UserError(
            f"{path} is no workdir of a run, and only such hold parts: leave out "
            f"--part={part}."
        )
    if own:
        return _open_converted(path, path.with_suffix(".json"), saved)
    found = recognise(saved, str(path), copy, model)
    kind = found.kind

    def pairs(network):
        table = network.torch.to_flax
        if kind.table:
            table = (*kind.table, (r"^", network.backbone.replace("/", ".")))
        return [
            (path, _called(given, found.own.get(given.name, "")))
            for path, given in by_path(found.tensors, table)
        ]

    return Source(
        f"{path} ({kind.name})", kind.name, kind.models, found.options,
        found.num_classes, "", found.dropped, pairs, kind.asks,
        backbone_only=found.backbone_only,
    )  # fmt: skip


def _called(given: Given, name: str) -> Given:
    return Given(name, given.shown.replace(given.name, name, 1), given.value)


def network_of(
    source: Source, name: str, num_classes: int, asked: Mapping[str, Any]
) -> tuple[Model, dict[str, Any]]:
    """The network `name` with the source's options and those asked for, and both.

    Raises:
      UserError: the network cannot be had with them.
    """
    known = source.options
    if source.backbone_only:  # which fits several networks
        known = {k: v for k, v in known.items() if k in keywords(NETWORKS[name])}
    if "name" in asked:
        raise UserError(f'{source.what}: a network has no option "name": give model.')
    options = {**known, **asked}
    try:
        row = {"name": name, **options}
        return build(NETWORKS, "model", row, num_classes), options
    except UserError as error:
        raise UserError(f"{source.what} is not usable: {error}") from error


def full_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` of a network with its factory's defaults in the other places."""
    parameters = inspect.signature(NETWORKS[name]).parameters
    defaults = {key: parameters[key].default for key in keywords(NETWORKS[name])}
    full = {**defaults, **options}
    form = FORMS.get(full["form"]) if name == "deeplabv2" else None
    for key in Form._fields if form else ():
        if full[key] is None:
            full[key] = getattr(form, key)
    return full


def check_same(
    source: Source,
    row: Mapping[str, Any],
    label_space: LabelSpace | None,
    *,
    new_heads: bool,
    option: str = "init_from",
) -> None:
    """That a config's model is the source's, where arrays fit and numbers would differ.

    Args:
      source: whose arrays have the places and shapes of the config's model.
      row: config.model.
      label_space: of the config.
      new_heads: heads and classes may differ.
      option: what the config calls the source, for messages.

    Raises:
      UserError: another option or another label space.
    """
    options = dict(row)
    name = options.pop("name")
    here, there = full_options(name, options), source.options
    if source.settled:
        there = full_options(source.models[0], there)
    # Which parameters learn ("affine") says nothing about what they compute.
    free = (*RUNNING, "affine", *(OF_HEADS if new_heads else ()))
    differing = [
        f"{key}={value} where config.model.{key} is {here[key]}"
        for key, value in there.items()
        if key in here and key not in free and value != here[key]
    ]
    if source.settled and name != source.models[0]:
        differing.insert(0, f"model {source.models[0]} where config.model is {name}")
    if source.label_space and label_space and not new_heads:
        ours, theirs = label_space, space_of(source.label_space, source.classes)
        if ours.name != theirs.name:
            differing.append(
                f"label_space={theirs.name} where config.label_space is {ours.name}"
            )
        elif ours.classes != theirs.classes:
            differing.append(
                f"the classes {', '.join(theirs.classes)} where the config's are "
                f"{', '.join(ours.classes)}"
            )
    if differing:
        raise UserError(
            f"{option}={source.what} has {', '.join(differing)}: set the config to "
            "what the weights were trained with, or choose another file."
        )


def _open_workdir(path, copy) -> Source:
    from uda_jax.trained import load_run  # which imports this module

    if copy not in ("student", "teacher"):
        raise UserError(
            f"{path} is a run, which has no {copy} to convert: leave out --copy={copy}."
        )
    run = load_run(path, "teacher" if copy == "teacher" else "latest")
    options = dict(run.config.model)
    name = options.pop("name")
    return Source(
        f"{path} (a run)", "a run", (name,), options, run.label_space.num_classes,
        run.config.label_space, {},
        lambda network: leaves_by_path(run.params, run.batch_stats), settled=True,
        step=run.step, steps=run.config.steps, classes=run.config.classes,
    )  # fmt: skip


def _open_discriminator(path, part) -> Source:
    from uda_jax.trained import load_run  # which imports this module

    run = load_run(path)
    parts = {f"discriminator/{name}": x for name, x in run.discriminators.items()}
    if part not in parts:
        raise UserError(
            f"{path} (a run of {run.config.method.name}) has no part {part}"
            f"{did_you_mean(part, parts)}: it has {', '.join(parts) or 'none'}; leave "
            "--part out for its segmentation network."
        )
    return Source(
        f"{path} (a run), {part}", f"a run's {part}", ("discriminator",), {},
        run.label_space.num_classes, run.config.label_space, {},
        lambda network: leaves_by_path(parts[part], {}), step=run.step,
        classes=run.config.classes,
    )  # fmt: skip


def _open_converted(path, description, saved) -> Source:
    try:
        known = json.loads(description.read_text())
        with safe_open(path, framework="np") as file:
            together = (file.metadata() or {}).get("pair") == known["pair"]
        current = known["format"] == FORMAT
        row = known["model"]
        name = row.pop("name")
        if current:
            _check_description(known, name)
    except SafetensorError as error:
        raise UserError(
            f"{path} has this library's names and is no safetensors file: give the "
            "file that was converted."
        ) from error
    except (
        OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError
    ) as error:  # fmt: skip
        told = str(error).rstrip(".")
        if not isinstance(error, UserError):
            told = f"{type(error).__name__}: {told}"
        raise UserError(
            f"{path} needs {description.name} beside it, which says what network it is "
            f"for, and it cannot be used ({told}): keep the two files together."
        ) from error
    if not current or not together:
        raise UserError(
            f"{path} and {description.name} do not belong together, or are of another "
            "version of this library: convert the original file again."
        )
    if not all(map(str.isprintable, saved)):
        raise UserError(
            f"{path} holds tensors whose names are no paths: convert the original file "
            "again."
        )
    pairs = [(p, Given(p, f"{p} {list(a.shape)}", a)) for p, a in saved.items()]
    return Source(
        f"{path} ({known['kind']})", known["kind"], (name,), row, known["num_classes"],
        known["label_space"], {}, lambda network: pairs, settled=True,
        classes=known["classes"],
    )  # fmt: skip


def _check_description(known, name) -> None:
    """Raises a UserError for values of a kind that this library never writes."""
    if name not in list(NETWORKS):
        raise UserError(f"its model {name!r} is none of {', '.join(NETWORKS)}")
    classes, kind, space = (known[k] for k in ("num_classes", "kind", "label_space"))
    if type(classes) is not int or classes < 1:
        raise UserError(f"its num_classes {classes!r} is no number of at least 1")
    if not isinstance(kind, str) or not kind.isprintable():
        raise UserError(f"its kind {kind!r} is no text")
    if not isinstance(space, str):
        raise UserError(f"its label_space {space!r} is no name")
    if space:
        space_of(space, known["classes"])
