"""The step of DAFormer, DACS and EBDA: what `daformer` and `ebda` give names to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax import augment, losses, mixing
from uda_jax.errors import UserError
from uda_jax.methods import supervised
from uda_jax.methods.method import Method, Network, Output
from uda_jax.models.model import Prediction

PyTree = Any

COLORS = ("daformer", "none")
STATISTICS = ("student", "target")


class Mixed(NamedTuple):
    """A target batch with source classes in it, and what the student says of it.

    Attributes:
      image: [B, H, W, 3] float32, normalised, with other colours.
      from_source: bool [B, H, W].
      prediction: the student's, in training mode.
      run: (image, key, batch_stats) -> (Prediction, batch_stats) of the student.
      batch_stats: after it has seen `image`.
      key: for what is drawn of it.
    """

    image: jax.Array
    from_source: jax.Array
    prediction: Prediction
    run: Callable
    batch_stats: PyTree
    key: jax.Array


class Further(NamedTuple):
    """One more term of the total.

    Attributes:
      memory: its own, after this step.
      batch_stats: after it.
      metrics, images: see Output.
    """

    memory: PyTree
    batch_stats: PyTree
    metrics: dict[str, jax.Array]
    images: dict[str, jax.Array]


def self_training(
    forward: Callable,
    num_classes: int,
    *,
    alpha: float,
    threshold: float,
    ignore_top: int,
    ignore_bottom: int,
    feature_weight: float,
    feature_classes: tuple[int, ...],
    feature_min_ratio: float,
    colors: str,
    pool_per_image: bool,
    source_view: str,
    statistics: str,
    further: Callable[[Mixed, PyTree], tuple[jax.Array, Further]] | None = None,
    further_memory: PyTree = (),
) -> Method:
    """The method that `daformer` documents, with one more term.

    Args:
      further: (Mixed, its memory) -> (scalar to add to the total, Further).
      further_memory: the initial one, state.memory["further"] later on.
      **rest: see `daformer`.
    """
    supervised.check_choice("colors", colors, COLORS)
    supervised.check_choice("source_view", source_view, augment.SOURCE_VIEWS)
    supervised.check_choice("statistics", statistics, STATISTICS)
    supervised.check_share(threshold=threshold, feature_min_ratio=feature_min_ratio)
    supervised.check_weights(
        ignore_top=ignore_top,
        ignore_bottom=ignore_bottom,
        feature_weight=feature_weight,
    )
    if not 0 <= alpha < 1:
        raise UserError(f"alpha is {alpha}, but must be at least 0, below 1.")
    for train_id in feature_classes:
        if not 0 <= train_id < num_classes:
            raise UserError(
                f"feature_classes has {train_id}, but train ids are 0 to "
                f"{num_classes - 1}."
            )

    def init(key, network, batch):
        memory = {"teacher": network}
        if feature_weight:
            memory["reference"] = network
        if further:
            memory["further"] = further_memory
        return {}, memory

    def say_of_target(network, target):
        """(logits [B, H, W, C], batch_stats) by the batch's own statistics."""
        image = augment.normalize(target["image"])
        said, stats = forward(*network, image, train=False, batch_statistics=True)
        return jax.lax.stop_gradient(said.logits), stats

    def unsureness(logits):
        """Entropy as a share of the largest, so that pictures have one scale."""
        return losses.pixel_entropy(logits) / np.log(num_classes)

    def label_target(logits, target):
        """(pseudo-label, weight): each [B, H, W]."""
        probs = jax.nn.softmax(logits)
        confident = jnp.max(probs, -1) >= threshold
        row = jnp.arange(logits.shape[1])[:, None]
        counts = (row >= ignore_top) & (row < logits.shape[1] - ignore_bottom)
        if "valid" in target:
            counts = counts & (target["valid"] > 0)
        weight = jnp.mean(confident, dtype=jnp.float32) * counts
        label = jnp.argmax(probs, -1).astype(jnp.uint8)
        return label, jnp.broadcast_to(weight, label.shape)

    def choose_classes(key, source):
        """bool [B, C + 1]: half of the classes that there are, rounded up."""
        pool = mixing.present_classes(
            source["label"], num_classes,
            with_ignore=not pool_per_image, per_batch=not pool_per_image,
        )  # fmt: skip
        return mixing.random_ranks(key, pool) < mixing.half_of(pool)[:, None]

    def reference_distance(memory, prediction, image, source):
        """(L_feature, bool [B, h, w]: the squares that it is a mean over)."""
        if not jax.tree.leaves(prediction.features):
            raise UserError(
                "feature_weight needs a network that gives its features, such as "
                "daformer or segformer: set feature_weight=0."
            )
        before, _ = forward(*memory["reference"], image, train=False)
        ours, theirs = prediction.features[-1], before.features[-1]
        stride = source["label"].shape[2] // ours.shape[2]
        label = losses.majority_label(
            source["label"], num_classes, stride, feature_min_ratio
        )
        # Of a size that the stride does not divide one of both has a square more.
        rows, columns = (min(label.shape[i], ours.shape[i]) for i in (1, 2))
        mask = jnp.ones((len(label), rows, columns), bool)
        if feature_classes:
            mask = jnp.isin(label[:, :rows, :columns], jnp.array(feature_classes))
        return losses.feature_distance(
            ours[:, :rows, :columns],
            jax.lax.stop_gradient(theirs[:, :rows, :columns]),
            mask,
        ), mask

    def loss(params, state, batch, key):
        source, target = batch["source"], batch["target"]
        _check_sizes(source, target, ignore_top + ignore_bottom)
        view_key, source_key, class_key, color_key, mixed_key, further_key = (
            jax.random.split(key, 6)
        )
        memory = dict(state.memory)

        def run(image, key, stats):
            return forward(
                params["segmentor"], stats, image, train=True, rngs={"dropout": key}
            )

        source_image, target_image = (
            augment.normalize(part["image"]) for part in (source, target)
        )
        view = augment.SOURCE_VIEWS[source_view](view_key, source["image"])
        seen, batch_stats = run(view, source_key, state.batch_stats)
        total = losses.cross_entropy(seen.logits, source["label"])
        metrics, images = {"loss/source": total}, {}
        if feature_weight:
            term, mask = reference_distance(memory, seen, view, source)
            total += feature_weight * term
            metrics["loss/features"] = term
            images["source_features"] = _enlarged(mask, source["label"].shape)
            before, _ = say_of_target(memory["reference"], target)
            images["target_entropy_before"] = unsureness(before)

        memory["teacher"] = _follow(memory["teacher"], params, state.step, alpha)
        said_of_target, stats = say_of_target(memory["teacher"], target)
        images["target_entropy"] = unsureness(said_of_target)
        pseudo_label, sureness = label_target(said_of_target, target)
        memory["teacher"] = memory["teacher"]._replace(batch_stats=stats)
        pasted = mixing.class_mask(source["label"], choose_classes(class_key, source))
        image = mixing.class_mix(pasted, source_image, target_image)
        if colors == "daformer":
            image = augment.daformer_strong(color_key, image)
        label = mixing.class_mix(pasted, source["label"], pseudo_label)
        weight = mixing.class_mix(pasted, jnp.float32(1), sureness)
        said, batch_stats = run(image, mixed_key, batch_stats)
        mixed = losses.cross_entropy(said.logits, label, pixel_weights=weight)
        total += mixed
        metrics |= {"loss/mixed": mixed, "pseudo/weight": jnp.max(sureness)}
        if further:
            term, after = further(
                Mixed(image, pasted, said, run, batch_stats, further_key),
                memory["further"],
            )
            total += term
            memory["further"], batch_stats = after.memory, after.batch_stats
            metrics |= after.metrics
            images |= after.images
        if statistics == "target":
            batch_stats = stats
        metrics = {
            "loss/total": total,
            **metrics,
            **supervised.training_scores(seen.logits, source["label"]),
            **supervised.training_scores(said.logits, label, "mixed"),
        }
        images |= {
            "source": augment.denormalize(view),
            "source_label": source["label"],
            "target": augment.denormalize(target_image),
            "target_pseudo_label": pseudo_label,
            "mixed": augment.denormalize(image),
            "mixed_label": label,
            "mixed_weight": weight,
        }
        return total, Output(metrics, batch_stats, memory, images)

    return Method(init, loss)


def _follow(teacher: Network, params: PyTree, step: jax.Array, alpha: float) -> Network:
    """The moving average; in step 0 the student itself."""
    kept = jnp.minimum(1 - 1 / (step + 1.0), alpha)
    student = jax.lax.stop_gradient(params["segmentor"])
    average = lambda t, s: kept * t + (1 - kept) * s
    return teacher._replace(params=jax.tree.map(average, teacher.params, student))


def _enlarged(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A mask of squares as one of pixels."""
    pairs = zip(shape[1:], mask.shape[1:], strict=True)
    rows, columns = (-(-pixels // squares) for pixels, squares in pairs)
    pixels = jnp.repeat(jnp.repeat(mask, rows, 1), columns, 2)
    return pixels[:, : shape[1], : shape[2]]


def _check_sizes(source, target, ignored: int) -> None:
    """Raises a UserError where source and target differ, or all rows are ignored."""
    shapes = [part["image"].shape for part in (source, target)]
    if shapes[0] != shapes[1]:
        raise UserError(
            "source classes are pasted into the target, but the batches differ (source "
            f"{shapes[0]}, target {shapes[1]}): give both the same crop size."
        )
    if ignored >= shapes[1][1]:
        raise UserError(
            f"ignore_top and ignore_bottom leave out {ignored} rows, but crops have "
            f"{shapes[1][1]}: lower them, 0 for images without a border."
        )
