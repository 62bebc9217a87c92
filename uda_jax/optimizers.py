"""Optimizers and learning-rate schedules, as PyTorch computes them, in optax."""

from typing import Any

import jax
import optax

from uda_jax import factories
from uda_jax.errors import UserError
from uda_jax.models.model import Model, matches

PyTree = Any


def poly(
    learning_rate, steps, *, power=0.9, warmup_steps=0, warmup_start=1e-5, horizon=0
):
    """lr(t) = learning_rate * (1 - (t - warmup) / (horizon - warmup))^power.

    The horizon is the run's own length, `steps`, unless it is given: MaxSquare and
    ADVENT lay the schedule out for 200,000 or 250,000 steps and stop long before.

    During the warm-up (t <= warmup_steps, if any) TUFL's exponential rise:
    lr(t) = warmup_start * (learning_rate / warmup_start)^(t / warmup_steps).  t counts
    optimizer steps from 0.  Published TUFL runs use no warm-up.
    """

    if horizon and horizon < steps:
        raise UserError(
            f"schedule.horizon={horizon} ends before the run does (steps={steps}): "
            "give at least that, or 0 for the run's own length."
        )
    end = horizon or steps

    def schedule(step):
        # A quotient of whole numbers: 1 - t / steps would lose the last steps' digits.
        left = (end - step) / max(end - warmup_steps, 1)
        rate = learning_rate * jax.numpy.clip(left, 0, 1) ** power
        if not warmup_steps:
            return rate
        rise = (learning_rate / warmup_start) ** (step / warmup_steps)
        return jax.numpy.where(step <= warmup_steps, warmup_start * rise, rate)

    return schedule


def constant(learning_rate, steps):
    """lr(t) = learning_rate."""
    del steps
    return optax.constant_schedule(learning_rate)


SCHEDULES = {"poly": poly, "constant": constant}


def sgd(*, momentum=0.9):
    """PyTorch's SGD: v <- momentum * v + (g + decay * p); p <- p - lr * v."""
    return lambda decay: optax.chain(decay, optax.trace(decay=momentum))


def adamw(*, beta1=0.9, beta2=0.999, eps=1e-8):
    """PyTorch's AdamW: p <- p - lr * (m_hat / (sqrt(v_hat) + eps) + decay * p)."""
    return lambda decay: optax.chain(optax.scale_by_adam(beta1, beta2, eps), decay)


OPTIMIZERS = {"sgd": sgd, "adamw": adamw}


def make_optimizer(
    optimizer: dict, schedule: dict, *, steps: int, model: Model
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a config, with the published parameter groups.

    Weight decay acts on kernels (two or more axes) and never on BatchNorm scales and
    biases; the learning rate of the network's heads is `head_multiplier` times the rest
    (10 in SS-ADA and most DeepLab recipes; 1 in TUFL, whose released program multiplies
    every group by ten, so that its configs state the effective rate).

    Args:
      optimizer: row with name, learning_rate, weight_decay, head_multiplier and the
        keywords of that entry of OPTIMIZERS.
      schedule: row with name and the keywords of that entry of SCHEDULES.
      steps: length of the run.
      model: the segmentation network, which tells what its heads are and which of its
        parameters never change.

    Returns:
      (gradient transformation for {'segmentor': ...}, schedule of the base rate).
    """
    row = dict(optimizer)
    learning_rate = row.pop("learning_rate")
    weight_decay = row.pop("weight_decay")
    head_multiplier = row.pop("head_multiplier")
    if learning_rate <= 0:
        raise UserError(f"optimizer.learning_rate={learning_rate} must be above 0.")
    rate = factories.build(SCHEDULES, "schedule", schedule, learning_rate, steps)
    algorithm = factories.build(OPTIMIZERS, "optimizer", row)
    decay = optax.add_decayed_weights(weight_decay, mask=is_kernel)
    parts = [algorithm(decay)]
    if head_multiplier != 1:
        parts.append(
            optax.masked(
                optax.scale(head_multiplier), lambda p: in_segmentor(p, model.heads)
            )
        )
    parts.append(optax.scale_by_learning_rate(rate))
    chain = optax.chain(*parts)
    if model.frozen:
        chain = optax.partition(
            {"trained": chain, "frozen": optax.set_to_zero()},
            lambda params: jax.tree.map(
                lambda frozen: "frozen" if frozen else "trained",
                in_segmentor(params, *model.frozen),
            ),
        )
    return chain, rate


def is_kernel(params: PyTree) -> PyTree:
    """Tree of booleans: leaves with two or more axes."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def in_segmentor(params: PyTree, *patterns: str) -> PyTree:
    """Tree of booleans: leaves of 'segmentor' whose path a pattern matches."""
    return {
        part: matches(tree, patterns if part == "segmentor" else ())
        for part, tree in params.items()
    }
