"""tensorflow-datasets builders, one for each data set, that store prepared examples.

They take examples that are already encoded (`uda_jax.data.prepare` makes them), so that
no tensorflow is needed.  Each is a ShardBasedBuilder: a GeneratorBasedBuilder sorts its
examples in memory and, from one gigabyte on, through tensorflow's files.
"""

import contextlib
import dataclasses
import errno
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from uda_jax.data import prepared
from uda_jax.data.prepared import SPLIT, Description

# A file of 512 examples at 512 x 1024 has about 300 MB as PNG.
_SHARD = 512

Example = dict[str, Any]


@dataclasses.dataclass
class PreparedConfig(tfds.core.BuilderConfig):
    """One preparation of a data set.

    Attributes:
      contents: what goes into metadata.json.
      example: index -> the features of an example, images as paths of encoded files.
    """

    contents: Description | None = None
    example: Callable[[int], Example] | None = None


class _Info(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Asks no server for a set of this name, and leaves no temporary folder."""


class PreparedBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes the examples in their order; subclasses are the data sets."""

    VERSION = tfds.core.Version(prepared.VERSION)
    TITLE = ""

    def _info(self) -> tfds.core.DatasetInfo:
        found = self.builder_config.contents
        features = {
            "image": tfds.features.Image(encoding_format=found.format),
            "name": tfds.features.Text(),
        }
        if found.has_labels:
            shape = (None, None, 1)
            features["label"] = tfds.features.Image(shape=shape, encoding_format="png")
        if found.weights:
            features["weight"] = tfds.features.Scalar(dtype=np.float32)
        return _Info(
            builder=self,
            description=f"{self.TITLE}, prepared with {found.ops}; labels are raw ids.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(found.to_json()),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, Sequence[Callable]]:
        del dl_manager  # nothing is downloaded
        count = len(self.builder_config.contents.names)
        starts = range(0, count, _SHARD)
        return {
            SPLIT: [partial(self._shard, i, min(i + _SHARD, count)) for i in starts]
        }

    def _shard(self, start: int, stop: int) -> Iterator[tuple[int, Example]]:
        for index in range(start, stop):
            yield index, self.builder_config.example(index)


# Key of `uda_jax.data.sources.SOURCES` -> what it is.
DATA_SETS = {
    "cityscapes": "Cityscapes (CVPR 2016)",
    "cityscapes_weather": "Foggy Cityscapes (IJCV 2018), Rain Cityscapes (CVPR 2019)",
    "gta5": "Playing for Data: GTA5 (ECCV 2016)",
    "synthia": "SYNTHIA-RAND-CITYSCAPES (CVPR 2016)",
    "crosscity": "CrossCity, also NTHU (ICCV 2017)",
    "acdc": "ACDC (ICCV 2021)",
    "dark_zurich": "Dark Zurich (ICCV 2019)",
    "parking": "Bird's-eye views of parking lots (SS-ADA)",
    "camvid": "CamVid (ECCV 2008)",
    "folder": "Images and labels of a user's own folders",
    "manifest": "Images and labels of a user's own list",
    "tfds_cityscapes": "Cityscapes (CVPR 2016), from tensorflow-datasets",
}


def write_set(name: str, config: PreparedConfig, folder: Path) -> Path:
    """Writes the whole set `config` of the data set `name`; gives its folder.

    Args:
      name: key of `DATA_SETS`.
      config: what to write.
      folder: in which <name>/<name of config>/<version> is made.

    Raises:
      OSError: `folder` cannot be written.
    """
    fields = {"name": name, "TITLE": DATA_SETS[name], "BUILDER_CONFIGS": [config]}
    fields["__module__"] = __name__  # not that of the caller of __init_subclass__
    # Not registered: tensorflow-datasets has a `cityscapes` of its own.
    kind = type(name, (PreparedBuilder,), fields, skip_registration=True)
    builder = kind(config=config.name, data_dir=folder)
    # It would announce a download of unknown size.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            builder.download_and_prepare(file_format="array_record")
        except RuntimeError as error:
            if failure := _write_failure(error):
                raise failure from error
            raise
    return Path(builder.data_dir)


def _write_failure(error: RuntimeError) -> OSError | None:
    """The OSError behind an error of array_record's writer; None of another.

    It says "write() failed: No space left on device; writing PATH; at byte 0".
    """
    found = re.match(r"[a-z]+\(\) failed: ([^;]+);", str(error))
    if found is None:
        return None
    for number in errno.errorcode:
        if os.strerror(number) == found[1]:
            return OSError(number, found[1])
    return OSError(found[1])
