import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax.augment import normalize
from uda_jax.errors import UserError
from uda_jax.labelling import look_at, pseudo_labels_and_certainty
from uda_jax.labels import IGNORE

C = 4
MATRIX = np.random.default_rng(0).normal(size=(3, C)).astype(np.float32)


def forward(image):
    return image @ MATRIX


def images(count, size=(6, 8)):
    """Without labels: asking for one is a KeyError."""
    rng = np.random.default_rng(1)
    return [
        {"image": rng.integers(0, 256, (*size, 3)).astype(np.uint8)}
        for _ in range(count)
    ]


def look(dataset, indices=None, **options):
    indices = range(len(dataset)) if indices is None else indices
    return dict(look_at(forward, dataset, indices, num_classes=C, **options))


def assert_same(seen, other):
    for field in ("label", "present"):
        np.testing.assert_array_equal(getattr(seen, field), getattr(other, field))
    for field in ("entropy", "confidence"):  # sums over another shape
        np.testing.assert_allclose(
            getattr(seen, field), getattr(other, field), rtol=1e-6
        )


def test_what_is_seen_by_hand():
    dataset = images(2)
    for index, seen in look(dataset, given=0.6).items():
        p = np.array(jax.nn.softmax(normalize(dataset[index]["image"]) @ MATRIX))
        label = np.where(p.max(-1) > 0.6, p.argmax(-1), IGNORE)
        assert 0.2 < (label == IGNORE).mean() < 0.8
        np.testing.assert_array_equal(seen.label, label)
        assert seen.label.dtype == np.uint8
        np.testing.assert_allclose(seen.confidence, p.max(-1).mean(), rtol=1e-5)
        entropy = -(p * np.log(p)).mean() / np.log(C)
        np.testing.assert_allclose(seen.entropy, entropy, rtol=1e-5)
        # Of all pixels, sure or not.
        held = np.isin(np.arange(C), p.argmax(-1))
        np.testing.assert_array_equal(seen.present, held)


def test_certainty_is_in_sixteenths_of_octaves():
    dataset = images(1)
    seen = look(dataset, tell=pseudo_labels_and_certainty)[0]
    p = np.array(jax.nn.softmax(normalize(dataset[0]["image"]) @ MATRIX)).max(-1)
    octaves = -np.log2(1 - p.astype(np.float64) + 2.0**-16)
    wanted = np.clip(16 * octaves, 0, 255)
    assert seen.certainty.dtype == np.uint8 and len(np.unique(seen.certainty)) > 8
    near = np.abs(wanted - seen.certainty - 0.5)  # floor, of float32
    assert near.max() < 0.51
    assert look(dataset)[0].certainty is None


def test_batches_change_nothing():
    dataset = [*images(3), *images(2, (4, 4)), *images(2)]
    alone = look(dataset)
    assert sorted(alone) == list(range(7))
    for index, seen in look(dataset, batch_size=4).items():
        assert_same(seen, alone[index])


def test_many_sizes_do_not_wait_for_each_other():
    dataset = [image for n in range(30) for image in images(1, (4, 4 + n))]
    seen = look_at(forward, dataset, range(30), num_classes=C, batch_size=4)
    assert next(seen)[0] == 0
    assert sorted(index for index, _ in seen) == list(range(1, 30))


def test_chosen_images_at_the_networks_size():
    dataset = images(5, (12, 16))
    chosen = look(dataset, [4, 1], size=(6, 8))
    assert list(chosen) == [4, 1]
    assert chosen[4].label.shape == (6, 8)


def test_windows_whose_scores_are_sums():
    (seen,) = look(images(1, (9, 13)), mode="chips", window=(6, 6)).values()
    assert seen.label.shape == (9, 13)
    assert 0 < seen.entropy < 1 / C and 1 / C < seen.confidence < 1


def test_another_number_of_classes():
    with pytest.raises(UserError, match="4 classes and the label space 3"):
        list(look_at(forward, images(1), [0], num_classes=3))


def test_images_are_read_when_they_are_due():
    class Counting(list):
        read = 0

        def __getitem__(self, index):
            type(self).read += 1
            return images(1)[0]

    dataset = Counting(range(1000))
    seen = look_at(forward, dataset, range(1000), num_classes=C, batch_size=2)
    for _ in range(3):
        next(seen)
    assert Counting.read < 50
    seen.close()
    assert jnp.isfinite(next(iter(look(images(1)).values())).entropy)
