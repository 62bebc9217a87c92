"""Segmentation networks: `create_model("bisenet", 13)`."""

from uda_jax.factories import build
from uda_jax.models import bisenet, daformer, deeplabv2, segformer
from uda_jax.models.model import Model, Prediction

__all__ = ["MODELS", "Model", "Prediction", "create_model"]

MODELS = {
    "bisenet": bisenet.bisenet,
    "deeplabv2": deeplabv2.deeplabv2,
    "daformer": daformer.daformer,
    "segformer": segformer.segformer,
}


def create_model(
    name: str,
    num_classes: int,
    *,
    batch_norm: str = "train",
    compute_dtype: str = "float32",
    remat: bool = False,
    **options,
) -> Model:
    """The network of that name as a pair of pure functions.

    Args:
      name: a key of `MODELS`.
      num_classes: number of channels of the logits.
      batch_norm: "train", or "frozen": running statistics are used and kept even with
        train=True, while scales and biases still have gradients.
      compute_dtype: "float32" or "bfloat16", of the convolutions.
      remat: recompute blocks in the backward pass to save memory.
      **options: further keyword arguments of the network's factory.

    Raises:
      UserError: an unknown name, option or value.
    """
    row = {
        "name": name,
        "batch_norm": batch_norm,
        "compute_dtype": compute_dtype,
        "remat": remat,
        **options,
    }
    return build(MODELS, "model", row, num_classes)
