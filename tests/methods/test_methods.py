"""One sweep over every method, with a network so small that a step costs nothing."""

import functools
import inspect

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax.methods import METHODS
from uda_jax.methods.method import Network
from uda_jax.methods.tufl import PAIR_LOSSES, SINGLE_LOSSES
from uda_jax.models import discriminator
from uda_jax.models.model import Prediction

C = 4
ALL_HEADS, MAIN_HEAD = (0, 1, 2), (0,)
# Colours take most of the time to compile: "source_only", its "-maxsquare",
# "tufl-focal" and "tufl-entropy" have them.
PLAIN = {"source_color_strength": 0.0, "color_strength": 0.0}
NO_VIEWS = {"source_view": "none", "target_view": "none"}
MIXED = {"class_weights": "none", **PLAIN}
MAIN_ONLY = {"entropy_aux_weight": 0.0, "aux_weight": 0.0}

# The method and its options.
CASES = {
    "source_only": ("source_only", {}),
    "source_only-ohem": ("source_only", {"source_loss": "ohem"}),
    "source_only-maxsquare": (
        "source_only",
        {"source_loss": "valid", "view": "maxsquare"},
    ),
    "source_only-weighted": ("source_only", {"heads": "weighted", "view": "none"}),
    "minent": ("minent", {}),
    "minent-per_class": ("minent", {"entropy": "per_class", **MAIN_ONLY}),
    "maxsquare": ("maxsquare", {}),
    **{
        f"maxsquare-{name}": ("maxsquare", {**options, **NO_VIEWS})
        for name, options in {
            "image_wise": {"image_ratio": 0.2},
            "entropy": {"target_loss": "entropy"},
            "hard": {"target_loss": "hard", "threshold": 0.3},
            "multi_level": {"multi_level": True, "threshold": 0.3},
        }.items()
    },
    "advent": ("advent", {}),
    "advent-softmax-least_squares": (
        "advent",
        {"signal": "softmax", "gan": "least_squares"},
    ),
    "tufl-target_statistics": (
        "tufl",
        {"statistics": "target", "class_weights": "none", **PLAIN},
    ),
    **{
        f"tufl-{name}": (
            "tufl",
            {
                **{"unsup_loss": name, "class_weights": "none"},
                **({} if name in ("focal", "entropy") else PLAIN),
            },
        )
        for name in PAIR_LOSSES + SINGLE_LOSSES
    },
    **{
        f"tufl-{name}": ("tufl", {**MIXED, **options, "mix": {"name": name, **mix}})
        for name, options, mix in (
            (
                "single",
                {"unsup_loss": "adaptive_focal"},
                {
                    "long_tail_probability": 0.5,
                    "long_tail_choice": "thresholds",
                    "color_strength": 0.0,
                },
            ),
            ("dual_soft", {"fda_beta": 0.1}, {}),
        )
    },
}
CASES |= {
    "ss_ada": ("ss_ada", {"min_kept": 100}),
    "ss_ada-thresholds": (
        "ss_ada",
        {
            **{"supervised_loss": "cross_entropy", "class_weights": "iou"},
            **{"threshold": 0.9, "class_threshold": True, "threshold_steps": 10},
            "statistics": "target",
        },
    ),
}
SMALL = {"ignore_top": 1, "ignore_bottom": 8, "threshold": 0.5}
BALANCED = {"colors": "none", "feature_weight": 0.0, **SMALL}
CASES |= {
    "daformer": ("daformer", SMALL),
    "daformer-things": (
        "daformer",
        {"feature_classes": (1, 2), "pool_per_image": True, "colors": "none", **SMALL},
    ),
    "ebda": ("ebda", BALANCED),
    "ebda-quantile": (
        "ebda",
        {
            "balance": "quantile",
            "second_forward": False,
            "region": "target",
            **BALANCED,
        },
    ),
}
# Least squares diverge where a discriminator learns as fast as the toy.
RATES = {"segmentor": 0.3, "discriminator": 0.01}
# The heads that a case trains, where these are not all three.
HEADS = {
    "minent-per_class": MAIN_HEAD,
    **dict.fromkeys((case for case in CASES if "maxsquare" in case), MAIN_HEAD),
    **dict.fromkeys(
        (case for case in CASES if case[:4] in ("dafo", "ebda")), MAIN_HEAD
    ),
    "source_only-maxsquare": ALL_HEADS,
    "maxsquare-multi_level": ALL_HEADS,
}


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    batch_stats: dict
    memory: dict


def forward(
    params, batch_stats, image, *, train, rngs=None, perturb=False,
    batch_statistics=None,
):  # fmt: skip
    """Three 1x1 convolutions; the batch statistics count the images seen."""
    heads = [image @ head["kernel"] + head["bias"] for head in params["heads"]]
    stats = {"seen": batch_stats["seen"] + image.shape[0]}
    perturbed = 0.9 * heads[0] if perturb else None
    squares = heads[0].reshape(len(image), 4, 8, 4, 8, C).mean((2, 4))
    return Prediction(heads[0], tuple(heads[1:]), (squares,), perturbed), stats


def toy_batch():
    """Four colours, one for each class; the target is the same, darker.

    32 pixels are the least that a discriminator takes.
    """
    rng = np.random.default_rng(0)
    colours = np.array([[220, 60, 60], [60, 200, 60], [60, 60, 210], [200, 200, 60]])
    label = np.kron(rng.integers(0, C, (2, 4, 4)), np.ones((1, 8, 8), int))
    source = colours[label] + rng.integers(-20, 20, (*label.shape, 3))
    label[:, 0] = 255
    labelled = {"image": source.astype("uint8"), "label": label.astype("uint8")}
    return {
        "source": labelled,
        "target": {"image": (source[::-1] * 0.7).astype("uint8")},
        "labelled": jax.tree.map(lambda x: x[::-1], labelled),
        "partner": {"image": (source * 0.7).astype("uint8")},
        "paste": {**labelled, "class": np.array([3, 0], np.int32)},
        "template": jax.tree.map(lambda x: x[::-1], labelled),
    }


def start(method):
    keys = jax.random.split(jax.random.key(0), 3)
    heads = [
        {"kernel": 0.1 * jax.random.normal(key, (3, C)), "bias": jnp.zeros(C)}
        for key in keys
    ]
    stats = {"seen": jnp.zeros((), jnp.int32)}
    extra, memory = jax.jit(method.init)(
        jax.random.key(1), Network({"heads": heads}, stats), toy_batch()
    )
    params = {"segmentor": {"heads": heads}, **extra}
    return State(jnp.zeros((), jnp.int32), params, stats, memory)


@pytest.mark.parametrize("case", CASES)
def test_trains_and_compiles_once(case, monkeypatch):
    # Discriminators of two layers: more would only cost time.
    monkeypatch.setattr(discriminator, "LAYERS", {"conv1": 64, "classifier": 1})
    name, options = CASES[case]
    method = METHODS[name](forward, C, **options)
    batch, traces = toy_batch(), []

    @jax.jit
    def step(state, batch):
        traces.append(1)
        key = jax.random.fold_in(jax.random.key(2), state.step)
        (loss, out), grads = jax.value_and_grad(method.loss, has_aux=True)(
            state.params, state, batch, key
        )
        params = {
            part: jax.tree.map(
                lambda p, g, rate=RATES[part]: p - rate * g, tree, grads[part]
            )
            for part, tree in state.params.items()
        }
        return (
            State(state.step + 1, params, out.batch_stats, out.memory),
            loss,
            out.metrics,
            out.images,
            grads,
        )

    state = start(method)
    before = jax.tree.map(jnp.shape, state)
    history = []
    for _ in range(20):
        state, loss, metrics, images, grads = step(state, batch)
        history.append(metrics["loss/source"])
        assert loss == metrics["loss/total"]
        for value in jax.tree.leaves((loss, metrics, grads)):
            assert np.all(np.isfinite(value))
        # Gradients reach exactly the parts that the method uses.
        heads = grads["segmentor"].pop("heads")
        for number, head in enumerate(heads):
            used = number in HEADS.get(case, ALL_HEADS)
            for gradient in jax.tree.leaves(head):
                assert np.any(gradient != 0) == used
        for gradient in jax.tree.leaves(grads):
            assert np.any(gradient != 0)
    assert len(traces) == 1
    assert jax.tree.map(jnp.shape, state) == before
    assert state.batch_stats["seen"] > 0
    assert np.mean(history[-3:]) < 0.7 * history[0]
    assert all(key.count("/") == 1 for key in metrics)
    assert all(value.shape == () for value in metrics.values())
    for panel in images.values():
        assert panel.shape[:3] == (2, 32, 32) and panel.shape[3:] in ((), (3,))


@pytest.mark.parametrize(
    ("name", "weight", "options", "term"),
    [
        ("minent", "entropy_weight", {}, "loss/entropy"),
        ("minent", "entropy_weight", {"entropy": "per_class"}, "loss/entropy"),
        ("maxsquare", "target_weight", {}, "loss/target"),
        ("maxsquare", "target_weight", {"target_loss": "entropy"}, "loss/target"),
        (
            "maxsquare",
            "target_weight",
            {"target_loss": "hard", "threshold": 0.0},
            "loss/target",
        ),
        ("advent", "adversarial_weight", {}, "loss/adversarial_main"),
    ],
)
def test_the_term_on_the_target_falls(name, weight, options, term, monkeypatch):
    monkeypatch.setattr(discriminator, "LAYERS", {"conv1": 64, "classifier": 1})
    # Not image-wise: those weights follow the predictions, without a gradient.
    # So large that the source hardly matters; the discriminators stand still.
    large = 1e4
    method = METHODS[name](forward, C, **{**NO_VIEWS, **options, weight: large})
    state, batch = start(method), toy_batch()

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient_and_term(segmentor):
        params = {**state.params, "segmentor": segmentor}
        total, out = method.loss(params, state, batch, jax.random.key(2))
        return total / large, out.metrics[term]

    segmentor, values = state.params["segmentor"], []
    for _ in range(3):
        gradient, value = gradient_and_term(segmentor)
        values.append(value)
        segmentor = jax.tree.map(lambda p, g: p - 0.1 * g, segmentor, gradient)
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("name", METHODS)
def test_unknown_keyword_is_named(name):
    with pytest.raises(TypeError, match="wieght"):
        METHODS[name](forward, C, wieght=1.0)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_has_a_default_and_is_documented(name):
    for parameter in inspect.signature(METHODS[name]).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert parameter.default is not parameter.empty
        assert parameter.name in METHODS[name].__doc__
