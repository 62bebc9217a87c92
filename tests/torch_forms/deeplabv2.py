"""DeepLabV2-ResNet101 of AdaptSegNet, ADVENT, IntraDA and MaxSquare (multi-level).

The four branches are summed, as ADVENT does, and the affine parameters of BatchNorm
are frozen.
"""

import torch.nn.functional as F
from torch import nn


def norm(channels):
    layer = nn.BatchNorm2d(channels)
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(False)
    return layer


class Bottleneck(nn.Module):
    """1x1 with the stride, 3x3 with the dilation, 1x1 to four times the channels."""

    def __init__(self, channels_in, channels, stride, dilation, project):
        super().__init__()
        out = 4 * channels
        self.conv1 = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, out, 1, bias=False)
        self.bn3 = norm(out)
        self.downsample = None
        if project:
            shortcut = nn.Conv2d(channels_in, out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, norm(out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        if self.downsample is not None:
            x = self.downsample(x)
        return F.relu(y + x, inplace=True)


class Classifier(nn.Module):
    """Sum of four dilated 3x3 convolutions."""

    def __init__(self, channels_in, num_classes):
        super().__init__()
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(channels_in, num_classes, 3, padding=d, dilation=d)
            for d in (6, 12, 18, 24)
        )

    def forward(self, x):
        return sum(branch(x) for branch in self.conv2d_list)


class DeepLabV2(nn.Module):
    """[B, 3, H, W] -> (logits, logits of layer3), each [B, C, H, W]."""

    def __init__(self, num_classes, blocks=(3, 4, 23, 3)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = norm(64)
        channels_in = 64
        strides, dilations = (1, 2, 1, 1), (1, 1, 2, 4)
        for stage, count in enumerate(blocks):
            layer = nn.Sequential()
            for i in range(count):
                layer.append(
                    Bottleneck(
                        channels_in,
                        64 * 2**stage,
                        strides[stage] if i == 0 else 1,
                        dilations[stage],
                        project=i == 0,
                    )
                )
                channels_in = 256 * 2**stage
            setattr(self, f"layer{stage + 1}", layer)
        self.layer5 = Classifier(1024, num_classes)
        self.layer6 = Classifier(2048, num_classes)

    def forward(self, x):
        size = x.shape[2:]
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        layer3 = self.layer3(self.layer2(self.layer1(x)))
        low = self.layer6(self.layer4(layer3)), self.layer5(layer3)
        return tuple(
            F.interpolate(z, size, mode="bilinear", align_corners=True) for z in low
        )
