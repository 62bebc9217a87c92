"""Datasets of a few small labels that are in no file."""

import dataclasses

import numpy as np

from uda_jax.data.dataset import Dataset
from uda_jax.labels import CODINGS, LABEL_SPACES

SPACE = LABEL_SPACES["camvid11"]
SKY, CAR, PERSON = 0, 8, 9


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """A store that keeps pixels and notes what is decoded."""

    labels: tuple
    has_labels: bool = True
    decoded: list = dataclasses.field(default_factory=list)

    def image(self, index):
        self.decoded.append(index)
        return np.repeat(self.labels[index][..., None], 3, 2)

    def raw_label(self, index):
        return self.labels[index]

    def where(self, index):
        return f"image {index}", f"label {index}"


def dataset_of(*labels, has_labels=True):
    labels = tuple(np.asarray(label, np.uint8) for label in labels)
    names = tuple(map(str, range(len(labels))))
    return Dataset(SPACE, names, Memory(labels, has_labels), CODINGS["camvid"])


def plain(count, **options):
    return dataset_of(*(np.full((4, 6), i % 11) for i in range(count)), **options)


def with_pixels(**pixels):
    """A 10 x 10 label of sky whose first rows are other classes."""
    label = np.full(100, SKY)
    start = 0
    for name, count in pixels.items():
        label[start : start + count] = SPACE.classes.index(name)
        start += count
    return label.reshape(10, 10)


MIXED = (
    with_pixels(car=30, person=5),
    with_pixels(car=4, person=2),
    with_pixels(car=5),
    with_pixels(person=6),
)


def names(stream, count):
    return [stream[i]["name"] for i in range(count)]
