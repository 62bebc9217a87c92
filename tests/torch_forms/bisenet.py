"""BiSeNet V1 as TUFL trains it (Yan et al., T-ITS 2023; Yu et al., ECCV 2018)."""

import torch
import torch.nn.functional as F
from torch import nn


class AbsoluteBatchNorm(nn.BatchNorm2d):
    """InPlaceABN: xhat * (|weight| + eps) + bias, then LeakyReLU(0.01) or nothing."""

    def __init__(self, channels, activate=True):
        super().__init__(channels)
        self.activate = activate

    def forward(self, x):
        scale = self.weight.abs() + self.eps
        x = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            scale,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )
        return F.leaky_relu(x, 0.01, inplace=True) if self.activate else x


def conv(channels_in, channels_out, size, stride=1):
    padding = size // 2
    return nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False)


class ConvNorm(nn.Module):
    def __init__(self, channels_in, channels_out, size, stride=1):
        super().__init__()
        self.conv = conv(channels_in, channels_out, size, stride)
        self.bn = AbsoluteBatchNorm(channels_out)

    def forward(self, x):
        return self.bn(self.conv(x))


class BasicBlock(nn.Module):
    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.conv1 = conv(channels_in, channels_out, 3, stride)
        self.bn1 = AbsoluteBatchNorm(channels_out)
        self.conv2 = conv(channels_out, channels_out, 3)
        self.bn2 = AbsoluteBatchNorm(channels_out, activate=False)
        self.projects = stride != 1 or channels_in != channels_out
        if self.projects:
            self.downsample_conv = conv(channels_in, channels_out, 1, stride)
            self.downsample_bn = AbsoluteBatchNorm(channels_out, activate=False)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x))))
        if self.projects:
            x = self.downsample_bn(self.downsample_conv(x))
        return F.relu(x + y, inplace=True)


class ResNet18(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = conv(3, 64, 7, 2)
        self.bn1 = AbsoluteBatchNorm(64)
        channels = 64
        for stage in range(4):
            wanted = 64 * 2**stage
            first = BasicBlock(channels, wanted, 2 if stage else 1)
            blocks = nn.Sequential(first, BasicBlock(wanted, wanted, 1))
            setattr(self, f"layer{stage + 1}", blocks)
            channels = wanted

    def forward(self, x):
        x = F.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1)
        stride8 = self.layer2(self.layer1(x))
        stride16 = self.layer3(stride8)
        return stride8, stride16, self.layer4(stride16)


class AttentionRefinement(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = ConvNorm(channels, 128, 3)
        self.conv_atten = conv(128, 128, 1)
        self.bn_atten = AbsoluteBatchNorm(128, activate=False)

    def forward(self, x):
        x = self.conv(x)
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(mean)))


class ContextPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256)
        self.arm32 = AttentionRefinement(512)
        self.conv_head32 = ConvNorm(128, 128, 3)
        self.conv_head16 = ConvNorm(128, 128, 3)
        self.conv_avg = ConvNorm(512, 128, 1)

    def forward(self, x):
        stride8, stride16, stride32 = self.resnet(x)
        mean = self.conv_avg(stride32.mean((2, 3), keepdim=True))
        sum32 = self.arm32(stride32) + mean
        context16 = self.conv_head32(F.interpolate(sum32, stride16.shape[2:]))
        sum16 = self.arm16(stride16) + context16
        return self.conv_head16(F.interpolate(sum16, stride8.shape[2:])), context16


class SpatialPath(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvNorm(3, 64, 7, 2)
        self.conv2 = ConvNorm(64, 64, 3, 2)
        self.conv3 = ConvNorm(64, 64, 3, 2)
        self.conv_out = ConvNorm(64, 128, 1)

    def forward(self, x):
        return self.conv_out(self.conv3(self.conv2(self.conv1(x))))


class FeatureFusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.convblk = ConvNorm(256, 256, 1)
        self.conv1 = conv(256, 64, 1)
        self.conv2 = conv(64, 256, 1)

    def forward(self, spatial, context):
        x = self.convblk(torch.cat([spatial, context], 1))
        attention = self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(attention) + x


class Head(nn.Module):
    def __init__(self, channels_in, channels, num_classes):
        super().__init__()
        self.conv = ConvNorm(channels_in, channels, 3)
        self.conv_out = conv(channels, num_classes, 1)

    def forward(self, x, size):
        x = self.conv_out(self.conv(x))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class BiSeNet(nn.Module):
    """[B, 3, H, W] -> (logits, logits at stride 8, at stride 16), each [B, C, H, W]."""

    def __init__(self, num_classes):
        super().__init__()
        self.cp = ContextPath()
        self.sp = SpatialPath()
        self.ffm = FeatureFusion()
        self.conv_out = Head(256, 256, num_classes)
        self.conv_out16 = Head(128, 64, num_classes)
        self.conv_out32 = Head(128, 64, num_classes)

    def forward(self, x):
        size = x.shape[2:]
        context8, context16 = self.cp(x)
        fused = self.ffm(self.sp(x), context8)
        return (
            self.conv_out(fused, size),
            self.conv_out16(context8, size),
            self.conv_out32(context16, size),
        )
