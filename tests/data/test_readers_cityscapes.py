import pytest
from small_files import ids, image, refused, values, write

from uda_jax.data.sources import cityscapes, cityscapes_weather

SPACE = dict(label_space="cityscapes19")
FRAMES = ("aachen_000000_000019", "aachen_000001_000019", "ulm_000000_000019")


@pytest.fixture
def towns(tmp_path):
    for i, frame in enumerate(FRAMES):
        town = frame.split("_")[0]
        write(tmp_path / f"leftImg8bit/train/{town}/{frame}_leftImg8bit.png", image())
        label = tmp_path / f"gtFine/train/{town}/{frame}_gtFine_labelIds.png"
        write(label, ids((7, 26, 33)[i]))
        write(label.with_name(f"{frame}_gtFine_labelTrainIds.png"), ids(i))
    return tmp_path


def test_cityscapes_in_both_forms_of_labels(towns):
    assert values(cityscapes(towns, **SPACE)) == [0, 13, 18]
    assert values(cityscapes(towns, **SPACE, label_files="train_ids")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "other", "ending"),
    [
        ("label_ids", "train_ids", "labelIds"),
        ("train_ids", "label_ids", "labelTrainIds"),
    ],
)
def test_cityscapes_labels_of_the_other_form(towns, kind, other, ending):
    for path in towns.rglob(f"*_{ending}.png"):
        path.unlink()
    refused(
        lambda: cityscapes(towns, **SPACE, label_files=kind),
        f'label_files="{kind}"',
        f"*_gtFine_{ending}.png",
        f'set label_files="{other}"',
    )
    assert len(cityscapes(towns, **SPACE, label_files=kind, labels=False)) == 3
    assert len(cityscapes(towns, **SPACE, label_files=other)) == 3


def test_unknown_form_of_labels(towns):
    refused(
        lambda: cityscapes(towns, **SPACE, label_files="trainids"),
        'did you mean "train_ids"',
    )


def test_cityscapes_in_another_style(towns):
    for frame in FRAMES:
        town = frame.split("_")[0]
        path = towns / f"leftImg8bit/train_Rome/{town}/{frame}_leftImg8bit.png"
        write(path, image(value=(3, 2, 1)))
    rome = cityscapes(towns, **SPACE, split="train_Rome")
    assert rome.names == FRAMES and values(rome) == [0, 13, 18]
    assert rome[0]["image"][0, 0].tolist() == [1, 2, 3]


def test_train_extra_is_read_without_labels_only(towns):
    path = "leftImg8bit/train_extra/bonn/bonn_000000_000019_leftImg8bit.png"
    write(towns / path, image())
    extra = dict(**SPACE, split="train_extra")
    refused(lambda: cityscapes(towns, **extra), "coarse labels", "labels=False")
    assert len(cityscapes(towns, **extra, labels=False)) == 1


def test_linked_towns_are_read(towns, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "ulm"
    (towns / "leftImg8bit/train/ulm").rename(elsewhere)
    (towns / "leftImg8bit/train/ulm").symlink_to(elsewhere)
    assert cityscapes(towns, **SPACE).names == FRAMES


def test_split_without_labels(towns):
    path = towns / "leftImg8bit/test/bonn/bonn_000000_000019_leftImg8bit.png"
    write(path, image())
    refused(
        lambda: cityscapes(towns, **SPACE, split="test"),
        f"label folder {towns / 'gtFine/test'} does not exist",
        "unpack them there or choose a split",
    )
    assert len(cityscapes(towns, **SPACE, split="test", labels=False)) == 1


@pytest.fixture
def weather(towns):
    for beta in ("0.005", "0.01", "0.02"):
        for frame in FRAMES[:2]:
            name = f"aachen/{frame}_leftImg8bit_foggy_beta_{beta}.png"
            write(towns / "leftImg8bit_foggy/train" / name, image())
    for pattern in (1, 12):
        name = f"{FRAMES[2]}_leftImg8bit_rain_alpha_0.03_beta_0.015_pattern_{pattern}"
        write(towns / f"leftImg8bit_rain/train/ulm/{name}.png", image())
    return towns


def test_fog_and_rain_one_after_the_other(weather):
    both = cityscapes_weather(weather, **SPACE)
    assert len(both) == 8 and values(both) == [0, 0, 0, 13, 13, 13, 18, 18]
    assert both.names[0] == "aachen_000000_000019_foggy_beta_0.005"
    assert both.names[-1] == f"{FRAMES[2]}_rain_alpha_0.03_beta_0.015_pattern_12"
    rain = cityscapes_weather(weather, **SPACE, weather=("rain",))
    assert rain.names == both.names[6:]
    trained = cityscapes_weather(weather, **SPACE, label_files="train_ids")
    assert values(trained) == [0, 0, 0, 1, 1, 1, 2, 2]


def test_densities_of_the_fog(weather):
    thick = cityscapes_weather(weather, **SPACE, weather=("foggy",), betas=(0.02,))
    assert thick.names == tuple(f"{frame}_foggy_beta_0.02" for frame in FRAMES[:2])
    assert len(cityscapes_weather(weather, **SPACE, betas=(0.005, 0.01))) == 6
    refused(
        lambda: cityscapes_weather(weather, **SPACE, betas=(0.02, 0.05)),
        "beta=0.05",
        "choose betas of 0.005, 0.01, 0.02",
    )


def test_weather_that_is_none(weather):
    def read(**options):
        return lambda: cityscapes_weather(weather, **SPACE, **options)

    refused(read(weather=("fog",)), 'did you mean "foggy"')
    refused(read(weather="rain"), 'weather "rain" is one string', '("rain",)')
    refused(read(weather=("rain", "rain")), "given twice")
    refused(read(weather=("rain",), betas=(0.02,)), "leaves nothing")
    refused(read(weather=()), "leaves nothing")
    refused(read(split="test"), "choose one of train")
    write(weather / "leftImg8bit_rain/train/ulm/other.png", image())
    refused(read(), "other.png is not named <frame>_leftImg8bit_rain_")
