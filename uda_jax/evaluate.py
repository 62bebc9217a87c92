"""Evaluation: a forward function and a labelled dataset in, a Report out."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax.confusion import confusion_matrix
from uda_jax.data.reading import in_groups, read_ahead
from uda_jax.data.resizing import resize_image, resize_label
from uda_jax.errors import UserError
from uda_jax.inference import inference_options, pair, probabilities, protocol
from uda_jax.labels import IGNORE, LABEL_SPACES
from uda_jax.metrics import Report
from uda_jax.models.model import Model, PyTree

_IN_FLIGHT = 2  # batches dispatched to the device and not yet read back


@dataclasses.dataclass(frozen=True)
class _MainLogits:
    # Compares by the model, so that evaluations of new weights do not compile again.
    forward: Callable

    def __call__(self, params, batch_stats, image, size=None):
        forward = partial(self.forward, params, batch_stats, train=False)
        return forward(image, size=size)[0].logits


def make_forward(
    model: Model, params: PyTree, batch_stats: PyTree
) -> jax.tree_util.Partial:
    """Returns image -> logits of the main head, with running BatchNorm statistics.

    The result is a pytree that carries the weights, so that a jitted function can take
    it as an argument: new weights of the same model compile nothing.

    Args:
      model: the network.
      params, batch_stats: its weights.

    Returns:
      Callable, normalised float32 [B, H, W, 3] -> float32 [B, H, W, C]; given `size`
      (height, width), -> [B, *size, C] by the network's own last resize.
    """
    return jax.tree_util.Partial(_MainLogits(model.forward), params, batch_stats)


@partial(
    jax.jit,
    static_argnames=(
        *("num_classes", "mode", "window", "stride", "scales", "flip", "resize"),
        *("align_corners", "per_pass", "replicated"),
    ),
)
def _count(forward, image, label, *, num_classes, replicated=None, **options):
    probs = probabilities(forward, image, output_size=label.shape[1:], **options)
    if probs.shape[-1] != num_classes:
        raise UserError(
            f"the network has {probs.shape[-1]} classes and the dataset {num_classes}: "
            "evaluate it in the label space that it was trained in."
        )
    counts = confusion_matrix(jnp.argmax(probs, -1), label, num_classes)
    if replicated is not None:
        counts = jax.lax.with_sharding_constraint(counts, replicated)
    return counts


def evaluate(
    forward: Callable[[jax.Array], jax.Array],
    dataset: Sequence[Mapping[str, Any]],
    *,
    num_classes: int,
    classes: Sequence[int] | None = None,
    also: Mapping[str, Sequence[int]] | None = None,
    mode: str = "whole",
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    size: Sequence[int] | None = None,
    label_size: Sequence[int] | None = None,
    filter: str = "area",
    resize: str = "probabilities",
    align_corners: bool = True,
    batch_size: int = 1,
    sharding: jax.sharding.NamedSharding | None = None,
    progress: Callable[[int, int], None] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Report:
    """Scores a network on every image of a labelled dataset, at the labels' own size.

    Probabilities or logits are resized to the label (`resize`, bilinear) and the
    largest wins, the lowest class id among equals.  Images of one size share one
    compilation; a last incomplete batch is filled with copies that are not counted, so
    that the batch size changes nothing but the speed.  The report's provenance says
    under "protocol" how it was done, in words.

    Args:
      forward: normalised float32 [B, H, W, 3] -> logits [B, H, W, C]; best from
        `make_forward`, with which new weights compile nothing, and which takes the
        `size` that resize="direct" asks for.
      dataset: items {"image": uint8 [H, W, 3], "label": uint8 [h, w], "name"}; sizes
        may differ between items and between image and label.
      num_classes: C.
      classes: train ids that the mean goes over; all by default.
      also: train ids of further means to report, by name.
      mode, window, stride, scales, flip, resize, align_corners: see
        `inference_options`.
      size: (height, width) that the images are resized to on the host, before the
        network sees them; their own size by default.
      label_size: (height, width) that the labels are resized to, and scores counted at:
        MaxSquare's protocol.  Their own size by default, as everywhere else.
      filter: how both are resized; key of `uda_jax.data.resizing.FILTERS`.
      batch_size: images per forward pass in the mode "whole", else windows per pass.
      sharding: of the image batch over devices; the weights must then be replicated on
        the same mesh, and only the mode "whole" splits its work.
      progress: called with (images done, images in all) after every batch.
      provenance: network, step, checkpoint, benchmark...: goes into the report with how
        the images were looked at.

    Raises:
      UserError: an empty dataset, an item without label, a train id outside [0, C), a
        network with another number of classes, options that do not fit each other.
    """
    options = inference_options(
        mode, window, stride, scales, flip, resize, align_corners
    )
    if len(dataset) == 0:
        raise UserError("there is no image to evaluate: the dataset is empty.")
    sizes = {
        "size": pair("size", size, "evaluation") if size else None,
        "label_size": (
            pair("label_size", label_size, "evaluation") if label_size else None
        ),
    }
    group = batch_size if mode == "whole" else 1
    classes = tuple(range(num_classes)) if classes is None else tuple(classes)
    forward = (
        forward
        if isinstance(forward, jax.tree_util.Partial)
        else jax.tree_util.Partial(forward)
    )
    replicated = None
    if sharding is not None:
        replicated = jax.sharding.NamedSharding(
            sharding.mesh, jax.sharding.PartitionSpec()
        )
    put = lambda x: (
        x
        if sharding is None or mode != "whole"
        else jax.make_array_from_callback(x.shape, sharding, x.__getitem__)
    )
    confusions = np.zeros((len(dataset), num_classes, num_classes), np.int64)
    names, seen = [""] * len(dataset), set()
    pending, done = collections.deque(), 0

    def read_back():
        nonlocal done
        indices, counts = pending.popleft()
        confusions[indices] = np.asarray(counts)[: len(indices)]
        done += len(indices)
        if progress:
            progress(done, len(dataset))

    prepare = partial(_load, dataset, **sizes, filter=filter, num_classes=num_classes)
    shapes = lambda item: (item["image"].shape, item["label"].shape)
    for items in in_groups(read_ahead(prepare, range(len(dataset))), group, shapes):
        for index, item in items:
            names[index] = str(item["name"])
            sides = (item["image"].shape[:2], item["label"].shape, item["own_size"])
            seen.add(sides)
        image, label = (
            np.stack([item[key] for _, item in items]) for key in ("image", "label")
        )
        fill = group - len(items)
        image = np.concatenate([image, np.repeat(image[:1], fill, axis=0)])
        ignored = np.full((fill, *label.shape[1:]), IGNORE, label.dtype)
        counts = _count(
            forward,
            put(image),
            put(np.concatenate([label, ignored])),
            num_classes=num_classes,
            per_pass=batch_size,
            replicated=replicated,
            **options,
        )
        pending.append(([index for index, _ in items], counts))
        if len(pending) > _IN_FLIGHT:
            read_back()
    while pending:
        read_back()
    shown = {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
    return Report(
        confusion=confusions.sum(0),
        class_names=_class_names(dataset, num_classes),
        classes=classes,
        num_images=len(dataset),
        provenance={
            **(provenance or {}),
            **shown,
            **{k: v and list(v) for k, v in sizes.items()},
            "filter": filter,
            "protocol": protocol(
                options,
                seen,
                filter if size else "",
                filter if label_size else "",
            ),
        },
        confusions=confusions,
        image_names=tuple(names),
        also={k: tuple(v) for k, v in (also or {}).items()},
    )


def _load(dataset, index, *, size, label_size, filter, num_classes):
    item = dataset[index]
    if "label" not in item:
        raise UserError(
            f'image "{item["name"]}" has no label: evaluation needs one per image.'
        )
    label = item["label"]
    wrong = label[(label >= num_classes) & (label != IGNORE)]
    if wrong.size:
        raise UserError(
            f'the label of "{item["name"]}" holds train id {wrong[0]}; allowed are 0 '
            f"to {num_classes - 1} and {IGNORE} (ignored): check the label space."
        )
    item = {**item, "own_size": label.shape}
    if size:
        item["image"] = resize_image(item["image"], size, filter)
    if label_size:
        item["label"] = resize_label(item["label"], label_size, filter)
    return item


def _class_names(dataset, num_classes):
    space = getattr(dataset, "label_space", None)
    space = LABEL_SPACES[space] if isinstance(space, str) else space
    if space is None:
        return tuple(f"class {c}" for c in range(num_classes))
    return tuple(space.classes)
