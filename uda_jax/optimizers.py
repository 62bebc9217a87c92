"""Optimizers as PyTorch computes them, in optax, with the published groups."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from uda_jax import factories
from uda_jax.errors import UserError
from uda_jax.models.model import Model, check_options
from uda_jax.schedules import SCHEDULES
from uda_jax.torch_updates import decay_where_used, repeated_sgd

PyTree = Any


class Recipe(NamedTuple):
    """What a row of OPTIMIZERS asks for, without the network.

    Attributes:
      learning_rate: what the schedule starts from.
      head_multiplier: factor on the rate of the network's heads.
      update: rate -> transformation of gradients into updates.
      repeated: (rate, visits) -> the same for parameters that the published program
        listed `visits` times; None where each counts once.
    """

    learning_rate: float
    head_multiplier: float
    update: Callable[[optax.Schedule], optax.GradientTransformation]
    repeated: Callable[[optax.Schedule, int], optax.GradientTransformation] | None


def sgd(
    *,
    learning_rate: float,
    weight_decay: float,
    head_multiplier: float = 1.0,
    momentum: float = 0.9,
    decay_of: str = "kernels",
    duplicates: str = "dedup",
) -> Recipe:
    """PyTorch's SGD: v <- momentum * v + (g + decay * p); p <- p - lr * v.

    Args:
      learning_rate: lr at the start, see `SCHEDULES`.
      weight_decay: decay of the parameters that `decay_of` names; none of those that
        the loss does not reach, see `decay_where_used`.
      head_multiplier: factor on the learning rate of the network's heads.
      momentum: in [0, 1).
      decay_of: "kernels" (two or more axes); "all": scales and biases too, PyTorch's
        default, with which MaxSquare and ADVENT were trained; "all_but_backbone_norms",
        DAFormer's.
      duplicates: what to do about parameters that the published program listed several
        times (`Model.visits`), which PyTorch then changed several times in each step.
        "dedup": once; "legacy_inplace": as torch up to 1.6, which those programs ran
        on, and "sequential": as torch 1.7 to 1.x; see `repeated_sgd`.
    """
    check_options(
        "sgd",
        decay_of=(decay_of, tuple(DECAYED)),
        duplicates=(duplicates, DUPLICATES),
    )

    def update(rate):
        return optax.chain(
            _decay(weight_decay, decay_of),
            optax.trace(momentum),
            optax.scale_by_learning_rate(rate),
        )

    def repeated(rate, visits):
        return repeated_sgd(
            rate,
            visits,
            momentum=momentum,
            weight_decay=weight_decay,
            decayed=DECAYED[decay_of],
            accumulate=duplicates == "legacy_inplace",
        )

    once = duplicates == "dedup"
    return Recipe(learning_rate, head_multiplier, update, None if once else repeated)


def adam(
    *,
    learning_rate: float,
    weight_decay: float,
    head_multiplier: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay_of: str = "kernels",
) -> Recipe:
    """PyTorch's Adam: p <- p - lr * m_hat / (sqrt(v_hat) + eps).

    m and v are the moments of g + decay * p, beta1 and beta2, in [0, 1), their decay
    rates; the other arguments are those of `sgd`.
    """
    check_options("adam", decay_of=(decay_of, tuple(DECAYED)))

    def update(rate):
        return optax.chain(
            _decay(weight_decay, decay_of),
            optax.scale_by_adam(beta1, beta2, eps),
            optax.scale_by_learning_rate(rate),
        )

    return Recipe(learning_rate, head_multiplier, update, None)


def adamw(
    *,
    learning_rate: float,
    weight_decay: float,
    head_multiplier: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay_of: str = "kernels",
) -> Recipe:
    """PyTorch's AdamW: p <- p - lr * (m_hat / (sqrt(v_hat) + eps) + decay * p).

    The arguments are those of `adam`.
    """
    check_options("adamw", decay_of=(decay_of, tuple(DECAYED)))

    def update(rate):
        return optax.chain(
            optax.scale_by_adam(beta1, beta2, eps),
            _decay(weight_decay, decay_of),
            optax.scale_by_learning_rate(rate),
        )

    return Recipe(learning_rate, head_multiplier, update, None)


OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw}
DUPLICATES = ("dedup", "sequential", "legacy_inplace")

# Which leaves decay: params -> tree of booleans.
DECAYED = {
    "kernels": lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    "all": lambda params: jax.tree.map(lambda _: True, params),
    # DAFormer's groups: biases decay, and so do the norms of the decoder.
    "all_but_backbone_norms": lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: not _is_backbone_norm(path), params
    ),
}

# What a number of a row may be; in words, and as a test.
ABOVE_0 = ("above 0", lambda value: value > 0)
AT_LEAST_0 = ("at least 0", lambda value: value >= 0)
BELOW_1 = ("at least 0 and below 1", lambda value: 0 <= value < 1)
RANGES = {
    "learning_rate": ABOVE_0,
    "weight_decay": AT_LEAST_0,
    "head_multiplier": ABOVE_0,
    "momentum": BELOW_1,
    "beta1": BELOW_1,
    "beta2": BELOW_1,
    "eps": ABOVE_0,
}


def make_optimizer(
    optimizer: Mapping,
    schedule: Mapping,
    *,
    steps: int,
    model: Model,
    discriminator: Mapping | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a config, with the published parameter groups.

    The learning rate of the network's heads is `head_multiplier` times the rest (10 in
    SS-ADA, MaxSquare, ADVENT and most DeepLab recipes; 1 in TUFL, whose released
    program multiplies every group by ten, so that its configs state the effective
    rate).  Discriminators have an optimizer and a schedule of their own.

    Args:
      optimizer: row with name and the keywords of that entry of OPTIMIZERS.
      schedule: row with name and the keywords of that entry of SCHEDULES.
      steps: length of the run.
      model: the segmentation network, which tells what its heads are, which of its
        parameters never change, and which the published program listed several times.
      discriminator: {"optimizer": row, "schedule": row} of the method's discriminators;
        None or {} for a method without.

    Returns:
      (gradient transformation for {"segmentor": ..., "discriminator"?: ...}, schedule
      of the segmentor's base rate).  Its init raises a UserError where the parameters
      have discriminators and the config has no section for them, or the reverse.

    Raises:
      UserError: an unknown name or option, a number out of range, or an option that
        this network cannot follow.
    """
    recipe, rate = _read("", optimizer, schedule, steps)
    groups = {"frozen": optax.set_to_zero(), "body": recipe.update(rate)}
    members = [(pattern, "frozen") for pattern in model.frozen]
    if recipe.head_multiplier != 1:
        if not model.heads:
            raise UserError(
                f"optimizer.head_multiplier={recipe.head_multiplier}, but this network "
                "does not say what its heads are: set it to 1, or give Model.heads."
            )
        groups["heads"] = recipe.update(lambda t: recipe.head_multiplier * rate(t))
        members.append((model.heads, "heads"))
    if recipe.repeated:
        if not model.visits:
            raise UserError(
                f'optimizer.duplicates="{optimizer["duplicates"]}" repeats how a '
                "published program listed its parameters, and nothing is known of this "
                'network: set it to "dedup", or take deeplabv2\'s form "original".'
            )
        for pattern, visits in model.visits:
            groups[f"visited_{visits}_times"] = recipe.repeated(rate, visits)
            members.append((pattern, f"visited_{visits}_times"))
    if discriminator:
        groups["discriminator"] = _discriminator_update(discriminator, steps)

    def group_of(params):
        _check_parts(params, discriminator)
        segmentor = {"segmentor": first_match(params["segmentor"], members, "body")}
        return {part: "discriminator" for part in params} | segmentor

    return optax.partition(groups, group_of), rate


def base_rate(optimizer: Mapping, schedule: Mapping, *, steps: int) -> optax.Schedule:
    """The learning rate before any multiplier; arguments as of `make_optimizer`."""
    return _read("", optimizer, schedule, steps)[1]


def first_match(params: PyTree, table: list[tuple[str, str]], otherwise: str) -> PyTree:
    """For each leaf the word beside the first expression that matches its path."""

    def one(path, _):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        found = (word for pattern, word in table if re.match(pattern, name))
        return next(found, otherwise)

    return jax.tree_util.tree_map_with_path(one, params)


def _read(prefix, optimizer, schedule, steps):
    """(Recipe, schedule) of two rows; `prefix` says where in the config they stand."""
    kind = f"{prefix}optimizer"
    recipe = factories.build(OPTIMIZERS, kind, optimizer)
    for key, (words, allowed) in RANGES.items():
        if key in optimizer and not allowed(optimizer[key]):
            raise UserError(f"{kind}.{key}={optimizer[key]} must be {words}.")
    rate = factories.build(
        SCHEDULES, f"{prefix}schedule", schedule, recipe.learning_rate, steps
    )
    return recipe, rate


def _discriminator_update(section, steps):
    if set(section) != {"optimizer", "schedule"}:
        raise UserError(
            f"config.discriminator has the keys {', '.join(sorted(section))}: give it "
            '"optimizer" and "schedule", each a row like the config\'s own.'
        )
    recipe, rate = _read(
        "discriminator.", section["optimizer"], section["schedule"], steps
    )
    if recipe.head_multiplier != 1 or recipe.repeated:
        raise UserError(
            "discriminator.optimizer sets head_multiplier or duplicates, which speak "
            "of the segmentation network: leave both out."
        )
    return recipe.update(rate)


def _check_parts(params, discriminator):
    if "discriminator" in params and not discriminator:
        raise UserError(
            "The method has discriminators, and config.discriminator is empty: give it "
            'their "optimizer" and "schedule".'
        )
    if discriminator and "discriminator" not in params:
        raise UserError(
            "config.discriminator is given, and the method has no discriminators: "
            "leave it empty, or choose another method."
        )


def _is_backbone_norm(path) -> bool:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return (
        "head" not in name and re.search(r"norm|\bbn\d?\b|_bn\d?\b", name) is not None
    )


def _decay(weight_decay, decay_of):
    """Weight decay as a part of a chain; 0 keeps no state."""
    if not weight_decay:
        return optax.identity()
    return optax.masked(decay_where_used(weight_decay), DECAYED[decay_of])
