import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uda_jax.errors import UserError
from uda_jax.models import create_model
from uda_jax.optimizers import DECAYED, first_match, make_optimizer

BISENET = create_model("bisenet", 13, width=0.125)
DEEPLAB = create_model(
    "deeplabv2", 13, backbone="resnet50", branches=2, affine="stem_frozen", width=0.125
)
CONSTANT = {"name": "constant"}
LINEAR = {"name": "poly", "power": 1.0}
ROW = {"learning_rate": 0.1, "weight_decay": 0.01}
SGD = {"name": "sgd", "momentum": 0.9, **ROW}
MOMENTS = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, **ROW}
ADAM = {"name": "adam", **MOMENTS}
ADAMW = {"name": "adamw", **MOMENTS}


def params():
    return {
        "segmentor": {
            "cp": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5])},
            "ffm": {"kernel": jnp.array([[3.0, 0.2]])},
            "conv_out": {"scale": jnp.array([1.5])},
        }
    }


def discriminators():
    return {"discriminator": {"main": {"kernel": jnp.array([[0.3, -0.7]])}}}


def sines(tree, step):
    return jax.tree.map(lambda p: jnp.sin(p * (step + 1)), tree)


def run(optimizer, tree, gradients):
    """(parameters, state) after one step for each of `gradients`, compiled once."""
    state, update = optimizer.init(tree), jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, tree)
        tree = optax.apply_updates(tree, updates)
    assert update._cache_size() == 1
    return tree, state


def ours(row, steps=3, schedule=CONSTANT, **options):
    optimizer, _ = make_optimizer(
        {**row, **options}, schedule, steps=steps, model=BISENET
    )
    start = params()
    return run(optimizer, start, [sines(start, t) for t in range(steps)])[0][
        "segmentor"
    ]


def torch_sgd(p, gradient, rates, decay, momentum=0.9):
    velocity = 0
    for step, rate in enumerate(rates):
        velocity = momentum * velocity + gradient(step) + decay * p
        p = p - rate * velocity
    return p


def torch_adam(p, gradient, rates, decay, decoupled=False):
    m = v = 0
    for t, rate in enumerate(rates, 1):
        g = gradient(t - 1)
        if decoupled:
            p = p * (1 - rate * decay)
        else:
            g = g + decay * p
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        p = p - rate * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-3)
    return p


def torch_adamw(*args):
    return torch_adam(*args, decoupled=True)


@pytest.mark.parametrize(
    ("row", "torch"), [(SGD, torch_sgd), (ADAM, torch_adam), (ADAMW, torch_adamw)]
)
@pytest.mark.parametrize("decay_of", ["kernels", "all"])
def test_three_steps_as_in_pytorch(row, torch, decay_of):
    result = ours(row, schedule=LINEAR, decay_of=decay_of)
    start = params()["segmentor"]
    rates = [0.1, 0.1 * 2 / 3, 0.1 / 3]
    for part, name, kernel in [
        ("cp", "kernel", True),
        ("cp", "bias", False),
        ("ffm", "kernel", True),
        ("conv_out", "scale", False),
    ]:
        p = np.asarray(start[part][name], np.float64)
        gradient = lambda step, p=p: np.sin(p * (step + 1))
        decay = 0.01 if kernel or decay_of == "all" else 0.0
        wanted = torch(p, gradient, rates, decay)
        np.testing.assert_allclose(result[part][name], wanted, 1e-5, 1e-6, err_msg=part)


def test_the_groups_of_daformer_are_the_originals():
    model = create_model("daformer", 19, backbone="mit_b5")
    params, _ = jax.eval_shape(model.init, jax.random.key(0))
    decayed = DECAYED["all_but_backbone_norms"](params)
    leaves = jax.tree.leaves
    assert leaves(decayed["decode_head"]) == [True] * 34
    assert sum(leaves(decayed["backbone"])) == 730
    assert len(leaves(decayed["backbone"])) == 730 + 322


@pytest.mark.parametrize("row", [SGD, ADAM, ADAMW])
def test_head_multiplier_is_a_learning_rate(row):
    plain, heads = ours(row, steps=1), ours(row, steps=1, head_multiplier=10.0)
    start = params()["segmentor"]
    for part, factor in {"cp": 1, "ffm": 10, "conv_out": 10}.items():
        for name in start[part]:
            step = plain[part][name] - start[part][name]
            np.testing.assert_allclose(
                heads[part][name] - start[part][name], factor * step, rtol=1e-4
            )


def test_groups_of_the_real_network():
    tree = jax.eval_shape(BISENET.init, jax.random.key(0))[0]
    heads = first_match(tree, [(BISENET.heads, "heads")], "body")
    with_heads = {k for k, v in heads.items() if "heads" in jax.tree.leaves(v)}
    assert with_heads == {"ffm", "conv_out", "conv_out16", "conv_out32"} & heads.keys()
    assert {"ffm", "conv_out"} < with_heads
    for name in with_heads:
        assert set(jax.tree.leaves(heads[name])) == {"heads"}
    kernels = DECAYED["kernels"](tree)
    for path, decayed in jax.tree_util.tree_leaves_with_path(kernels):
        assert decayed == (path[-1].key == "kernel"), path


def visited(k):
    """Names of parameters that the original DeepLabV2 programs list k times."""
    names = {
        1: ["backbone/conv1", "head/branch_0"],
        3: ["backbone/layer1_0/conv1", "backbone/layer4_2/bn3"],
        4: ["backbone/layer1_0/downsample_conv", "backbone/layer2_0/downsample_bn"],
    }
    return names[k]


@pytest.mark.parametrize(
    ("duplicates", "k", "expected"),
    [
        ("dedup", 3, 0.79027079),
        ("legacy_inplace", 1, 0.79027079),
        ("legacy_inplace", 3, -0.30629141),
        ("legacy_inplace", 4, -0.87674942),
        ("sequential", 1, 0.79027079),
        ("sequential", 3, -0.14942597),
        ("sequential", 4, -0.66424208),
    ],
)
def test_parameters_listed_several_times(duplicates, k, expected):
    # p = 1, gradients .5, -.2, .1, .3: run through PyTorch's update rule by hand.
    row = {**SGD, "weight_decay": 0.05, "duplicates": duplicates, "decay_of": "all"}
    optimizer, _ = make_optimizer(row, CONSTANT, steps=4, model=DEEPLAB)
    tree = {"segmentor": {}}
    for name in visited(k):
        *path, last = name.split("/")
        part = tree["segmentor"]
        for key in path:
            part = part.setdefault(key, {})
        part[last] = {"kernel": jnp.ones(())}
    gradients = [
        jax.tree.map(lambda p, g=g: g * p, tree) for g in (0.5, -0.2, 0.1, 0.3)
    ]
    result, _ = run(optimizer, tree, gradients)
    for leaf in jax.tree.leaves(result):
        assert float(leaf) == pytest.approx(expected, abs=2e-7)


def visit(p, gradients, visits, decay, momentum, accumulate):
    """PyTorch's SGD on one number that its list holds `visits` times, rate 0.1."""
    velocity = 0.0
    for gradient in gradients:
        force = gradient
        for _ in range(visits):
            force = (force if accumulate else gradient) + decay * p
            velocity = momentum * velocity + force
            p -= 0.1 * velocity
    return p


@pytest.mark.parametrize("duplicates", ["sequential", "legacy_inplace"])
@pytest.mark.parametrize("options", [{}, {"decay_of": "all"}, {"momentum": 0.5}])
def test_visits_have_the_decay_and_the_momentum_of_the_row(duplicates, options):
    row = {**SGD, "weight_decay": 0.05, "duplicates": duplicates, **options}
    optimizer, _ = make_optimizer(row, CONSTANT, steps=2, model=DEEPLAB)
    block = {"conv1": {"kernel": jnp.ones((1, 1))}, "bn3": {"scale": jnp.ones(1)}}
    tree = {"segmentor": {"backbone": {"layer1_0": block}}}
    numbers = (0.5, -0.2)
    gradients = [jax.tree.map(lambda p, g=g: g * p, tree) for g in numbers]
    result, _ = run(optimizer, tree, gradients)
    block = result["segmentor"]["backbone"]["layer1_0"]
    scales_decay = row.get("decay_of") == "all"
    for leaf, decay in [
        (block["conv1"]["kernel"], 0.05),
        (block["bn3"]["scale"], 0.05 if scales_decay else 0.0),
    ]:
        accumulate = duplicates == "legacy_inplace"
        wanted = visit(1.0, numbers, 3, decay, row["momentum"], accumulate)
        np.testing.assert_allclose(leaf.ravel(), wanted, rtol=1e-6)


def test_visits_follow_the_rate_and_leave_the_heads_to_their_own():
    row = {**SGD, "duplicates": "sequential", "head_multiplier": 10.0}
    optimizer, _ = make_optimizer(row, LINEAR, steps=2, model=DEEPLAB)
    kernel = jnp.array([[2.0]])
    tree = {
        "segmentor": {
            "backbone": {"layer1_0": {"conv1": {"kernel": kernel}}},
            "head": {"branch_0": {"kernel": kernel}},
        }
    }
    result, _ = run(optimizer, tree, [sines(tree, t) for t in range(2)])
    twice = [0.1] * 3 + [0.05] * 3
    gradient = lambda visit: np.sin(2.0 * (visit // 3 + 1))
    wanted = torch_sgd(2.0, gradient, twice, 0.01)
    backbone = result["segmentor"]["backbone"]["layer1_0"]["conv1"]["kernel"]
    assert float(backbone[0, 0]) == pytest.approx(wanted, rel=1e-6)
    wanted = torch_sgd(2.0, lambda t: np.sin(2.0 * (t + 1)), [1.0, 0.5], 0.01)
    head = result["segmentor"]["head"]["branch_0"]["kernel"]
    assert float(head[0, 0]) == pytest.approx(wanted, rel=1e-6)


@pytest.fixture(scope="module")
def resnet101():
    model = create_model("deeplabv2", 19, width=0.125)
    return jax.eval_shape(model.init, jax.random.key(0))[0]


@pytest.mark.parametrize(
    ("affine", "unique", "entries"), [("stem_frozen", 310, 940), ("frozen", 104, 314)]
)
def test_the_backbone_is_listed_as_in_maxsquare_and_advent(
    resnet101, affine, unique, entries
):
    model, tree = create_model("deeplabv2", 19, affine=affine), resnet101
    never = [(pattern, "0") for pattern in (*model.frozen, model.heads)]
    table = [*never, *((pattern, str(k)) for pattern, k in model.visits)]
    times = [int(k) for k in jax.tree.leaves(first_match(tree, table, "1"))]
    assert sum(k > 0 for k in times) == unique
    assert sum(times) == entries


DUPLICATES = ["dedup", "sequential", "legacy_inplace"]
ALL_ROWS = [*({**SGD, "duplicates": name} for name in DUPLICATES), ADAM, ADAMW]


@pytest.mark.parametrize("row", ALL_ROWS, ids=lambda r: r.get("duplicates", r["name"]))
def test_what_the_loss_does_not_reach_does_not_decay(row):
    optimizer, _ = make_optimizer(row, CONSTANT, steps=3, model=DEEPLAB)
    kernel = jnp.array([[2.0, 3.0]])
    layers = {name: {"conv1": {"kernel": kernel}} for name in ("layer1_0", "layer1_1")}
    tree = {"segmentor": {"aux_head": {"kernel": kernel}, "backbone": layers}}
    none = jax.tree.map(jnp.zeros_like, tree)
    some = jax.tree.map(jnp.zeros_like, tree)
    some["segmentor"]["backbone"]["layer1_0"]["conv1"]["kernel"] = jnp.array([[0.0, 1]])
    (start, state), (one, _) = (
        run(optimizer, tree, [none]),
        run(optimizer, tree, [some]),
    )
    jax.tree.map(np.testing.assert_array_equal, start, tree)
    layer = one["segmentor"]["backbone"]["layer1_0"]["conv1"]["kernel"]
    assert (layer < kernel).all()  # the element without a gradient, by decay alone
    one["segmentor"]["backbone"]["layer1_0"]["conv1"]["kernel"] = kernel
    jax.tree.map(np.testing.assert_array_equal, one, tree)
    # Once used, it decays in steps without a gradient too.
    later, _ = run(optimizer, tree, [some, none])
    assert (later["segmentor"]["backbone"]["layer1_0"]["conv1"]["kernel"] < layer).all()
    flags = [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == bool]
    assert len(flags) == 3
    assert not any(flags)


def test_frozen_parameters_get_no_step_no_decay_and_no_state():
    frozen = BISENET._replace(frozen=(r"ffm/",))
    optimizer, _ = make_optimizer(SGD, CONSTANT, steps=2, model=frozen)
    tree = params()
    whole = make_optimizer(SGD, CONSTANT, steps=2, model=BISENET)[0].init(tree)
    assert len(jax.tree.leaves(optimizer.init(tree))) < len(jax.tree.leaves(whole))
    updates, _ = optimizer.update(sines(tree, 0), optimizer.init(tree), tree)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert np.any(update != 0) == ("ffm" not in str(path)), path


DISCRIMINATOR = {"optimizer": {**ADAM, "learning_rate": 0.03}, "schedule": LINEAR}


def test_discriminators_have_an_optimizer_and_a_schedule_of_their_own():
    optimizer, rate = make_optimizer(
        SGD, CONSTANT, steps=3, model=BISENET, discriminator=DISCRIMINATOR
    )
    assert float(rate(2)) == pytest.approx(0.1)
    tree = {**params(), **discriminators()}
    result, _ = run(optimizer, tree, [sines(tree, t) for t in range(3)])
    jax.tree.map(np.testing.assert_array_equal, result["segmentor"], ours(SGD))
    p = np.asarray(tree["discriminator"]["main"]["kernel"], np.float64)
    rates = [0.03, 0.02, 0.01]
    wanted = torch_adam(p, lambda t: np.sin(p * (t + 1)), rates, 0.01)
    ours_now = result["discriminator"]["main"]["kernel"]
    np.testing.assert_allclose(ours_now, wanted, 1e-5, 1e-6)


@pytest.mark.parametrize("changed", ["segmentor", "discriminator"])
def test_the_gradients_of_one_network_leave_the_other_alone(changed):
    optimizer, _ = make_optimizer(
        SGD, LINEAR, steps=3, model=BISENET, discriminator=DISCRIMINATOR
    )
    tree = {**params(), **discriminators()}
    gradients = [sines(tree, t) for t in range(3)]
    other = [
        {**g, changed: jax.tree.map(lambda x: 5 - 3 * x, g[changed])} for g in gradients
    ]
    before, _ = run(optimizer, tree, gradients)
    after, _ = run(optimizer, tree, other)
    (kept,) = tree.keys() - {changed}
    jax.tree.map(np.testing.assert_array_equal, before[kept], after[kept])
    for one, two in zip(
        jax.tree.leaves(before[changed]), jax.tree.leaves(after[changed]), strict=True
    ):
        assert (one != two).all()


def make(row=SGD, schedule=CONSTANT, model=BISENET, discriminator=None):
    return make_optimizer(
        row, schedule, steps=2, model=model, discriminator=discriminator
    )[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, r"^optimizer.learning_rate=0.0 must be above 0"),
        ({"weight_decay": -1e-4}, r"weight_decay=-0.0001 must be at least 0"),
        ({"momentum": 1.0}, r"momentum=1.0 must be at least 0 and below 1"),
        ({"momentun": 0.9}, r'did you mean "momentum"'),
        ({"momentum": "high"}, r"momentum='high' .* must be a number"),
        ({"decay_of": "kernel"}, r'no decay_of "kernel" \(did you mean "kernels"'),
        ({"duplicates": "legacy"}, r"choose one of dedup, sequential, legacy_inplace"),
        ({"duplicates": "sequential"}, r'set it to "dedup", or take deeplabv2'),
    ],
)
def test_mistakes_in_the_row(options, message):
    with pytest.raises(UserError, match=message):
        make({**SGD, **options})


def test_rows_name_a_rate_and_a_decay():
    with pytest.raises(UserError, match="needs learning_rate and weight_decay: add"):
        make({"name": "adam"})


def test_a_network_without_heads_cannot_multiply_their_rate():
    with pytest.raises(UserError, match=r"head_multiplier=10\.0, but this network"):
        make({**SGD, "head_multiplier": 10.0}, model=BISENET._replace(heads=""))


def test_mistakes_in_the_sections():
    with pytest.raises(UserError, match='"polly" is unknown'):
        make(schedule={"name": "polly"})
    with pytest.raises(UserError, match="has the keys optimizer: give it"):
        make(discriminator={"optimizer": ADAM})
    bad = {**ADAM, "learning_rate": -1.0}
    with pytest.raises(UserError, match=r"^discriminator.optimizer.learning_rate=-1"):
        make(discriminator={"optimizer": bad, "schedule": CONSTANT})
    heads = {**ADAM, "head_multiplier": 10.0}
    with pytest.raises(UserError, match="leave both out"):
        make(discriminator={"optimizer": heads, "schedule": CONSTANT})
    with pytest.raises(UserError, match=r"has discriminators, and .* is empty"):
        make().init({**params(), **discriminators()})
    with pytest.raises(UserError, match="is given, and the method has no"):
        make(discriminator=DISCRIMINATOR).init(params())
