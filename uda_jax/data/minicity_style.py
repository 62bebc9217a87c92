"""The two cities of minicity in numbers: everything that makes up the domain gap.

`SOURCE` looks like a clean game, `TARGET` like a photograph of another city.  The gap
is tuned here and nowhere else; `dataclasses.replace(TARGET, haze=(0.0, 0.0))` is a
milder target.  Pairs are (low, high) of a uniform draw per image (or per object);
"mean" numbers are the expected count per image, drawn from a Poisson distribution.
"""

from dataclasses import dataclass

Color = tuple[int, int, int]  # RGB, 0 to 255
Pair = tuple[float, float]

# Cityscapes' raw label ids.  POLE is drawn but belongs to none of the 13 classes.
ROAD, SIDEWALK, BUILDING, POLE, LIGHT, SIGN, VEGETATION, SKY = (
    7,
    8,
    11,
    17,
    19,
    20,
    21,
    23,
)
PERSON, RIDER, CAR, BUS, MOTORCYCLE, BICYCLE = 24, 25, 26, 28, 32, 33

CLASS_IDS: dict[str, int] = {
    "road": ROAD,
    "sidewalk": SIDEWALK,
    "building": BUILDING,
    "traffic light": LIGHT,
    "traffic sign": SIGN,
    "vegetation": VEGETATION,
    "sky": SKY,
    "person": PERSON,
    "rider": RIDER,
    "car": CAR,
    "bus": BUS,
    "motorcycle": MOTORCYCLE,
    "bicycle": BICYCLE,
}


@dataclass(frozen=True)
class City:
    """All numbers of one city: camera, layout, frequencies, palette, photography."""

    name: str
    stream: int  # second word of the random seed, so that the cities differ

    # Camera.
    camera_height: Pair  # metres
    pitch: Pair  # degrees, positive looks down
    focal: Pair  # pixels at 512 columns
    camera_offset: Pair  # lateral place, in road widths from the middle

    # Layout, in metres.
    road_width: Pair
    sidewalk_width: Pair
    bend: float  # largest curvature, 1/metres
    junction_probability: float
    building_length: Pair
    floors: tuple[int, int]
    floor_height: Pair
    gap_probability: float  # a garden instead of a building
    facades: tuple[str, ...]

    # Frequencies.
    cars: float  # mean, driving
    parked_share: float  # share of parking places taken
    bus_probability: float
    persons: float  # mean
    cyclists: float  # mean
    motorcyclists: float  # mean
    parked_bicycles: float  # mean, in groups
    parked_motorcycles: float  # mean
    tree_spacing: Pair  # metres
    hedge_probability: float  # per side
    signs: float  # mean
    lights: float  # mean, besides those of junctions

    # Palette.
    walls: tuple[Color, ...]
    trims: tuple[Color, ...]
    roofs: tuple[Color, ...]
    glass: tuple[Color, ...]
    awnings: tuple[Color, ...]
    vehicles: tuple[Color, ...]
    buses: tuple[Color, ...]
    clothes: tuple[Color, ...]
    trousers: tuple[Color, ...]
    foliage: tuple[Color, ...]
    asphalt: tuple[Color, ...]
    paving: tuple[Color, ...]
    marking: Color
    signs_colors: tuple[Color, ...]
    sky_top: tuple[Color, ...]
    sky_horizon: tuple[Color, ...]

    # Light and photography; 0 switches an effect off.
    sun: float  # darkness of cast shadows and of walls that face away
    texture: float  # strength of surface texture
    wear: float  # cracks, patches, stains; lane markings fade with it
    haze: Pair  # extinction per metre
    exposure: Pair  # factor
    warmth: Pair  # red up, blue down
    saturation: Pair  # factor
    contrast: Pair  # factor around mid grey
    blur: Pair  # standard deviation, pixels
    vignette: Pair  # darkening in the corners
    noise: Pair  # standard deviation, grey levels
    jpeg_quality: tuple[int, int] | None
    hue_jitter: float  # how far an object's colour strays from its palette entry


SOURCE = City(
    name="source",
    stream=0,
    camera_height=(1.35, 1.65),
    pitch=(1.0, 3.0),
    focal=(370, 410),
    camera_offset=(0.18, 0.28),
    road_width=(10.5, 14.0),
    sidewalk_width=(3.2, 4.6),
    bend=0.004,
    junction_probability=0.45,
    building_length=(11, 20),
    floors=(3, 9),
    floor_height=(3.1, 3.5),
    gap_probability=0.08,
    facades=("grid", "bands", "curtain", "grid"),
    cars=4.0,
    parked_share=0.18,
    bus_probability=0.38,
    persons=6.0,
    cyclists=1.1,
    motorcyclists=0.9,
    parked_bicycles=1.3,
    parked_motorcycles=0.9,
    tree_spacing=(9, 16),
    hedge_probability=0.3,
    signs=2.6,
    lights=0.8,
    walls=(
        (238, 233, 222),
        (244, 196, 120),
        (232, 128, 98),
        (112, 178, 188),
        (150, 190, 132),
        (236, 220, 150),
        (176, 150, 196),
        (206, 214, 224),
    ),
    trims=((250, 250, 248), (64, 76, 96), (220, 224, 230)),
    roofs=((92, 104, 122), (150, 92, 78)),
    glass=((96, 158, 206), (122, 186, 222), (70, 122, 176)),
    awnings=((226, 74, 66), (36, 150, 136), (244, 178, 50), (62, 104, 190)),
    vehicles=(
        (224, 48, 44),
        (32, 108, 216),
        (250, 196, 28),
        (246, 246, 248),
        (40, 46, 58),
        (36, 172, 128),
        (242, 126, 36),
        (184, 192, 204),
    ),
    buses=((244, 176, 28), (222, 54, 50), (30, 132, 190)),
    clothes=(
        (228, 60, 80),
        (46, 120, 214),
        (250, 190, 50),
        (60, 178, 110),
        (150, 90, 200),
        (246, 246, 246),
        (240, 130, 60),
    ),
    trousers=((44, 60, 104), (70, 74, 84), (128, 96, 70), (36, 40, 50)),
    foliage=((76, 172, 70), (104, 188, 72), (56, 150, 84), (132, 196, 80)),
    asphalt=((96, 100, 110), (104, 106, 114)),
    paving=((198, 194, 188), (206, 198, 184)),
    marking=(248, 248, 246),
    signs_colors=((222, 40, 44), (30, 100, 210), (250, 206, 40)),
    sky_top=((58, 142, 240), (74, 158, 244)),
    sky_horizon=((186, 224, 252), (206, 234, 252)),
    sun=0.34,
    texture=0.0,
    wear=0.0,
    haze=(0.0006, 0.0012),
    exposure=(1.0, 1.05),
    warmth=(0.0, 0.02),
    saturation=(1.0, 1.1),
    contrast=(1.0, 1.05),
    blur=(0.0, 0.0),
    vignette=(0.0, 0.0),
    noise=(0.0, 0.0),
    jpeg_quality=None,
    hue_jitter=6.0,
)

TARGET = City(
    name="target",
    stream=1,
    camera_height=(1.9, 2.5),
    pitch=(4.0, 8.0),
    focal=(300, 345),
    camera_offset=(0.02, 0.2),
    road_width=(7.4, 9.8),
    sidewalk_width=(2.0, 3.2),
    bend=0.010,
    junction_probability=0.25,
    building_length=(5.0, 8.5),
    floors=(2, 4),
    floor_height=(2.8, 3.3),
    gap_probability=0.12,
    facades=("gable", "stepped", "mansard", "cornice", "gable", "cornice"),
    cars=2.0,
    parked_share=0.5,
    bus_probability=0.42,
    persons=9.0,
    cyclists=1.8,
    motorcyclists=1.5,
    parked_bicycles=2.0,
    parked_motorcycles=1.4,
    tree_spacing=(6, 12),
    hedge_probability=0.5,
    signs=3.0,
    lights=1.0,
    walls=(
        (138, 84, 66),
        (156, 104, 80),
        (178, 150, 118),
        (196, 182, 156),
        (122, 96, 86),
        (168, 132, 92),
        (150, 146, 138),
        (110, 74, 62),
    ),
    trims=((214, 206, 190), (196, 188, 172), (118, 104, 92)),
    roofs=((92, 66, 58), (70, 70, 76), (112, 74, 60)),
    glass=((62, 70, 78), (84, 92, 98), (48, 54, 60)),
    awnings=((112, 48, 44), (52, 78, 66), (138, 112, 70), (58, 64, 88)),
    vehicles=(
        (72, 76, 82),
        (150, 152, 152),
        (44, 46, 50),
        (196, 194, 188),
        (92, 46, 44),
        (56, 72, 96),
        (118, 112, 96),
        (66, 84, 72),
    ),
    buses=((160, 60, 50), (186, 180, 164), (70, 104, 92)),
    clothes=(
        (62, 62, 70),
        (112, 92, 78),
        (130, 60, 58),
        (74, 88, 108),
        (160, 154, 144),
        (84, 92, 74),
        (44, 46, 52),
    ),
    trousers=((46, 50, 60), (60, 56, 54), (92, 84, 74), (34, 36, 42)),
    foliage=((78, 110, 54), (92, 114, 58), (66, 98, 56), (116, 114, 56)),
    asphalt=((82, 82, 86), (74, 76, 82), (92, 90, 92)),
    paving=((164, 158, 148), (174, 166, 152), (150, 146, 140)),
    marking=(206, 202, 192),
    signs_colors=((168, 52, 48), (52, 84, 138), (196, 160, 62)),
    sky_top=((116, 150, 200), (142, 168, 202), (104, 146, 206)),
    sky_horizon=((196, 208, 222), (216, 216, 214), (200, 214, 228)),
    sun=0.06,
    texture=0.6,
    wear=0.7,
    haze=(0.002, 0.006),
    exposure=(0.72, 0.92),
    warmth=(-0.02, 0.04),
    saturation=(0.66, 0.84),
    contrast=(0.76, 0.92),
    blur=(0.4, 0.8),
    vignette=(0.12, 0.3),
    noise=(2.0, 5.0),
    jpeg_quality=(60, 85),
    hue_jitter=10.0,
)

CITIES: dict[str, City] = {"source": SOURCE, "target": TARGET}
