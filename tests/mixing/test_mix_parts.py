"""What stage two draws: the parts of a mix, without a training step."""

import jax
import jax.numpy as jnp
import numpy as np

from uda_jax import augment, mixing
from uda_jax.labels import IGNORE
from uda_jax.methods.mixes.dual_soft import dual_soft
from uda_jax.methods.mixes.mix import Sources, classes_to_paste, numbers_to_paste
from uda_jax.methods.mixes.single import blurred, single, source_mask

C = 5
SIZE = (8, 12)


def pixels(batch_size, seed=0, size=SIZE):
    shape = (batch_size, *size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def sources(label, **streams):
    """What a mix gets, from random images and a frozen network sure of class 0."""
    logits = jnp.broadcast_to(9.0 * jnp.eye(C)[0], (*label.shape, C))
    image = pixels(len(label), size=label.shape[1:])
    batch = {"source": {"image": image}, **streams}
    target = pixels(len(label), 1, label.shape[1:])
    return Sources(image.astype(np.float32), label, target, logits, None, batch)


def crops(*classes, size=SIZE):
    """One for each class, which is in column c of the first row, and nothing else."""
    label = np.full((len(classes), *size), IGNORE, np.uint8)
    for one, c in zip(label, classes, strict=True):
        one[0, c] = c
    held = np.array(classes, np.int32)
    return {"image": pixels(len(classes), 2, size), "label": label, "class": held}


def test_the_mixed_image_gets_the_strong_colours():
    rng = np.random.default_rng(3)
    given = sources(rng.integers(0, C, (2, *SIZE)).astype(np.uint8))
    mix, key = single(C, jnp.ones(C)), jax.random.key(4)

    @jax.jit
    def both(key):
        out = mix.make(key, mix.init(None, given.batch), given)
        target = given.target.astype(np.float32)
        mixed = mixing.class_mix(out.images["mixed_mask"], given.image, target)
        colors_key = jax.random.split(key, 5)[3]
        return out.views[0], mixed, augment.strong_colors(colors_key, mixed)

    # `init` keeps the network, here None.
    view, mixed, expected = both(key)
    np.testing.assert_allclose(view, expected, atol=1e-4)
    assert np.abs(view - augment.normalize(mixed)).mean() > 0.1


def test_thresholds_choose_two_to_four_and_a_class_may_come_again():
    numbers = jax.jit(numbers_to_paste, static_argnums=2)
    pastes = np.arange(4000) % 4 > 0
    drawn = np.array(numbers(jax.random.key(0), pastes, "thresholds"))
    assert (drawn[~pastes] == 0).all()
    values, counts = np.unique(drawn[pastes], return_counts=True)
    np.testing.assert_array_equal(values, [2, 3, 4])
    assert np.abs(counts - 1000).max() < 110  # four standard deviations
    drawn = numbers(jax.random.key(0), pastes, "uniform")
    np.testing.assert_array_equal(drawn, 2 * pastes)

    thresholds = np.array([0.9, 0.5, 0.3, 0.8, 0.7], np.float32)
    expected = np.exp(1 / thresholds) / np.exp(1 / thresholds).sum()
    draw = jax.jit(classes_to_paste, static_argnums=(3, 4, 5))
    arguments = jax.random.key(1), thresholds, np.ones(C, bool), 20_000
    drawn = np.array(draw(*arguments, 4, "thresholds"))
    found = np.bincount(drawn.ravel(), minlength=C) / drawn.size
    np.testing.assert_allclose(found, expected, atol=0.008)
    again = (drawn[:, 0] == drawn[:, 1]).mean()
    assert abs(again - (expected**2).sum()) < 0.015
    drawn = np.array(draw(*arguments, 2, "uniform"))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    found = np.bincount(drawn.ravel(), minlength=C) / drawn.size
    np.testing.assert_allclose(found, 1 / C, atol=0.008)


def test_three_of_ten_images_get_long_tail_classes():
    label = np.full((1000, 2, 6), IGNORE, np.uint8)
    given = sources(label, paste=crops(3, 4, size=(2, 6)))
    options = dict(with_ignore=False, color_strength=0.0)
    mix = single(C, jnp.ones(C), long_tail_probability=0.3, **options)

    @jax.jit
    def masks(key):
        out = mix.make(key, mix.init(None, given.batch), given)
        return out.images["mixed_mask"]

    mask = np.array(masks(jax.random.key(5)))
    pasted = mask[:, 0, 3]
    assert abs(pasted.mean() - 0.3) < 0.058  # four standard deviations
    # Nothing but the two classes, and always both.
    np.testing.assert_array_equal(mask[:, 0, 4], pasted)
    assert mask.sum() == 2 * pasted.sum()


def related_masks(label, pastes=False, *, table=None, **options):
    options = {"with_ignore": True, "per_batch": False, **options}
    pastes = jnp.broadcast_to(pastes, len(label))
    make = lambda key: source_mask(key, label, pastes, 13, table=table, **options)
    return np.array(jax.jit(make)(jax.random.key(6)))


def held(label, mask):
    return [set(np.unique(one[m]).tolist()) for one, m in zip(label, mask, strict=True)]


# Image i holds the classes 0 to i.
STAIRS = np.minimum(np.arange(12)[:, None, None], np.arange(12)).astype(np.uint8)


def test_with_pasting_fewer_classes_but_at_least_one():
    n = np.arange(1, 13)
    for pastes, expected in (
        (False, -(-n // 2)),
        (True, np.maximum(-(-n // 2) - 2, 1)),
    ):
        chosen = held(STAIRS, related_masks(STAIRS, pastes))
        assert [len(classes) for classes in chosen] == expected.tolist()


def test_the_options_of_the_choice():
    # One choice for the batch, of all the classes in it.
    chosen = held(STAIRS, related_masks(STAIRS, per_batch=True))
    assert len(chosen[-1]) == 6
    for number, classes in enumerate(chosen):
        assert classes == {c for c in chosen[-1] if c <= number}
    # IGNORE is chosen in some images, or in none.
    label = np.full((12, 1, 2), IGNORE, np.uint8)
    label[:, :, 0] = 7
    assert {IGNORE} in held(label, related_masks(label))
    assert held(label, related_masks(label, with_ignore=False)) == [{7}] * 12
    # rider 8 and bicycle 12 come together: with two classes of four they are both.
    label = np.broadcast_to(np.array([[0, 6, 8, 12]], np.uint8), (12, 1, 4))
    table = mixing.related_table("street_crosscity13", 13)
    chosen = held(label, related_masks(label, table=table))
    assert {8, 12} in chosen
    for classes in chosen:
        assert (8 in classes) == (12 in classes)


def test_the_blur_has_each_images_own_deviation():
    image = np.zeros((64, 9, 9, 3), np.float32)
    image[:, 4, 4] = 1
    out = np.array(jax.jit(blurred, static_argnums=2)(jax.random.key(7), image, 5))
    ratio = np.maximum(out[:, 4, 5, 0] / out[:, 4, 4, 0], 1e-30)
    deviation = np.sqrt(-0.5 / np.log(ratio))
    assert deviation.min() < 0.3 and deviation.max() > 1.8
    assert deviation.max() < 2 and len(np.unique(deviation)) > 50
    assert abs(deviation.mean() - 1.05) < 0.3


def test_dual_soft_pastes_two_of_the_filled_classes():
    label = np.full((64, *SIZE), IGNORE, np.uint8)
    template = {"image": pixels(64, 5), "label": label}
    given = sources(label, paste=crops(0, 1, 3, 4), template=template)
    mix = dual_soft(C, jnp.ones(C), with_ignore=False)

    @jax.jit
    def masks(key):
        out = mix.make(key, mix.init(None, given.batch), given)
        return out.images["mixed_mask"]

    mask = np.array(masks(jax.random.key(8)))
    np.testing.assert_array_equal(mask.sum((1, 2)), 2)
    pasted = mask[:, 0, [0, 1, 3, 4]]
    assert pasted.sum() == mask.sum() and len(np.unique(pasted, axis=0)) == 6
