"""When active labelling happens, how much of it, and how long each epoch is.

SS-ADA's released code: at the start of certain epochs some more of the target's images
get their labels, and from then on an epoch has another number of steps.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from uda_jax.errors import UserError


class RoundPlan(NamedTuple):
    """R rounds of labelling, and the R + 1 segments of the training between them.

    Attributes:
      rounds: R epochs; at the start of each a round takes place.
      epochs: length of the training.
      increments: R numbers of images that each round labels.
      labelled: R + 1 numbers of labelled images, one for each segment.
      iterations_per_epoch: R + 1 numbers of steps, one for each segment.
      begin: R steps, the first after each round.
      total_steps: length of the training.
      total_samples: total_steps * batch_size, images that the training draws.
    """

    rounds: tuple[int, ...]
    epochs: int
    increments: tuple[int, ...]
    labelled: tuple[int, ...]
    iterations_per_epoch: tuple[int, ...]
    begin: tuple[int, ...]
    total_steps: int
    total_samples: int

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        """(step, images that get labels then), as `config.rounds` has them."""
        first = ((0, self.labelled[0]),) if self.labelled[0] else ()
        return first + tuple(zip(self.begin, self.increments, strict=True))


def plan_rounds(
    num_images: int,
    batch_size: int,
    init_share: float,
    total_share: float,
    rounds: Sequence[int],
    epochs: int,
) -> RoundPlan:
    """Lays out the rounds of labelling and the steps between them.

    Of n images s_0 = int(n * init_share + 0.5) are labelled at first and
    s_R = int(n * total_share + 0.5) at last.  Each of the R rounds adds (s_R - s_0) //
    R, the last one the rest too.  With s images labelled an epoch has max(n - s, s) //
    batch_size steps: it goes once through the larger part.

    Args:
      num_images: n, the target's images, labelled or not.
      batch_size: images of each part in a step, over all devices.
      init_share: in [0, 1].
      total_share: in [init_share, 1].
      rounds: increasing epochs in (0, epochs), counted from 0.
      epochs: length of the training.

    Raises:
      UserError: a plan that cannot be carried out: a number out of its range, a round
        that would label nothing, or an epoch without a whole batch.

    Difference from the original: a round that labels nothing is refused.
    """
    rounds = tuple(rounds)
    _check(num_images, batch_size, init_share, total_share, rounds, epochs)
    first = int(num_images * init_share + 0.5)
    added = int(num_images * total_share + 0.5) - first
    each = added // len(rounds)
    if not each:
        raise UserError(
            f"{added} images to label (from init_share={init_share} to "
            f"total_share={total_share} of {num_images}) leave a round of "
            f"{len(rounds)} without any: raise total_share or plan fewer rounds."
        )
    increments = (each,) * (len(rounds) - 1) + (added - each * (len(rounds) - 1),)
    labelled = tuple(accumulate(increments, initial=first))
    iterations = tuple(max(num_images - s, s) // batch_size for s in labelled)
    if not all(iterations):
        raise UserError(
            f"batch_size={batch_size} is larger than a part of the {num_images} images "
            f"(of which {', '.join(map(str, labelled))} are labelled), so that an "
            "epoch would have no step: lower it."
        )
    lengths = [end - start for start, end in pairwise((0, *rounds, epochs))]
    steps = (i * length for i, length in zip(iterations, lengths, strict=True))
    *begin, total_steps = accumulate(steps)
    return RoundPlan(
        rounds=rounds,
        epochs=epochs,
        increments=increments,
        labelled=labelled,
        iterations_per_epoch=iterations,
        begin=tuple(begin),
        total_steps=total_steps,
        total_samples=total_steps * batch_size,
    )


def epoch_start(plan: RoundPlan, epoch: int) -> int:
    """The step at which an epoch begins; for `plan.epochs` the length of the training.

    Raises:
      UserError: the epoch is not in [0, plan.epochs].
    """
    if not 0 <= epoch <= plan.epochs:
        raise UserError(f"epoch is {epoch}, but must be from 0 to {plan.epochs}.")
    segment = bisect_right(plan.rounds, epoch)
    since = epoch - (0, *plan.rounds)[segment]
    return (0, *plan.begin)[segment] + since * plan.iterations_per_epoch[segment]


def _check(num_images, batch_size, init_share, total_share, rounds, epochs):
    numbers = dict(num_images=num_images, batch_size=batch_size, epochs=epochs)
    for name, value in numbers.items():
        if value < 1:
            raise UserError(f"{name} is {value}, but must be at least 1.")
    for name, share in dict(init_share=init_share, total_share=total_share).items():
        if not 0 <= share <= 1:
            raise UserError(f"{name} is {share}, but must be at least 0, at most 1.")
    if total_share < init_share:
        raise UserError(
            f"total_share={total_share} is below init_share={init_share}: rounds only "
            "add labels."
        )
    if not rounds:
        raise UserError("rounds is empty: give the epochs at which images get labels.")
    if not all(a < b for a, b in pairwise((0, *rounds, epochs))):
        raise UserError(
            f"rounds is {rounds}: give increasing epochs above 0 and below "
            f"epochs={epochs}."
        )
