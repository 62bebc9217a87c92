r"""DAFormer from Cityscapes to ACDC: night, fog, rain and snow.

    python -m uda_jax.main --config configs/daformer_acdc.py \
        --workdir runs/daformer_acdc

Hoyer, Dai, Van Gool, "DAFormer: Improving Network Architectures and Training Strategies
for Domain-Adaptive Semantic Segmentation", CVPR 2022.  Published: 55.4 mIoU on ACDC's
test images, by its server, the mean of three seeds of the student after the last step.
One RTX 2080 Ti with 11 GB trained it in 16 hours (recalled from the paper); `remat` is
for that.  Nothing of it has been run here, where neither the data nor the weights can
be had.

The file for the server:

    python -m uda_jax.submission --workdir runs/daformer_acdc \
        --output submissions/daformer_acdc

It starts from ImageNet's weights of the encoder, which have NVIDIA's non-commercial
licence: put mit_b5.pth into data/weights, or give its path: --config.init_from=FILE.
"""

from ml_collections import ConfigDict

from uda_jax.daformer_configs import published


def get_config() -> ConfigDict:
    return published("cityscapes_to_acdc")
