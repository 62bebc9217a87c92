"""The readers: random-access datasets over files as they were downloaded or prepared.

A reader only lists files; `Dataset` decodes one image, and its label, when it is asked
for it.  `SOURCES` maps the names that configs use to the readers.

A dataset opened with `labels=False` never looks for label files: its items have no
"label", so that none can leak into training, and the files need not exist.
"""

from collections.abc import Callable

from uda_jax.data.adverse import acdc, dark_zurich
from uda_jax.data.cities import camvid, crosscity, parking
from uda_jax.data.cityscapes import cityscapes, cityscapes_weather
from uda_jax.data.dataset import Dataset
from uda_jax.data.own import folder, manifest
from uda_jax.data.prepared import prepared
from uda_jax.data.synthetic import gta5, synthia
from uda_jax.data.tfds_cityscapes import tfds_cityscapes

SOURCES: dict[str, Callable[..., Dataset]] = {
    "cityscapes": cityscapes,
    "cityscapes_weather": cityscapes_weather,
    "gta5": gta5,
    "synthia": synthia,
    "crosscity": crosscity,
    "acdc": acdc,
    "dark_zurich": dark_zurich,
    "parking": parking,
    "camvid": camvid,
    "folder": folder,
    "manifest": manifest,
    "prepared": prepared,
    "tfds_cityscapes": tfds_cityscapes,
}
