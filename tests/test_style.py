"""The Fourier amplitude swap, against numpy's full transform and by what it must do."""

import functools

import jax
import numpy as np
import pytest

from uda_jax.errors import UserError
from uda_jax.style import fourier_style

SIZES = [(12, 16), (13, 16), (12, 15), (11, 17), (16, 9)]


@functools.partial(jax.jit, static_argnums=2)
def styled(image, style, beta):
    return fourier_style(image, style, beta)


def photos(size, seed=0, low=60, high=190):
    """Two batches far from black and white, so that nothing is clipped."""
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (2, 2, *size, 3)).astype(np.uint8)


def by_numpy(image, style, beta):
    """The paper's words: shift frequency 0 to the middle, replace a square there."""
    reach = int(np.floor(beta * min(image.shape[1:3])))
    axes = (1, 2)
    shifted = lambda x: np.fft.fftshift(np.fft.fft2(x, axes=axes), axes=axes)
    spectrum, other = shifted(image.astype(float)), shifted(style.astype(float))
    y, x = (n // 2 for n in image.shape[1:3])
    square = np.s_[:, y - reach : y + reach + 1, x - reach : x + reach + 1]
    amplitude = np.abs(spectrum)
    amplitude[square] = np.abs(other)[square]
    changed = amplitude * np.exp(1j * np.angle(spectrum))
    back = np.fft.ifft2(np.fft.ifftshift(changed, axes=axes), axes=axes)
    np.testing.assert_allclose(back.imag, 0, atol=1e-9)
    return np.clip(back.real, 0, 255)


@pytest.mark.parametrize("size", SIZES)
def test_equals_the_definition_for_odd_and_even_sizes(size):
    image, style = photos(size)
    for beta in (0.1, 0.49):  # windows of 1 and of all but the highest frequencies
        out = styled(image, style, beta)
        assert out.shape == image.shape and out.dtype == np.float32
        np.testing.assert_allclose(out, by_numpy(image, style, beta), atol=2e-3)


def test_clips_to_the_scale_of_images():
    image, style = photos((12, 16), low=0, high=256)
    out = styled(image, style, 0.3)
    assert out.min() == 0 and out.max() == 255
    np.testing.assert_allclose(out, by_numpy(image, style, 0.3), atol=2e-3)


def test_frequency_zero_alone_moves_the_means():
    image, style = photos((12, 16))
    shift = style.mean((1, 2), keepdims=True) - image.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(styled(image, style, 0.08), image + shift, atol=1e-3)


def test_own_style_changes_nothing():
    image, _ = photos((11, 16), low=0, high=256)
    np.testing.assert_allclose(styled(image, image, 0.2), image, atol=1e-3)


def test_amplitudes_are_the_styles_and_phases_stay():
    image, style = photos((12, 16))
    out = styled(image, style, 0.2)
    before, other, after = (
        np.fft.rfft2(np.asarray(x, float), axes=(1, 2)) for x in (image, style, out)
    )
    window = np.s_[:, [0, 1, 2, -2, -1], :3]  # floor(0.2 * 12) is 2
    np.testing.assert_allclose(
        np.abs(after[window]), np.abs(other[window]), rtol=1e-4, atol=0.05
    )
    turn = np.angle(after / before)
    np.testing.assert_allclose(np.abs(turn[np.abs(after) > 50]), 0, atol=2e-3)
    outside = np.ones(before.shape, bool)
    outside[window] = False
    np.testing.assert_allclose(after[outside], before[outside], atol=0.05)


def test_each_example_has_its_own_style_and_either_dtype():
    image, style = photos((12, 16))
    both = styled(image, style, 0.2)
    alone = styled(image[1:].astype(np.float32), style[1:].astype(np.float32), 0.2)
    np.testing.assert_allclose(alone[0], both[1], atol=1e-3)


def test_an_image_without_a_frequency_stays_finite():
    image, style = photos((12, 16))
    black = styled(np.zeros_like(image), style, 0.05)
    means = np.broadcast_to(style.mean((1, 2), keepdims=True), black.shape)
    np.testing.assert_allclose(black, means, atol=1e-3)


@pytest.mark.parametrize("beta", [0, 0.5, -0.1])
def test_refuses_a_window_that_does_not_fit(beta):
    with pytest.raises(UserError, match="must be above 0"):
        fourier_style(*photos((12, 16)), beta)


def test_refuses_two_shapes():
    image, style = photos((12, 16))
    with pytest.raises(UserError, match="same crop size and batch size"):
        fourier_style(image, style[:, :10], 0.1)
