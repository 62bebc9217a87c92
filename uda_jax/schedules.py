"""Learning-rate schedules: step (from 0) -> learning rate."""

import jax
import optax

from uda_jax.errors import UserError, did_you_mean

# (from, to, share of the way) -> rate.
WARMUPS = {
    "exponential": lambda start, end, share: start * (end / start) ** share,
    "linear": lambda start, end, share: start + (end - start) * share,
}


def poly(
    learning_rate: float,
    steps: int,
    *,
    power: float = 0.9,
    warmup_steps: int = 0,
    warmup_start: float = 1e-5,
    warmup_form: str = "exponential",
    horizon: int = 0,
    legacy_offset: bool = False,
) -> optax.Schedule:
    """lr(t) = learning_rate * (1 - (t - warmup) / (horizon - warmup))^power.

    The horizon is the run's own length, `steps`, unless it is given: MaxSquare and
    ADVENT lay the schedule out for 200,000 or 250,000 steps and stop long before.

    During the warm-up (t <= warmup_steps, if any) the rate rises from warmup_start, by
    default exponentially as in TUFL, whose published runs use none:
    lr(t) = warmup_start * (learning_rate / warmup_start)^(t / warmup_steps).
    warmup_form="linear" is SS-ADA's, whose warm-up starts at 0 and takes 1000 steps:
    lr(t) = warmup_start + (learning_rate - warmup_start) * t / warmup_steps.
    t counts optimizer steps from 0.

    `legacy_offset`: SS-ADA's published programs are a step late; their first step has
    the full learning_rate, and each later one lr(t - 1).

    Raises:
      UserError: an unknown form, an exponential rise from 0, or a horizon that ends
        before the run.
    """
    if warmup_form not in WARMUPS:
        raise UserError(
            f'schedule.warmup_form is "{warmup_form}"'
            f"{did_you_mean(str(warmup_form), WARMUPS)}; allowed are "
            f"{', '.join(WARMUPS)}."
        )
    if warmup_steps and warmup_form == "exponential" and not warmup_start > 0:
        raise UserError(
            f"schedule.warmup_start={warmup_start}, from which no rate rises "
            'exponentially: give one above 0, or warmup_form="linear".'
        )
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
        rise = WARMUPS[warmup_form](warmup_start, learning_rate, step / warmup_steps)
        return jax.numpy.where(step <= warmup_steps, rise, rate)

    def late(step):
        return jax.numpy.where(step == 0, learning_rate, schedule(step - 1))

    return late if legacy_offset else schedule


def mmseg_poly(
    learning_rate: float,
    steps: int,
    *,
    power: float = 1.0,
    warmup_steps: int = 1500,
    warmup_ratio: float = 1e-6,
) -> optax.Schedule:
    """DAFormer's, of mmcv: the poly rate goes on falling below the warm-up.

    lr(t) = learning_rate * (1 - t / steps)^power
            * (warmup_ratio + (1 - warmup_ratio) * t / warmup_steps, up to there)

    t counts optimizer steps from 0.

    Raises:
      UserError: a number below 0, a ratio above 1, or a warm-up longer than the run.
    """
    given = dict(power=power, warmup_steps=warmup_steps, warmup_ratio=warmup_ratio)
    for name, value in given.items():
        if not value >= 0 or (name == "warmup_ratio" and value > 1):
            above = ", at most 1" if name == "warmup_ratio" else ""
            raise UserError(f"schedule.{name} is {value}: give at least 0{above}.")
    if warmup_steps > steps:
        raise UserError(
            f"schedule.warmup_steps={warmup_steps} is more than the run's steps={steps}"
            ": lower it, or train longer."
        )

    def schedule(step):
        rate = learning_rate * jax.numpy.clip((steps - step) / steps, 0, 1) ** power
        rise = warmup_ratio + (1 - warmup_ratio) * step / max(warmup_steps, 1)
        return jax.numpy.where(step < warmup_steps, rate * rise, rate)

    return schedule


def constant(learning_rate: float, steps: int) -> optax.Schedule:
    """lr(t) = learning_rate."""
    del steps
    return optax.constant_schedule(learning_rate)


SCHEDULES = {"poly": poly, "mmseg_poly": mmseg_poly, "constant": constant}
