"""Learning-rate schedules: step (from 0) -> learning rate."""

import jax
import optax

from uda_jax.errors import UserError


def poly(
    learning_rate: float,
    steps: int,
    *,
    power: float = 0.9,
    warmup_steps: int = 0,
    warmup_start: float = 1e-5,
    horizon: int = 0,
) -> optax.Schedule:
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


def constant(learning_rate: float, steps: int) -> optax.Schedule:
    """lr(t) = learning_rate."""
    del steps
    return optax.constant_schedule(learning_rate)


SCHEDULES = {"poly": poly, "constant": constant}
