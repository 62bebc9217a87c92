"""What mixing and the frozen network cost in a step of TUFL's stage two.

What mixing costs is the whole step less the same step with mixed images that come ready
with the batch, and what the frozen network costs is that one less a step whose target
labels come ready too.  `benchmark.py methods` measures all three in turns.
"""

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

STAGE_TWO = "TUFL stage two"
ADAPTIVE = {"name": "tufl", "unsup_loss": "adaptive_focal"}
# Stage two with a part of its work done before the step: no methods, so not in the
# table.  (The segmentor's images are counted while a step is traced: the pass whose
# labels nobody reads is among them, although XLA drops it.)
MIXED, LABELLED = "mixed before", "mixed and labelled before"
PARTIAL = {
    MIXED: {**ADAPTIVE, "mix": {"name": "ready"}},
    LABELLED: {**ADAPTIVE, "mix": {"name": "ready", "labelled": True}},
}


@contextlib.contextmanager
def with_ready() -> Iterator[None]:
    """Within it a method's row may name the mix "ready", which is no mix of a run's."""
    from uda_jax.methods.mixes import MIXES

    MIXES["ready"] = ready
    try:
        yield
    finally:
        del MIXES["ready"]


def random_batch(size: tuple[int, int], batch: int, num_classes: int) -> dict:
    """What a run puts on the device, with every stream that a method may ask for.

    Beside source, target, and stage two's "paste" and "template" there is "ready" for
    the mix of that name: image float32 normalised, label, and mask bool.
    """
    import jax
    import jax.numpy as jnp

    shape = (batch, *size)

    def labelled(seed):
        of_image, of_label = jax.random.split(jax.random.key(seed))
        image = jax.random.bits(of_image, (*shape, 3), jnp.uint8)
        label = jax.random.randint(of_label, shape, 0, num_classes)
        return {"image": image, "label": label.astype(jnp.uint8)}

    source, target, paste, template, ready = map(labelled, range(5))
    paste["class"] = jnp.arange(batch, dtype=jnp.int32) % num_classes
    ready["image"] = ready["image"] / jnp.float32(128) - 1
    ready["mask"] = ready["label"] % 2 == 0
    return {
        "source": source,
        "target": {"image": target["image"]},
        "paste": paste,
        "template": template,
        "ready": ready,
    }


def ready(
    num_classes: int,
    class_weights: Any,
    *,
    weight: float = 0.5,
    confidence: float = 0.968,
    labelled: bool = False,
):
    """A mix like "single" whose images came with the batch, in its entry "ready".

    Args:
      num_classes: C.
      class_weights: [C].
      weight, confidence: as in "single".
      labelled: the target's labels and weights came too, so that the frozen network's
        forward pass is left out.
    """
    import jax.numpy as jnp

    from uda_jax import losses
    from uda_jax.methods.mixes.mix import Mix, Mixed, labels_of_target

    def make(key, memory, sources):
        given = sources.batch["ready"]
        label, v = given["label"], given["mask"].astype(jnp.float32)
        if not labelled:
            confident, pseudo = labels_of_target(sources, confidence)
            label = jnp.where(given["mask"], label, pseudo)
            v = jnp.where(given["mask"], 1.0, confident[:, None, None])

        def loss(logits):
            return weight * losses.cross_entropy(
                logits[0], label, class_weights, pixel_weights=v
            )

        return Mixed([given["image"]], loss, memory, {}, {})

    return Mix(lambda network, batch: {"pseudo": network}, make)


def shares(times: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Of a step of TUFL's stage two, percent, a number for each round."""
    rounds = list(zip(*(times[n] for n in (STAGE_TWO, MIXED, LABELLED)), strict=True))
    return {
        "mixing and pasting": [100 * (a - b) / a for a, b, _ in rounds],
        "the frozen network": [100 * (b - c) / a for a, b, c in rounds],
    }


def shares_text(parts: Mapping[str, list[float]]) -> str:
    """A sentence: medians over the rounds, with the smallest and the largest."""
    listed = ", ".join(
        f"{name} {statistics.median(values):.0f} % "
        f"({min(values):.0f} to {max(values):.0f})"
        for name, values in parts.items()
    )
    return f"Of a step of {STAGE_TWO}: {listed}."
