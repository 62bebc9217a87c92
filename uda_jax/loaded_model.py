"""A network from a file in one line: `uda_jax.load_model("daformer.safetensors")`."""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from uda_jax.augment import normalize
from uda_jax.errors import UserError
from uda_jax.labels import LabelSpace
from uda_jax.models import MODELS, Model, Prediction
from uda_jax.models.model import PyTree
from uda_jax.weights import Weights, load_weights_file


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network that is ready to be called.

    Attributes:
      model: the pair of pure functions.
      params, batch_stats: its weights, on the default device.
      num_classes: C of the logits.
      label_space: what the classes are, or None where nobody said it.
    """

    model: Model
    params: PyTree
    batch_stats: PyTree
    num_classes: int
    label_space: LabelSpace | None

    def __call__(self, images: np.ndarray) -> Prediction:
        """uint8 [B, H, W, 3] RGB -> Prediction with logits [B, H, W, C] float32.

        Normalised by `augment.normalize`; compiled once for each size.

        Raises:
          UserError: images of another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise UserError(
                "the network takes images as uint8 [B, H, W, 3] RGB; these are "
                f"{images.dtype} {list(images.shape)}."
            )
        return _predict(self.model, self.params, self.batch_stats, images)


@partial(jax.jit, static_argnums=0)
def _predict(model, params, batch_stats, images):
    return model.forward(params, batch_stats, normalize(images), train=False)[0]


def load_model(path: str | os.PathLike, /, **how: Any) -> LoadedModel:
    """A network from a file or a workdir, ready to be called.

        model = uda_jax.load_model("daformer.safetensors")
        ids = model(images).logits.argmax(-1)  # images: uint8 [B, H, W, 3] RGB

    Args:
      path: a converted file (.safetensors with its .json), a run's workdir (its latest
        checkpoint), or a file of PyTorch's of a known kind.
      **how: for a file of PyTorch's, the arguments of `load_weights_file`, among them
        the network's options (`branches=2`).

    Raises:
      UserError: see `load_weights_file`.
    """
    return ready(load_weights_file(path, **how))


def ready(weights: Weights) -> LoadedModel:
    """The same network to be called.

    Raises:
      UserError: it is a discriminator, which takes no images.
    """
    if weights.name not in MODELS:
        raise UserError(
            f"a {weights.name} takes probabilities instead of images: load it with "
            "weights.load_weights_file."
        )
    params, batch_stats = jax.device_put((weights.params, weights.batch_stats))
    return LoadedModel(
        weights.model, params, batch_stats, weights.num_classes, weights.space
    )
