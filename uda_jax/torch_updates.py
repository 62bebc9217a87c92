"""Updates of published PyTorch programs that optax does not have.

Weight decay that passes over parameters without a gradient, and SGD on parameters that
the program listed several times in its optimizer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any


class UsedState(NamedTuple):
    """Which leaves have had a gradient."""

    used: PyTree  # one boolean for each leaf


def decay_where_used(weight_decay: float) -> optax.GradientTransformation:
    """u <- u + weight_decay * p for the leaves that the loss uses.

    PyTorch skips a parameter whose grad is None: one that the loss does not reach, such
    as an auxiliary head of which no term speaks.  Here such a leaf has a gradient of
    zeros, so that a leaf counts as used from the first step in which any element of u,
    its gradient or Adam's direction, is not 0; until then it does not change at all.

    Deliberate difference: a leaf that the loss does reach, but whose first gradients
    are exactly zero, decays from its first other gradient on, in PyTorch at once.
    """

    def init(params):
        return UsedState(unused(params))

    def update(updates, state, params):
        used = mark_used(state.used, updates)
        updates = jax.tree.map(
            lambda u, p, yes: u + jnp.where(yes, weight_decay, 0.0) * p,
            updates,
            params,
            used,
        )
        return updates, UsedState(used)

    return optax.GradientTransformation(init, update)


class RepeatedState(NamedTuple):
    """What `repeated_sgd` keeps."""

    count: jax.Array  # int32, steps done
    velocity: PyTree  # the momentum buffers
    used: PyTree  # see UsedState


def repeated_sgd(
    rate: optax.Schedule,
    visits: int,
    *,
    momentum: float,
    weight_decay: float,
    decayed: Callable[[PyTree], PyTree],
    accumulate: bool,
) -> optax.GradientTransformation:
    """PyTorch's SGD on parameters that stand in its list `visits` times.

    Each step changes such a parameter so often, with one gradient g and one momentum
    buffer v.  From p_0 = p and d_0 = g, for j = 1 to visits:
        d_j = (d_(j-1) if accumulate else g) + weight_decay * p_(j-1)
        v <- momentum * v + d_j
        p_j = p_(j-1) - rate * v
    With visits = 3 and 4 a residual network moves three to four times as far as with
    the ordinary SGD, and decays six to ten times as much (accumulate) or as often as it
    is visited (without).  Leaves without a gradient do not change; see
    `decay_where_used`.

    Args:
      rate: step (from 0) -> learning rate.
      visits: k, at least 1; 1 is the ordinary SGD.
      momentum: in [0, 1).
      weight_decay: at least 0.
      decayed: params -> tree of booleans, the leaves that decay.
      accumulate: whether the decay of a visit stays in the gradient that the next one
        sees: torch up to 1.6, which added it in place.  torch 1.7 to 1.x did not.
        Later versions are not restated: there the visits of the first step have buffers
        of their own.
    """

    def init(params):
        velocity = jax.tree.map(jnp.zeros_like, params)
        return RepeatedState(jnp.int32(0), velocity, unused(params))

    def update(updates, state, params):
        used = mark_used(state.used, updates)
        decay = jax.tree.map(
            lambda yes, decays: jnp.where(yes & decays, weight_decay, 0.0),
            used,
            decayed(params),
        )
        now = rate(state.count)
        force, velocity = updates, state.velocity
        # The sum of the visits' steps, not p_k - p_0, which would lose its digits.
        moved = jax.tree.map(jnp.zeros_like, params)
        for _ in range(visits):
            force = jax.tree.map(
                lambda d, w, p, m: d + w * (p + m),
                force if accumulate else updates,
                decay,
                params,
                moved,
            )
            velocity = jax.tree.map(lambda v, d: momentum * v + d, velocity, force)
            moved = jax.tree.map(lambda m, v: m - now * v, moved, velocity)
        count = optax.safe_increment(state.count)
        return moved, RepeatedState(count, velocity, used)

    return optax.GradientTransformation(init, update)


def unused(params: PyTree) -> PyTree:
    """False for each leaf."""
    return jax.tree.map(lambda _: jnp.zeros((), bool), params)


def mark_used(used: PyTree, updates: PyTree) -> PyTree:
    """True from the first time that any element of a leaf's update is not 0.

    Elements below 1e-23, whose squares are 0 in float32, count as 0.
    """
    # The train step logs the gradient's norm and so has these sums already: a search
    # for other numbers than 0 would be a second pass over all gradients.
    return jax.tree.map(
        lambda yes, u: yes | (jnp.sum(jnp.square(u)) != 0), used, updates
    )
