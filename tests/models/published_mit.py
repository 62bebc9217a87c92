"""The originals' tensors: names and shapes by the papers, values in closed form."""

import numpy as np

WIDE = (64, 128, 320, 512)
VARIANTS = {  # channels, blocks, tensors and parameters of the encoder
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2), 176, 3_319_392),
    "mit_b1": (WIDE, (2, 2, 2, 2), 176, 13_151_424),
    "mit_b2": (WIDE, (3, 4, 6, 3), 332, 24_196_288),
    "mit_b3": (WIDE, (3, 4, 18, 3), 572, 44_072_128),
    "mit_b4": (WIDE, (3, 8, 27, 3), 832, 60_842_688),
    "mit_b5": (WIDE, (3, 6, 40, 3), 1052, 81_443_008),
}


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def conv_bn(name, out, channels_in, size):
    running = {f"{name}.bn.running_{key}": (out,) for key in ("mean", "var")}
    kernel = {f"{name}.conv.weight": (out, channels_in, size, size)}
    return kernel | layer(f"{name}.bn", out) | running


def encoder_shapes(variant):
    shapes, before = {}, 3
    channels, blocks, *_ = VARIANTS[variant]
    for s, (d, count, reduction) in enumerate(
        zip(channels, blocks, (8, 4, 2, 1), strict=True), start=1
    ):
        size = 3 if s > 1 else 7
        shapes |= layer(f"patch_embed{s}.proj", d, before, size, size)
        shapes |= layer(f"patch_embed{s}.norm", d)
        for i in range(count):
            block = f"block{s}.{i}"
            shapes |= layer(f"{block}.norm1", d) | layer(f"{block}.norm2", d)
            shapes |= layer(f"{block}.attn.q", d, d)
            shapes |= layer(f"{block}.attn.kv", 2 * d, d)
            shapes |= layer(f"{block}.attn.proj", d, d)
            if reduction > 1:
                shapes |= layer(f"{block}.attn.sr", d, d, reduction, reduction)
                shapes |= layer(f"{block}.attn.norm", d)
            shapes |= layer(f"{block}.mlp.fc1", 4 * d, d)
            shapes |= layer(f"{block}.mlp.dwconv.dwconv", 4 * d, 1, 3, 3)
            shapes |= layer(f"{block}.mlp.fc2", d, 4 * d)
        shapes |= layer(f"norm{s}", d)
        before = d
    return shapes


def daformer_shapes(variant, num_classes=19):
    shapes = {f"backbone.{k}": v for k, v in encoder_shapes(variant).items()}
    for i, d in enumerate(VARIANTS[variant][0]):
        shapes |= layer(f"decode_head.embed_layers.{i}.proj", 256, d)
    fuse = "decode_head.fuse_layer"
    shapes |= conv_bn(f"{fuse}.aspp_modules.0", 256, 1024, 1)
    for i in (1, 2, 3):
        branch = f"{fuse}.aspp_modules.{i}"
        shapes |= conv_bn(f"{branch}.depthwise_conv", 1024, 1, 3)
        shapes |= conv_bn(f"{branch}.pointwise_conv", 256, 1024, 1)
    shapes |= conv_bn(f"{fuse}.bottleneck", 256, 1024, 3)
    return shapes | layer("decode_head.conv_seg", num_classes, 256, 1, 1)


def segformer_shapes(variant, channels, num_classes=19):
    shapes = {f"backbone.{k}": v for k, v in encoder_shapes(variant).items()}
    for i, d in enumerate(VARIANTS[variant][0]):
        shapes |= layer(f"decode_head.linear_c.{i}.proj", channels, d)
    shapes |= conv_bn("decode_head.linear_fuse", channels, 4 * channels, 1)
    shapes |= layer("decode_head.linear_pred", num_classes, channels, 1, 1)
    return shapes | layer("decode_head.conv_seg", num_classes, 128, 1, 1)


def tensors(shapes):
    """The goldens' weights: sin(0.37 j + 0.11 (sum of the name's bytes mod 97))."""
    made = {}
    for name, shape in shapes.items():
        phase = 0.11 * (sum(name.encode()) % 97)
        s = np.sin(0.37 * np.arange(np.prod(shape)) + phase).reshape(shape)
        if name.endswith("running_var"):
            s = 1 + 0.2 * s**2
        elif name.endswith("running_mean"):
            s = 0.05 * s
        elif len(shape) > 1:
            s = s / np.sqrt(np.prod(shape[1:]))
        else:
            s = 1 + 0.1 * s if name.endswith("weight") else 0.02 * s
        made[name] = s.astype(np.float32)
    return made


def image(batch, height, width):
    """The goldens' input, [B, H, W, 3]."""
    b, i, j, c = np.ogrid[:batch, :height, :width, :3]
    waves = np.sin(0.05 * (i + 1) * (c + 1) + 0.7 * b) + np.cos(
        0.03 * (j + 1) * (c + 2)
    )
    return waves.astype(np.float32)
