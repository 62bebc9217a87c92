"""The PyTorch forms that the benchmark compares with compute what our networks do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uda_jax import convert
from uda_jax.losses import cross_entropy
from uda_jax.models import create_model

torch = pytest.importorskip("torch", reason='PyTorch is in the extra "bench"')
import torch.nn.functional as F  # noqa: E402
from torch_forms import bisenet, daformer, deeplabv2  # noqa: E402

SIZE = (64, 96)

# Network, classes, options, PyTorch form, leaves whose gradients are compared.
CASES = [
    (
        "bisenet",
        13,
        {},
        bisenet.BiSeNet,
        ("cp.resnet.conv1.weight", "cp.resnet.layer4.0.bn1.weight", "sp.conv2.bn.bias"),
    ),
    (
        "deeplabv2",
        19,
        # With the batch's statistics float32 itself is 4 % from float64 in either form.
        {
            "branches": 4,
            "affine": "frozen",
            "input_form": "imagenet",
            "batch_norm": "frozen",
        },
        deeplabv2.DeepLabV2,
        (
            "conv1.weight",
            "layer1.0.conv2.weight",
            "layer3.5.conv2.weight",
            "layer4.0.downsample.0.weight",
            "layer5.conv2d_list.2.weight",
            "layer6.conv2d_list.3.bias",
        ),
    ),
    (
        "daformer",
        19,
        {"backbone": "mit_b0", "drop_path": 0.0, "dropout": 0.0},
        daformer.DAFormer,
        (
            "backbone.patch_embed1.proj.weight",
            "backbone.block1.0.attn.sr.weight",
            "backbone.block2.1.mlp.dwconv.dwconv.weight",
            "backbone.block4.1.attn.kv.bias",
            "decode_head.fuse_layer.aspp_modules.2.depthwise_conv.conv.weight",
            "decode_head.fuse_layer.bottleneck.bn.weight",
        ),
    ),
]


def assert_close(mine, theirs, tolerance):
    """Largest difference within `tolerance` of the largest value."""
    theirs = theirs.detach().numpy()
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("name, num_classes, options, form, leaves", CASES)
def test_same_logits_and_gradients(
    name, num_classes, options, form, leaves, monkeypatch
):
    # Neither side draws random numbers.
    monkeypatch.setattr(daformer, "DROPOUT", 0.0)
    monkeypatch.setattr(daformer, "DROP_PATH", 0.0)
    model = create_model(name, num_classes, **options)
    params, stats = model.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    # Scales of both signs, and statistics other than 0 and 1.
    params = jax.tree.map(
        lambda p: p * rng.choice((0.8, 1.2, -1.0), p.shape) if p.ndim == 1 else p,
        params,
    )
    stats = jax.tree.map(lambda s: s + rng.uniform(0, 0.3, s.shape), stats)
    params, stats = jax.tree.map(jnp.float32, (params, stats))
    net = form(num_classes)
    tensors = convert.to_torch(params, stats, model.torch.to_torch)
    net.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})
    image = rng.standard_normal((2, *SIZE, 3)).astype(np.float32)
    label = rng.integers(0, num_classes, (2, *SIZE))
    channels_first = torch.from_numpy(image.transpose(0, 3, 1, 2))

    def heads(params, train):
        prediction, _ = model.forward(
            params, stats, image, train=train, rngs={"dropout": jax.random.key(1)}
        )
        return prediction.logits, *prediction.aux_logits

    def loss(params):
        return sum(cross_entropy(z, label) for z in heads(params, True))

    with torch.inference_mode():
        theirs = net.eval()(channels_first)
    for mine, their in zip(
        jax.jit(heads, static_argnums=1)(params, False), theirs, strict=True
    ):
        assert_close(mine, their.permute(0, 2, 3, 1), 1e-4)

    net.train(options.get("batch_norm") != "frozen")
    target = torch.from_numpy(label)
    sum(F.cross_entropy(z, target) for z in net(channels_first)).backward()
    theirs = dict(net.named_parameters())
    gradients = jax.jit(jax.grad(loss))(params)
    ours = convert.to_torch(gradients, stats, model.torch.to_torch)
    for leaf in leaves:
        assert_close(ours[leaf], theirs[leaf].grad, 1e-3)
    frozen = [k for k, p in theirs.items() if p.grad is None]
    assert all(not np.any(ours[k]) for k in frozen)
