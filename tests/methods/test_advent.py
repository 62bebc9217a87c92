"""ADVENT: one scalar gives each network the gradients of passes of its own."""

import re
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import augment, losses
from uda_jax.errors import UserError
from uda_jax.methods.advent import SIGNALS, advent
from uda_jax.models import discriminator
from uda_jax.models.model import Prediction

C = 3
WEIGHTS = {"adversarial_weight": 0.5, "adversarial_aux_weight": 0.25}
FORMS = [("self_information", "vanilla"), ("softmax", "least_squares")]


def two_layers(params, x):
    """A discriminator that compiles at once; the goldens hold the published one."""
    return jax.nn.leaky_relu(x @ params["first"]) @ params["second"]


@pytest.fixture
def small_discriminator(monkeypatch):
    def init(key):
        rng = np.random.default_rng(jax.random.key_data(key).tolist())
        shapes = {"first": (C, 6), "second": (6, 1)}
        return {name: jnp.float32(rng.normal(size=s)) for name, s in shapes.items()}

    # The package's name "advent" is the function, not its module.
    module = sys.modules[advent.__module__]
    network = discriminator.Discriminator(init, two_layers)
    monkeypatch.setattr(module, "discriminator", lambda num_classes: network)


def forward(params, batch_stats, image, *, train, rngs=None):
    """A shared layer and two heads."""
    x = jax.nn.relu(image @ params["trunk"])
    return Prediction(x @ params["main"], (x @ params["aux"],)), batch_stats


def toy(**options):
    method = advent(forward, C, **{**WEIGHTS, **options})
    rng = np.random.default_rng(0)
    shapes = {"trunk": (3, 8), "main": (8, C), "aux": (8, C)}
    segmentor = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    segmentor = jax.tree.map(jnp.float32, segmentor)
    image = lambda: rng.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    label = rng.integers(0, C, (1, 32, 32)).astype(np.uint8)
    batch = {
        "source": {"image": image(), "label": label},
        "target": {"image": image()},
    }
    extra, memory = method.init(jax.random.key(1), None, None)
    state = SimpleNamespace(batch_stats={}, memory=memory)
    loss = lambda params: method.loss(params, state, batch, jax.random.key(2))
    return loss, {"segmentor": segmentor, **extra}, batch


def three_passes(params, batch, signal, gan):
    """Gradients of the published schedule: one backward pass after the other."""
    see = SIGNALS[signal]
    images = {name: augment.normalize(batch[name]["image"]) for name in batch}
    pairs = lambda p: {"main": p.logits, "aux": p.aux_logits[0]}
    run = lambda segmentor, name: pairs(
        forward(segmentor, {}, images[name], train=True)[0]
    )

    def supervised(segmentor):
        label = batch["source"]["label"]
        ce = {
            head: losses.cross_entropy(z, label, normaliser="valid")
            for head, z in run(segmentor, "source").items()
        }
        return ce["main"] + 0.1 * ce["aux"]

    def adversarial(segmentor):
        fooled = {
            head: losses.domain_loss(
                two_layers(params["discriminator"][head], see(z)), 0, gan
            )
            for head, z in run(segmentor, "target").items()
        }
        return 0.5 * fooled["main"] + 0.25 * fooled["aux"]

    def own(discriminators):
        return sum(
            losses.domain_loss(two_layers(discriminators[head], see(z)), domain, gan)
            / 2
            for domain, name in enumerate(("source", "target"))
            for head, z in run(params["segmentor"], name).items()
        )

    first, second = (
        jax.grad(pass_)(params["segmentor"]) for pass_ in (supervised, adversarial)
    )
    return {
        "segmentor": jax.tree.map(jnp.add, first, second),
        "discriminator": jax.grad(own)(params["discriminator"]),
    }


@pytest.mark.parametrize(("signal", "gan"), FORMS)
def test_one_scalar_gives_the_gradients_of_three_backward_passes(
    small_discriminator, signal, gan
):
    loss, params, batch = toy(signal=signal, gan=gan)
    # Operation by operation, so that equal means equal in every bit: compiled as a
    # whole, each program rounds in an order of its own.
    with jax.disable_jit():
        mine = jax.grad(loss, has_aux=True)(params)[0]
        theirs = three_passes(params, batch, signal, gan)
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(mine))


@pytest.mark.parametrize(("signal", "gan"), FORMS)
def test_no_gradient_leaks_into_the_other_network(small_discriminator, signal, gan):
    loss, params, _ = toy(signal=signal, gan=gan)

    def term(prefix):
        def total(params):
            metrics = loss(params)[1].metrics
            terms = [metrics[key] for key in metrics if key.startswith(prefix)]
            assert len(terms) == (4 if prefix == "discriminator/" else 1)
            return sum(terms)

        return total

    own, fooled = jax.jit(
        lambda params: [
            jax.grad(term(prefix))(params)
            for prefix in ("discriminator/", "loss/adversarial_main")
        ]
    )(params)
    assert nothing(own["segmentor"]) and not nothing(own["discriminator"])
    assert nothing(fooled["discriminator"]) and nothing(fooled["segmentor"]["aux"])
    assert not nothing(fooled["segmentor"]["main"])


def nothing(tree):
    return not any(np.any(leaf) for leaf in jax.tree.leaves(tree))


def test_each_domain_passes_the_discriminator_once(monkeypatch):
    monkeypatch.setattr(discriminator, "LAYERS", {"conv1": 64, "classifier": 1})
    loss, params, _ = toy(adversarial_aux_weight=0.0)
    assert list(params["discriminator"]) == ["main"]
    program = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params).compile()
    forward_passes = re.findall(
        r"convolution\(.*window={size=4x4 stride=2x2", program.as_text()
    )
    # Both layers see source and target: the target's two terms share one pass.
    assert len(forward_passes) == 4


def test_small_images_are_explained():
    loss, params, batch = toy()
    for domain in batch.values():
        domain["image"] = domain["image"][:, :31, :31]
    batch["source"]["label"] = batch["source"]["label"][:, :31, :31]
    with pytest.raises(UserError, match="takes at least 32x32"):
        jax.eval_shape(loss, params)
