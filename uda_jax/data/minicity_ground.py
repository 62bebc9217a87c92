"""Minicity's sky, ground and skyline: what lies behind all things."""

import cv2
import numpy as np

from uda_jax.data.minicity_draw import HEIGHT, SCALE, WIDTH, Canvas, noise_tile, vary
from uda_jax.data.minicity_scene import Scene
from uda_jax.data.minicity_style import BUILDING, ROAD, SIDEWALK, SKY, VEGETATION


def draw_sky(canvas: Canvas, scene: Scene, top, horizon, rng: np.random.Generator):
    """A gradient and clouds; the label is sky until something is drawn over it."""
    city, camera = canvas.city, scene.camera
    line = HEIGHT / 2 - camera.focal * np.tan(camera.pitch)
    last = min(int(line * SCALE) + 8, HEIGHT * SCALE)  # the ground covers the rest
    rows = (np.arange(last) / SCALE)[:, None]
    share = np.clip(rows / max(line, 1), 0, 1) ** 1.3
    sky = (1 - share) * np.asarray(top, float) + share * np.asarray(horizon, float)
    canvas.label[:last] = SKY
    if city.texture > 0:
        y, x = rng.integers(0, 300), rng.integers(0, 256)
        cloud = noise_tile("cloud")[y : y + 96, x : x + 256]
        cloud = cv2.resize(cloud, (WIDTH, HEIGHT))[: (last + 1) // 2]
        soft = sky[::2, None].astype(np.float32) + city.texture * 9.0 * cloud[..., None]
        soft = cv2.resize(np.clip(soft, 0, 255).astype(np.uint8), (WIDTH * SCALE, last))
        canvas.pixels[:last, :, :3] = soft
    else:
        canvas.pixels[:last, :, :3] = sky.astype(np.uint8)[:, None]
        for _ in range(rng.integers(2, 6)):
            _cloud(canvas, rng.uniform(0, WIDTH), rng.uniform(5, line * 0.7), rng)


def _cloud(canvas: Canvas, x: float, y: float, rng):
    size = rng.uniform(8, 20)
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    puffs = [(rng.uniform(-2.2, 2.2), rng.uniform(0.5, 1.0)) for _ in range(6)]
    for shift, color in ((0.28, (226, 238, 250)), (0.0, (252, 254, 255))):
        for along, radius in puffs:
            points = ring * size * radius * (1 - 0.18 * abs(along))
            points[:, 1] = np.minimum(points[:, 1], size * 0.3) + y + shift * size
            canvas.polygon(np.add(points, (x + along * size, 0)), color, SKY, 0.0)


def draw_ground(canvas: Canvas, scene: Scene, rng: np.random.Generator):
    """Road with markings, kerbs and sidewalks, in exact perspective per pixel."""
    city, street = canvas.city, scene.street
    t, s, first = scene.camera.ground()
    beside = np.abs(t)
    half = street.width / 2
    along = np.zeros(s.shape, bool)
    if street.junction is not None:
        along = (s > street.junction[0]) & (s < street.junction[1])
    road = (beside < half) | along
    pixel = s / (scene.camera.focal * SCALE)  # metres per pixel across
    depth_step = s * s / (scene.camera.height * scene.camera.focal * SCALE)
    asphalt = vary(rng, city.asphalt[rng.integers(len(city.asphalt))], 3)
    paving = vary(rng, city.paving[rng.integers(len(city.paving))], 3)
    floor = _Floor(len(s))
    floor.paint(~road, SIDEWALK, paving)
    floor.paint(road, ROAD, asphalt)
    if city.wear > 0 and rng.random() < 0.35:  # cobbles instead of asphalt
        row = np.floor(s / 0.22)
        gap = (s / 0.22 - row < 0.22) | (_fraction(t / 0.26 + 0.5 * (row % 2)) < 0.18)
        dark = 0.28 * np.clip(1.2 - depth_step * 3, 0, 1)
        floor.paint(road & gap, ROAD, asphalt, 0 * asphalt, dark)

    # Paving joints and a kerb.
    tile = 1.0 if city.texture == 0 else 0.55
    fade = np.clip(1.4 - depth_step / tile * 2.5, 0, 1)
    joint = (_fraction(t / tile) < np.maximum(0.06, pixel / tile)) | (
        (s / tile) % 1 < np.maximum(0.06, depth_step / tile)
    )
    joint &= ~road & (fade > 0)
    floor.paint(joint, SIDEWALK, paving, paving * 0.86, fade * 0.8)
    kerb = ~road & (beside < half + 0.28) & ~along
    floor.paint(kerb, SIDEWALK, paving * (1.12 if city.texture == 0 else 0.84))
    floor.paint(road & (beside > half - 0.16) & ~along, ROAD, asphalt * 0.78)

    def mark(inside, color, strength):
        floor.paint(inside, ROAD, asphalt, color, strength)

    _markings(mark, city, street, t, beside, s, road, along, depth_step, pixel)
    canvas.pixels[first:] = floor.drawn(canvas, s, _shadow(scene, city, t, s))

    # Soft things need only the final size.
    beside = beside[::SCALE, ::SCALE]
    value = np.clip((street.wall - beside) / 1.2, 0, 1)
    value = 0.8 + 0.2 * value
    if city.texture > 0:
        depth_step, road = depth_step[::SCALE], road[::SCALE, ::SCALE]
        value *= _texture(city, t[::SCALE, ::SCALE], s[::SCALE], road, depth_step, rng)
    value -= 1
    value *= 1 - canvas.haze(s[::SCALE])
    value += 1
    value = cv2.resize(value, (t.shape[1], t.shape[0]))
    ones = np.ones_like(value)
    patch = canvas.pixels[first:]
    cv2.multiply(patch, cv2.merge([value, value, value, ones]), patch, 1.0, cv2.CV_8U)


class _Floor:
    """The ground's paints: each pixel holds a number, each row has its own colours.

    A paint's strength and the haze depend on the row only, so that a table [rows,
    paints] does what a blend of all pixels would.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self.paints: list[np.ndarray] = []
        self.labels: list[int] = []
        self.index = np.zeros((rows, WIDTH * SCALE), np.uint8)

    def paint(self, inside, label, base, color=None, strength=1.0):
        """`strength` [rows,1] of `color` over `base` where `inside` [rows,W']."""
        base = np.asarray(base, np.float64)
        color = base if color is None else np.asarray(color, np.float64)
        mixed = base + strength * (color - base)
        self.index[inside] = len(self.paints)
        self.paints.append(np.broadcast_to(mixed, (self.rows, 3)))
        self.labels.append(label)

    def drawn(self, canvas: Canvas, s, shadow) -> np.ndarray:
        """Colours through the haze and ids, uint8 [rows,W',4]."""
        count = len(self.paints)
        colors = np.stack(self.paints, 1)
        index = self.index.astype(np.int32)
        if shadow is not None:
            colors = np.concatenate([colors, colors * (1 - canvas.city.sun)], 1)
            index += np.int32(count) * shadow
        fog = canvas.haze(s)[..., None]
        table = np.empty((*colors.shape[:2], 4), np.uint8)
        table[..., :3] = np.clip((1 - fog) * colors + fog * canvas.haze_color, 0, 255)
        table[..., 3] = (self.labels * 2)[: colors.shape[1]]
        index += np.arange(self.rows, dtype=np.int32)[:, None] * colors.shape[1]
        flat = table.view(np.uint32).ravel().take(index)
        return flat.view(np.uint8).reshape(*index.shape, 4)


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)  # several times faster than x % 1


def _markings(mark, city, street, t, beside, s, road, along, depth_step, pixel):
    half = street.width / 2
    strength = (1 - 0.45 * city.wear) * np.clip(1.5 - depth_step / 3, 0, 1)
    free = road & ~along
    if street.zebra is not None:
        zebra = (s > street.zebra) & (s < street.zebra + 3.0) & free
        stripe = (_fraction(t / 0.9) < 0.55) & (beside < half - 0.3)
        mark(zebra & stripe, city.marking, strength)
        free = free & ~((s > street.zebra - 1.0) & (s < street.zebra + 3.6))
        stop = (s > street.zebra - 1.3) & (s < street.zebra - 0.9) & road & (t > 0)
        mark(stop, city.marking, strength)
    line = 0.15 if city.texture == 0 else 0.12
    wide = np.maximum(line, 0.7 * pixel) / 2
    dash = (s % 7.5) < 3.2
    if street.lanes == 4:
        mark(free & (np.abs(beside - 0.18) < wide), (250, 206, 70), strength)
        inner = np.abs(beside - street.width / 4) < wide
    else:
        inner = beside < wide
    mark(inner & dash & free, city.marking, strength)
    if city.texture == 0:
        mark(free & (np.abs(beside - half + 0.45) < wide), city.marking, strength)


def _shadow(scene, city, t, s):
    """The shadow of the houses on the side that the sun does not reach, or None."""
    if city.sun <= 0.1:
        return None
    reach = scene.street.wall - 0.38 * scene.street.width
    edge = -reach + 0.8 * np.floor(np.sin(s * 0.31) * 2)
    shadow = t < edge if scene.sunny_side > 0 else t > -edge
    if scene.street.junction is not None:
        low, high = scene.street.junction
        shadow &= ~((s > low - 2) & (s < high + 2))
    return shadow


def _texture(city, t, s, road, depth_step, rng) -> np.ndarray:
    """Stone, patches, cracks and stains; fine grain fades with distance."""
    a, b = rng.uniform(0, 512, 2).astype(np.float32)

    def sample(kind, per_metre):
        x = 511 * _fraction((t * per_metre + a) / 511)
        y = 511 * _fraction((s * per_metre + b) / 511)
        y = np.broadcast_to(y, x.shape).astype(np.float32)
        return cv2.remap(noise_tile(kind), x, y, cv2.INTER_LINEAR)

    near = np.clip(1.2 - depth_step * 3, 0, 1)
    strength = np.float32(0.075 * city.texture)
    value = 1 + strength * sample("cloud", 9.0)
    value += strength * near * sample("grain", 34.0)
    crack = np.abs(sample("cloud", 14.0) - 0.4) < 0.06
    crack &= road & (sample("cloud", 5.0) > 0.3)
    value[crack] *= 0.76
    value[road & (sample("cloud", 4.0) > 1.35)] *= 0.84
    return value


def draw_skyline(canvas: Canvas, scene: Scene, rng: np.random.Generator):
    """Houses and trees at the end of the street, mostly dissolved in the haze."""
    city, camera = canvas.city, scene.camera
    for distance in (320.0, 190.0):
        middle = -0.5 * camera.bend * distance**2 + camera.offset
        t = middle - 0.75 * distance
        while t < middle + 0.75 * distance:
            wide = rng.uniform(12, 30)
            tall = rng.uniform(*city.floors) * 3.3 + rng.uniform(0, 3)
            if abs(t + wide / 2) < 7 and distance == 190.0:
                t += wide
                continue
            if rng.random() < 0.3:
                angle = np.linspace(0, np.pi, 9)
                outline = [
                    (t + wide / 2 + 0.6 * wide * np.cos(q), 2 + 7 * np.sin(q), distance)
                    for q in angle
                ]
                outline += [
                    (t - 0.1 * wide, 0, distance),
                    (t + 1.1 * wide, 0, distance),
                ]
                color = city.foliage[rng.integers(len(city.foliage))]
                canvas.surface(np.array(outline), np.asarray(color) * 0.85, VEGETATION)
            else:
                color = vary(rng, city.walls[rng.integers(len(city.walls))], 5) * 0.9
                box = [(t, 0), (t + wide, 0), (t + wide, tall), (t, tall)]
                canvas.surface(
                    np.array([(a, b, distance) for a, b in box]), color, BUILDING
                )
            t += wide * rng.uniform(0.8, 1.1)


def draw_shadow(canvas: Canvas, thing, half_width: float, half_length: float):
    """A contact shadow; in the sun it is cast to one side."""
    if thing.s > 60:
        return
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    soft = canvas.city.sun < 0.1
    cos, sin = np.cos(thing.heading), np.sin(thing.heading)
    for grow, factor in ((1.3, 0.82), (0.9, 0.7)) if soft else ((1.15, 0.62),):
        x, w = half_length * grow * np.cos(angle), half_width * grow * np.sin(angle)
        t = thing.t + x * sin + w * cos
        s = thing.s + x * cos - w * sin
        points = np.stack([t, np.zeros_like(t), s], -1)
        pixels, depth = canvas.camera.project(points)
        if depth.min() > 0.5:
            canvas.shade(pixels, factor)
