"""What a segmentation network is to the rest of the library: two pure functions."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from uda_jax.errors import UserError, did_you_mean
from uda_jax.models.initialize import Rule, init_from_shapes

PyTree = Any


class Prediction(NamedTuple):
    """What one forward pass gives.

    Attributes:
      logits: [B, H, W, C] float32, at the input's resolution or the one asked for.
      aux_logits: logits of the auxiliary heads, each [B, H, W, C] float32.
      features: the network's own intermediate features, or ().
      perturbed_logits: as `logits`, from features of which half were dropped; None
        unless forward was asked for them.
    """

    logits: jax.Array
    aux_logits: tuple[jax.Array, ...] = ()
    features: PyTree = ()
    perturbed_logits: jax.Array | None = None


class TorchNames(NamedTuple):
    """The names of a network's tensors in PyTorch files: tables of uda_jax.convert.

    Attributes:
      to_flax: (regular expression, replacement) pairs from PyTorch's names to ours.
      to_torch: and back.
    """

    to_flax: tuple[tuple[str, str], ...] = ()
    to_torch: tuple[tuple[str, str], ...] = ()


class Model(NamedTuple):
    """A network without state.

    Attributes:
      init: key -> (params, batch_stats), two nested dicts of float32 arrays.
      forward: (params, batch_stats, image, *, train, rngs=None, size=None,
        perturb=False, batch_statistics=None) -> (Prediction, new batch_stats); image is
        normalised float32 [B, H, W, 3].  With `train` a BatchNorm that is not frozen
        uses and updates the batch's statistics, and dropout takes its key from
        rngs["dropout"].  `size` (height, width) of the logits is the image's own by
        default; the network's last resize goes there.  With `perturb`, a Python bool,
        what makes the main logits of the features (a classifier, a decoder, BiSeNet's
        fusion and head) runs on 2B examples, the features and the same with half of
        them dropped, and gives `perturbed_logits` too; its key is rngs["dropout"], with
        train=False also.
        `batch_statistics`, a Python bool, says what BatchNorm does where that is not
        `train`'s affair: a teacher takes the batch's without any dropout.
      torch: names of the same tensors in PyTorch files.
      backbone: regular expression that matches the paths (with "/") of the parameters
        which ImageNet weights fill.
      heads: the same for those that many recipes train ten times as fast.
      frozen: expressions of parameters that never change: they get no gradient, no
        weight decay and no momentum.
      visits: (expression, k) pairs: what the published program listed k times in its
        optimizer; the first that matches counts.  () where nothing is known.
    """

    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    forward: Callable[..., tuple[Prediction, PyTree]]
    torch: TorchNames = TorchNames()
    backbone: str = ""
    heads: str = ""
    frozen: tuple[str, ...] = ()
    visits: tuple[tuple[str, int], ...] = ()


def linen_model(
    make: Callable[..., Any],
    *,
    initial: Rule,
    batch_norm: str,
    **fields: Any,
) -> Model:
    """The pair of pure functions of a linen network.

    Args:
      make: (*, train, use_running) -> nn.Module that maps (image, size of the logits,
        perturb=False) to a Prediction: whether dropout is on, and whether BatchNorm
        uses its running statistics.
      initial: the initial values, see `init_from_shapes`.
      batch_norm: "train" or "frozen".
      **fields: of Model: torch, backbone, heads, frozen, visits.
    """

    def init(key):
        network = make(train=False, use_running=True)
        image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        shapes = jax.eval_shape(partial(network.init, size=(64, 64)), key, image)
        return init_from_shapes(
            key, shapes["params"], shapes.get("batch_stats", {}), initial
        )

    def forward(
        params, batch_stats, image, *, train, rngs=None, size=None, perturb=False,
        batch_statistics=None,
    ):  # fmt: skip
        if perturb and "dropout" not in (rngs or {}):
            raise UserError(
                "forward got perturb=True but no key that says which features to drop: "
                'pass rngs={"dropout": key}.'
            )
        params = stop_gradients(params, fields.get("frozen", ()))
        variables = {"params": params, "batch_stats": batch_stats}
        if batch_statistics is None:
            batch_statistics = train
        use_running = batch_norm == "frozen" or not batch_statistics
        network = make(train=train, use_running=use_running)
        look = partial(
            network.apply, variables, image, size or image.shape[1:3], perturb
        )
        if use_running:
            return look(rngs=rngs), batch_stats
        prediction, updates = look(rngs=rngs, mutable=["batch_stats"])
        return prediction, updates["batch_stats"]

    return Model(init, forward, **fields)


def matches(params: PyTree, patterns: tuple[str, ...]) -> PyTree:
    """Tree of booleans: leaves whose path, "/" between names, one pattern matches."""

    def one(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return any(re.match(pattern, name) for pattern in patterns)

    return jax.tree_util.tree_map_with_path(one, params)


def stop_gradients(params: PyTree, patterns: tuple[str, ...]) -> PyTree:
    """The same values; those that a pattern matches pass no gradient."""
    if not patterns:
        return params
    return jax.tree.map(
        lambda p, stop: jax.lax.stop_gradient(p) if stop else p,
        params,
        matches(params, patterns),
    )


def check_options(model: str, **options: tuple[Any, Any]) -> None:
    """Raises a UserError unless each value is one of those allowed.

    Args:
      model: the network's name, for the message.
      **options: option=(value, the allowed values).
    """
    for key, (value, allowed) in options.items():
        if value not in allowed:
            names = [str(name) for name in allowed]
            raise UserError(
                f'{model} has no {key} "{value}"{did_you_mean(str(value), names)}: '
                f"choose one of {', '.join(names)}."
            )
