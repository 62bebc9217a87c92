import dataclasses
import os

import pytest

from uda_jax.data.dataset import make_dataset
from uda_jax.data.fingerprint import fingerprint
from uda_jax.errors import UserError


def listed(folder, count=3, *, labels=True, **options):
    """A dataset of files that nobody has to decode."""
    folder.mkdir(exist_ok=True)
    paths = {"image": [], "label": []}
    for kind, files in paths.items():
        for i in range(count):
            path = folder / f"{i}_{kind}.png"
            if not path.exists():
                path.write_bytes(b"x" * (i + 1))
                os.utime(path, (0, 1000 + i))
            files.append(path)
    return make_dataset(
        "crosscity13",
        "cityscapes",
        folder,
        [str(i) for i in range(count)],
        paths["image"],
        paths["label"] if labels else None,
        **options,
    )


def test_the_same_files_give_the_same_digits_wherever_they_are(tmp_path):
    first, second = listed(tmp_path / "a"), listed(tmp_path / "b")
    assert fingerprint(first) == fingerprint(second) == fingerprint(first)
    assert len(fingerprint(first)) == 16
    assert int(fingerprint(first), 16) >= 0


def test_parts_of_a_second_do_not_matter(tmp_path):
    dataset = listed(tmp_path / "a")
    before = fingerprint(dataset)
    os.utime(dataset.store.images[0], ns=(0, 1000 * 10**9 + 5 * 10**8))
    assert fingerprint(dataset) == before


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_file_changes_the_digits(tmp_path, kind, change):
    dataset = listed(tmp_path / "a")
    whole, labels = fingerprint(dataset), fingerprint(dataset, labels_only=True)
    path = getattr(dataset.store, kind)[1]
    status = os.stat(path)
    if change == "size":
        with open(path, "ab") as file:
            file.write(b"y")
        os.utime(path, (0, status.st_mtime))
    else:
        os.utime(path, (0, status.st_mtime + 1))
    assert fingerprint(dataset) != whole
    assert (fingerprint(dataset, labels_only=True) != labels) == (kind == "labels")


def test_names_order_number_labels_and_format_matter(tmp_path):
    dataset = listed(tmp_path / "a")
    others = [
        dataset,
        dataset.select([1, 0, 2]),
        dataset.select([0, 1]),
        dataclasses.replace(dataset, names=("0", "1", "x")),
        listed(tmp_path / "a", labels=False),
        listed(tmp_path / "a", label_format="synthia"),
    ]
    assert len({fingerprint(other) for other in others}) == len(others)
    # The same bytes in another split of names and files.
    glued = dataclasses.replace(dataset, names=("01", "", "2"))
    assert fingerprint(glued) != fingerprint(dataset)


def test_a_prepared_dataset_has_the_fingerprint_of_its_files(tmp_path):
    @dataclasses.dataclass
    class Records:
        fingerprint: str = "0123456789abcdef"
        has_labels: bool = True

    dataset = dataclasses.replace(listed(tmp_path / "a"), store=Records())
    assert fingerprint(dataset) == "0123456789abcdef"
    parts = [dataset, dataclasses.replace(dataset, names=("0",))]
    digits = {fingerprint(part, labels_only=True) for part in parts}
    assert len(digits) == 2 and all(len(d) == 16 for d in digits)


def test_a_missing_file_is_named(tmp_path):
    dataset = listed(tmp_path / "a")
    os.remove(dataset.store.labels[2])
    with pytest.raises(UserError, match=r"2_label\.png cannot be found"):
        fingerprint(dataset)
