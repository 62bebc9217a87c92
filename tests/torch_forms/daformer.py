"""Mix Transformer and the DAFormer head (Hoyer et al., CVPR 2022; Xie et al., 2021)."""

import torch
import torch.nn.functional as F
from torch import nn

VARIANTS = {  # embedding dimensions, depths
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
HEADS, REDUCTIONS = (1, 2, 5, 8), (8, 4, 2, 1)
DROP_PATH, DROPOUT, MLP_RATIO = 0.1, 0.1, 4


def to_map(tokens, size):
    return tokens.transpose(1, 2).unflatten(2, size)


def to_tokens(x):
    return x.flatten(2).transpose(1, 2)


class PatchEmbed(nn.Module):
    def __init__(self, channels_in, channels, size, stride):
        super().__init__()
        self.proj = nn.Conv2d(channels_in, channels, size, stride, size // 2)
        self.norm = nn.LayerNorm(channels, eps=1e-5)

    def forward(self, x):
        x = self.proj(x)
        return self.norm(to_tokens(x)), x.shape[2:]


class Attention(nn.Module):
    def __init__(self, channels, heads, reduction):
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, reduction)
            self.norm = nn.LayerNorm(channels, eps=1e-5)

    def forward(self, x, size):
        few = x
        if self.reduction > 1:
            few = self.norm(to_tokens(self.sr(to_map(x, size))))
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        kv = self.kv(few).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, kv[0], kv[1])
        return self.proj(y.transpose(1, 2).flatten(2))


class DepthwiseConv(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x, size):
        return to_tokens(self.dwconv(to_map(x, size)))


class MixFFN(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.dwconv = DepthwiseConv(MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)

    def forward(self, x, size):
        return self.fc2(F.gelu(self.dwconv(self.fc1(x), size)))


class Block(nn.Module):
    def __init__(self, channels, heads, reduction, drop_path):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = Attention(channels, heads, reduction)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = MixFFN(channels)

    def drop(self, x):
        if not self.training or self.drop_path == 0:
            return x
        keep = 1 - self.drop_path
        return x * (torch.rand(len(x), 1, 1) < keep).to(x.dtype) / keep

    def forward(self, x, size):
        x = x + self.drop(self.attn(self.norm1(x), size))
        return x + self.drop(self.mlp(self.norm2(x), size))


class MixTransformer(nn.Module):
    """[B, 3, H, W] -> four maps at strides 4, 8, 16 and 32."""

    def __init__(self, variant):
        super().__init__()
        channels, self.depths = VARIANTS[variant]
        rates = iter(torch.linspace(0, DROP_PATH, sum(self.depths)).tolist())
        for s in range(4):
            size, stride, before = (3, 2, channels[s - 1]) if s else (7, 4, 3)
            embed = PatchEmbed(before, channels[s], size, stride)
            blocks = nn.ModuleList(
                Block(channels[s], HEADS[s], REDUCTIONS[s], next(rates))
                for _ in range(self.depths[s])
            )
            setattr(self, f"patch_embed{s + 1}", embed)
            setattr(self, f"block{s + 1}", blocks)
            setattr(self, f"norm{s + 1}", nn.LayerNorm(channels[s], eps=1e-6))

    def forward(self, x):
        maps = []
        for s in range(1, 5):
            x, size = getattr(self, f"patch_embed{s}")(x)
            for block in getattr(self, f"block{s}"):
                x = block(x, size)
            x = to_map(getattr(self, f"norm{s}")(x), size)
            maps.append(x)
        return maps


class ConvNorm(nn.Module):
    def __init__(self, channels_in, channels_out, size, dilation=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in,
            channels_out,
            size,
            padding=dilation * (size // 2),
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class SeparableConv(nn.Module):
    def __init__(self, channels_in, channels_out, dilation):
        super().__init__()
        self.depthwise_conv = ConvNorm(
            channels_in, channels_in, 3, dilation, groups=channels_in
        )
        self.pointwise_conv = ConvNorm(channels_in, channels_out, 1)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


class Pyramid(nn.Module):
    def __init__(self, channels_in, channels):
        super().__init__()
        self.aspp_modules = nn.ModuleList([ConvNorm(channels_in, channels, 1)])
        for dilation in (6, 12, 18):
            self.aspp_modules.append(SeparableConv(channels_in, channels, dilation))
        self.bottleneck = ConvNorm(4 * channels, channels, 3)

    def forward(self, x):
        return self.bottleneck(torch.cat([m(x) for m in self.aspp_modules], 1))


class Embed(nn.Module):
    def __init__(self, channels_in, channels):
        super().__init__()
        self.proj = nn.Linear(channels_in, channels)

    def forward(self, x):
        return to_map(self.proj(to_tokens(x)), x.shape[2:])


class DAFormerHead(nn.Module):
    """Four maps -> logits at stride 4."""

    def __init__(self, channels_in, num_classes, channels=256):
        super().__init__()
        self.embed_layers = nn.ModuleList(Embed(c, channels) for c in channels_in)
        self.fuse_layer = Pyramid(4 * channels, channels)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps):
        maps = [embed(x) for embed, x in zip(self.embed_layers, maps, strict=True)]
        size = maps[0].shape[2:]
        maps[1:] = [F.interpolate(x, size, mode="bilinear") for x in maps[1:]]
        x = self.fuse_layer(torch.cat(maps, 1))
        return self.conv_seg(F.dropout2d(x, DROPOUT, self.training))


class DAFormer(nn.Module):
    """[B, 3, H, W] -> (logits [B, C, H, W],)."""

    def __init__(self, num_classes, variant="mit_b0"):
        super().__init__()
        self.backbone = MixTransformer(variant)
        self.decode_head = DAFormerHead(VARIANTS[variant][0], num_classes)

    def forward(self, x):
        logits = self.decode_head(self.backbone(x))
        return (F.interpolate(logits, x.shape[2:], mode="bilinear"),)
