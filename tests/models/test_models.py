"""What every network of MODELS promises; a new one enters by itself."""

import inspect
import re

import jax
import jax.numpy as jnp
import pytest

from uda_jax.errors import UserError
from uda_jax.models import MODELS, create_model

# What neither expression of a network matches, for networks that have such parts:
# layers without ImageNet weights that train at the ordinary rate.  In BiSeNet, as in
# the original, these are the spatial path and the context path around its ResNet.
NEITHER = {"bisenet": r"(sp|cp/(arm|conv_head)\d\d|cp/conv_avg)/"}
KEY = {"dropout": jax.random.key(0)}


def names(tree):
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


@pytest.fixture(scope="module", params=MODELS)
def network(request):
    """(name, model, shapes of params and batch_stats) with the smallest backbone."""
    name = request.param
    backbone = {"mit_b5": "mit_b0", "resnet101": "resnet18"}
    default = inspect.signature(MODELS[name]).parameters["backbone"].default
    model = create_model(
        name, 5, backbone=backbone.get(default, default), batch_norm="frozen"
    )
    return name, model, jax.eval_shape(model.init, jax.random.key(0))


def test_expressions_share_out_the_parameters(network):
    name, model, (params, _) = network
    parts = {"backbone": model.backbone, "heads": model.heads}
    if name in NEITHER:
        parts["neither"] = NEITHER[name]
    found = {
        path: [part for part, pattern in parts.items() if re.match(pattern, path)]
        for path in names(params)
    }
    assert {path: hits for path, hits in found.items() if len(hits) != 1} == {}
    assert {part for [part] in found.values()} == set(parts)


def test_every_frozen_expression_matches_something(network):
    _, model, (params, _) = network
    for pattern in model.frozen:
        assert any(re.match(pattern, path) for path in names(params)), pattern


@pytest.mark.parametrize(("train", "size"), [(True, None), (False, (90, 20))])
def test_prediction_has_the_size_of_an_odd_image_or_the_one_told(network, train, size):
    _, model, (params, stats) = network
    prediction, new = jax.eval_shape(
        lambda *trees, x: model.forward(*trees, x, train=train, rngs=KEY, size=size),
        params,
        stats,
        x=jax.ShapeDtypeStruct((2, 37, 51, 3), jnp.float32),
    )
    for logits in (prediction.logits, *prediction.aux_logits):
        assert (logits.shape, logits.dtype) == (
            (2, *(size or (37, 51)), 5),
            jnp.float32,
        )
    assert jax.tree.structure(new) == jax.tree.structure(stats)


def test_perturbed_logits_are_like_the_logits(network):
    """And come with the same parameters and statistics."""
    _, model, (params, stats) = network
    prediction, new = jax.eval_shape(
        lambda *trees, x: model.forward(
            *trees, x, train=True, rngs=KEY, size=(90, 20), perturb=True
        ),
        params,
        stats,
        x=jax.ShapeDtypeStruct((2, 37, 51, 3), jnp.float32),
    )
    for logits in (
        prediction.logits,
        *prediction.aux_logits,
        prediction.perturbed_logits,
    ):
        assert (logits.shape, logits.dtype) == ((2, 90, 20, 5), jnp.float32)
    assert jax.tree.structure(new) == jax.tree.structure(stats)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options, message",
    [
        ({"batchnorm": "train"}, 'did you mean "batch_norm"'),
        ({"batch_norm": "eval"}, "choose one of train, frozen"),
        ({"compute_dtype": "float16"}, "choose one of float32, bfloat16"),
        ({"backbone": "vgg16"}, 'no backbone "vgg16": choose one of'),
        ({"remat": "yes"}, "must be"),
    ],
)
def test_wrong_options_are_explained(name, options, message):
    with pytest.raises(UserError, match=message):
        create_model(name, 5, **options)


def test_unknown_network_is_explained():
    with pytest.raises(UserError, match='did you mean "segformer"'):
        create_model("segfromer", 5)
