"""Resizing, normalisation and the CPU forms against hand values and plain XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax.errors import UserError
from uda_jax.models import convolution
from uda_jax.models.layers import BatchNorm, resize_bilinear, resize_nearest


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_bilinear_by_hand():
    ramp = np.array([0.0, 10.0], np.float32).reshape(1, 2, 1)
    corners = resize_bilinear(ramp, (1, 5), align_corners=True)
    np.testing.assert_allclose(corners.ravel(), [0, 2.5, 5, 7.5, 10])
    halves = resize_bilinear(ramp, (1, 4), align_corners=False)
    np.testing.assert_allclose(halves.ravel(), [0, 2.5, 7.5, 10])
    four = np.array([0.0, 1.0, 2.0, 3.0], np.float32).reshape(1, 4, 1)
    shrunk = resize_bilinear(four, (1, 2), align_corners=False)
    np.testing.assert_allclose(shrunk.ravel(), [0.5, 2.5])
    np.testing.assert_allclose(
        resize_bilinear(four, (1, 2), align_corners=True).ravel(), [0, 3]
    )
    one = resize_bilinear(four, (3, 1), align_corners=True)
    np.testing.assert_allclose(one.ravel(), [0, 0, 0])


@pytest.mark.parametrize("size", [(11, 13), (3, 4), (20, 3), (5, 7)])
def test_bilinear_half_pixel_equals_jax_without_antialias(size):
    x = normal(0, 2, 5, 7, 3)
    mine = resize_bilinear(x, size, align_corners=False)
    theirs = jax.image.resize(x, (2, *size, 3), "bilinear", antialias=False)
    np.testing.assert_allclose(mine, theirs, atol=3e-6)


def test_bilinear_takes_leading_axes_and_keeps_dtype():
    x = normal(1, 4, 6, 2)
    batched = resize_bilinear(np.stack([x, 2 * x])[None], (7, 5), align_corners=True)
    assert batched.shape == (1, 2, 7, 5, 2)
    alone = resize_bilinear(x, (7, 5), align_corners=True)
    np.testing.assert_allclose(batched[0, 1], 2 * alone, rtol=1e-5, atol=1e-6)
    low = resize_bilinear(jnp.asarray(x, jnp.bfloat16), (7, 5), align_corners=True)
    assert low.dtype == jnp.bfloat16
    assert resize_bilinear(x, (4, 6), align_corners=True) is x
    with pytest.raises(TypeError, match="resize_nearest"):
        resize_bilinear(np.zeros((2, 2, 1), np.uint8), (4, 4), align_corners=False)


def test_bilinear_gradient_is_the_transpose():
    x, dy = normal(2, 3, 4, 2), normal(3, 7, 9, 2)
    for align in (True, False):
        resize = partial(resize_bilinear, size=(7, 9), align_corners=align)
        y, pull = jax.vjp(resize, x)
        np.testing.assert_allclose(np.vdot(y, dy), np.vdot(x, pull(dy)[0]), rtol=1e-4)


@pytest.mark.parametrize("size", [(4, 6), (5, 2), (1, 1), (7, 9), (2, 3)])
def test_nearest_reads_the_floor(size):
    labels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    mine = resize_nearest(labels, size)
    rows = [i * 2 // size[0] for i in range(size[0])]
    columns = [j * 3 // size[1] for j in range(size[1])]
    assert mine.dtype == jnp.uint8
    np.testing.assert_array_equal(mine, labels[rows][:, columns])


CONVS = [  # height, width, kernel size, stride, padding, dilation
    (8, 12, 3, 1, 1, 1),
    (7, 5, 3, 1, 1, 1),
    (8, 12, 3, 2, 1, 1),
    (7, 9, 3, 2, 1, 1),
    (6, 9, 1, 1, 0, 1),
    (6, 9, 1, 2, 0, 1),
    (5, 4, 1, 1, 1, 1),
    (12, 15, 7, 2, 3, 1),
    (5, 6, 3, 1, 0, 1),
    (2, 1, 3, 2, 1, 1),
    (1, 1, 1, 2, 0, 1),
    (9, 7, 3, 1, 2, 2),
    (9, 11, 3, 2, 4, 4),
    (2, 3, 3, 1, 4, 4),
    (1, 1, 3, 1, 4, 4),
    (8, 12, 4, 4, 0, 1),
    (11, 9, 4, 4, 0, 1),
]


def plain(function):
    """The form of `function` for every platform but a CPU, on whatever runs here."""

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")
            return function(*arguments)

    return run


def assert_plain_xla_is_the_same(function, *arguments, rtol=1e-5, atol=1e-4):
    """In values and gradients."""

    @jax.jit
    def both(arguments, dy):
        y, pull = jax.vjp(function, *arguments)
        y_plain, pull_plain = jax.vjp(plain(function), *arguments)
        return (y, *pull(dy)), (y_plain, *pull_plain(dy))

    dy = normal(2, *jax.eval_shape(plain(function), *arguments).shape)
    results, wanted = both(arguments, dy)
    for result, want in zip(
        jax.tree.leaves(results), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_allclose(result, want, rtol=rtol, atol=atol)


# Each pair of channels takes other forms: 3 are an image's.
@pytest.mark.parametrize("channels_in, channels_out", [(64, 4), (3, 16)])
@pytest.mark.parametrize("height, width, size, stride, padding, dilation", CONVS)
def test_cpu_convolution_equals_plain_xla(
    height, width, size, stride, padding, dilation, channels_in, channels_out
):
    geometry = dict(stride=stride, padding=padding, dilation=dilation)
    assert_plain_xla_is_the_same(
        partial(convolution.conv, **geometry),
        normal(0, 2, height, width, channels_in),
        normal(1, size, size, channels_in, channels_out),
    )


@pytest.mark.parametrize(
    "height, width, size, padding, dilation",
    [
        (6, 5, 3, 1, 1),
        (7, 9, 3, 6, 6),
        (2, 1, 3, 4, 4),
        (6, 7, 3, 0, 2),
        (4, 3, 1, 1, 1),
    ],
)
def test_cpu_depthwise_convolution_equals_plain_xla(
    height, width, size, padding, dilation
):
    geometry = dict(padding=padding, dilation=dilation, groups=5)
    assert_plain_xla_is_the_same(
        partial(convolution.conv, **geometry),
        normal(0, 2, height, width, 5),
        normal(1, size, size, 1, 5),
    )


def test_grouped_convolution_that_is_not_depthwise():
    x, kernel = normal(0, 1, 5, 5, 4), normal(1, 3, 3, 2, 6)
    conv = partial(convolution.conv, stride=2, padding=1)
    halves = [
        conv(x[..., :2], kernel[..., :3]),
        conv(x[..., 2:], kernel[..., 3:]),
    ]
    mine = conv(x, kernel, groups=2)
    np.testing.assert_allclose(mine, jnp.concatenate(halves, -1), atol=1e-5)


@pytest.mark.parametrize("height, width", [(9, 14), (3, 2), (1, 1)])
@pytest.mark.parametrize("dilations", [(6, 12), (1, 2, 2, 5)])
def test_cpu_dilated_sum_equals_a_sum_of_plain_convolutions(height, width, dilations):
    kernels = tuple(normal(i, 3, 3, 16, 3) for i, _ in enumerate(dilations))
    assert_plain_xla_is_the_same(
        partial(convolution.dilated_sum, dilations=dilations),
        normal(9, 2, height, width, 16),
        kernels,
    )


@pytest.mark.parametrize("size, channels_in, groups", [(3, 4, 1), (1, 4, 1), (3, 1, 4)])
def test_cpu_forms_keep_the_dtype(size, channels_in, groups):
    def both(x, kernel):
        y, pull = jax.vjp(partial(convolution.conv, groups=groups), x, kernel)
        summed = convolution.dilated_sum(x, (jnp.ones((3, 3, 4, 2), x.dtype),), (2,))
        return y, *pull(y), summed

    x = jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((size, size, channels_in, 4), jnp.bfloat16)
    assert all(y.dtype == jnp.bfloat16 for y in jax.eval_shape(both, x, kernel))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("height, width", [(8, 6), (7, 9), (1, 2), (2, 1)])
def test_cpu_max_pool_equals_plain_xla_on_ties_too(height, width, ceil_mode):
    # Few distinct values: many windows have ties.
    x = np.random.default_rng(0).integers(0, 3, (2, height, width, 3))
    pool = partial(convolution.max_pool_3x3_stride2, ceil_mode=ceil_mode)
    x = jnp.asarray(x, jnp.float32)
    halves = [n // 2 + 1 if ceil_mode else (n + 1) // 2 for n in (height, width)]
    assert jax.eval_shape(pool, x).shape == (2, *halves, 3)
    assert_plain_xla_is_the_same(pool, x, rtol=1e-7, atol=1e-6)


def batch_norm(x, *, use_running, scale=1.0, **options):
    norm = BatchNorm(use_running, **options)
    variables = norm.init(jax.random.key(0), x)
    params = {"scale": jnp.full_like(variables["params"]["scale"], scale)}
    params["bias"] = variables["params"]["bias"]
    return norm.apply(
        {"params": params, "batch_stats": variables["batch_stats"]},
        x,
        mutable=["batch_stats"],
    )


def test_batch_norm_by_hand():
    x = np.array([1.0, 3.0, 5.0, 7.0], np.float32).reshape(4, 1)
    y, new = batch_norm(x, use_running=False)
    # mean 4, biased variance 5, unbiased 20/3
    np.testing.assert_allclose(y.ravel(), (x.ravel() - 4) / np.sqrt(5 + 1e-5), 1e-6)
    np.testing.assert_allclose(new["batch_stats"]["mean"], [0.4], rtol=1e-6)
    np.testing.assert_allclose(
        new["batch_stats"]["var"], [0.9 + 0.1 * 20 / 3], rtol=1e-6
    )


def test_batch_norm_running_statistics_stay():
    x = normal(0, 5, 3)
    y, new = batch_norm(x, use_running=True)
    np.testing.assert_allclose(y, x / np.sqrt(1 + 1e-5), rtol=1e-6)
    assert not new or float(jnp.abs(new["batch_stats"]["mean"]).max()) == 0


def test_absolute_scale_ignores_the_sign_and_flips_the_gradient():
    x = normal(0, 6, 2)
    positive, _ = batch_norm(x, use_running=True, scale=2.0, absolute_scale=True)
    negative, _ = batch_norm(x, use_running=True, scale=-2.0, absolute_scale=True)
    np.testing.assert_array_equal(positive, negative)
    np.testing.assert_allclose(positive, x / np.sqrt(1 + 1e-5) * 2.00001, rtol=1e-6)

    def total(scale):
        return jnp.sum(
            batch_norm(x, use_running=True, scale=scale, absolute_scale=True)[0]
        )

    assert jax.grad(total)(2.0) == -jax.grad(total)(-2.0) != 0


def test_batch_norm_of_one_value_is_refused():
    with pytest.raises(UserError, match="frozen"):
        batch_norm(normal(0, 1, 1, 1, 4), use_running=False)


def test_batch_norm_of_bfloat16_keeps_float32_statistics():
    x = jnp.asarray(100 + normal(0, 64, 4), jnp.bfloat16)
    y, new = batch_norm(x, use_running=False)
    assert y.dtype == jnp.bfloat16
    assert new["batch_stats"]["var"].dtype == jnp.float32
    assert abs(float(jnp.std(y.astype(jnp.float32))) - 1) < 0.05


def test_fusion_barrier_stays_in_the_program_and_has_a_gradient():
    def network(x):
        for _ in range(3):
            x = convolution.fusion_barrier(jax.nn.relu(x + jnp.roll(x, 1)))
        return jnp.sum(x)

    x = jnp.asarray(normal(0, 8))
    program = jax.jit(jax.grad(network)).lower(x).compile()
    if jax.default_backend() == "cpu":
        # Three forward and three backward; the last ones may be left out.
        assert program.as_text().count(" call(") >= 4
    np.testing.assert_allclose(program(x), jax.grad(network)(x))
    np.testing.assert_array_equal(jax.vmap(convolution.fusion_barrier)(x), x)
    assert plain(convolution.fusion_barrier)(x) is x
