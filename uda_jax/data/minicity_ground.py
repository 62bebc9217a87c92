"""Minicity's sky, ground and skyline: what lies behind all things."""

import cv2
import numpy as np

from uda_jax.data.minicity_draw import HEIGHT, SCALE, WIDTH, Canvas, noise_tile, vary
from uda_jax.data.minicity_scene import Scene
from uda_jax.data.minicity_style import BUILDING, ROAD, SIDEWALK, SKY, VEGETATION


def draw_sky(canvas: Canvas, scene: Scene, top, horizon, rng: np.random.Generator):
    """A gradient and clouds; the label is sky until something is drawn over it."""
    city, camera = canvas.city, scene.camera
    rows = (np.arange(HEIGHT * SCALE) / SCALE)[:, None, None]
    line = HEIGHT / 2 - camera.focal * np.tan(camera.pitch)
    share = np.clip(rows / max(line, 1), 0, 1) ** 1.3
    sky = (1 - share) * np.asarray(top, float) + share * np.asarray(horizon, float)
    sky = np.broadcast_to(sky, canvas.image.shape).astype(np.float32)
    if city.texture > 0:
        y, x = rng.integers(0, 300), rng.integers(0, 256)
        cloud = noise_tile("cloud")[y : y + 96, x : x + 256]
        cloud = cv2.resize(cloud, (WIDTH * SCALE, HEIGHT * SCALE))
        sky = sky + city.texture * 9.0 * cloud[..., None]
        canvas.image[:] = np.clip(sky, 0, 255).astype(np.uint8)
    else:
        canvas.image[:] = sky.astype(np.uint8)
        for _ in range(rng.integers(2, 6)):
            _cloud(canvas, rng.uniform(0, WIDTH), rng.uniform(5, line * 0.7), rng)
    canvas.label[:] = SKY


def _cloud(canvas: Canvas, x: float, y: float, rng):
    size = rng.uniform(8, 20)
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    puffs = [(rng.uniform(-2.2, 2.2), rng.uniform(0.5, 1.0)) for _ in range(6)]
    for shift, color in ((0.28, (226, 238, 250)), (0.0, (252, 254, 255))):
        for along, radius in puffs:
            points = ring * size * radius * (1 - 0.18 * abs(along))
            points[:, 1] = np.minimum(points[:, 1], size * 0.3) + y + shift * size
            canvas.polygon(np.add(points, (x + along * size, 0)), color, None, 0.0)


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
    asphalt = vary(rng, city.asphalt[rng.integers(len(city.asphalt))], 3)
    paving = vary(rng, city.paving[rng.integers(len(city.paving))], 3)
    shape = road.shape
    ground = np.empty((*shape, 3), np.float32)
    ground[:] = paving
    np.copyto(ground, asphalt.astype(np.float32), where=road[..., None])

    def paint(inside, color, strength=1.0):
        rows, columns = np.nonzero(
            inside
        )  # few pixels: much faster than a blend of all
        strength = np.broadcast_to(np.asarray(strength, np.float32), (shape[0], 1))
        cover = strength[rows]
        old = ground[rows, columns]
        ground[rows, columns] = old + cover * (np.asarray(color, np.float32) - old)

    # Paving joints and a kerb.
    depth_step = s * s / (scene.camera.height * scene.camera.focal * SCALE)
    tile = 1.0 if city.texture == 0 else 0.55
    fade = np.clip(1.4 - depth_step / tile * 2.5, 0, 1)
    joint = (_fraction(t / tile) < np.maximum(0.06, pixel / tile)) | (
        (s / tile) % 1 < np.maximum(0.06, depth_step / tile)
    )
    paint(~road & joint, paving * 0.86, fade * 0.8)
    kerb = ~road & (beside < half + 0.28) & ~along
    paint(kerb, paving * (1.12 if city.texture == 0 else 0.84))
    paint(road & (beside > half - 0.16) & ~along, asphalt * 0.78)

    _markings(paint, city, street, t, s, road, along, depth_step, pixel, rng)
    _light(ground, scene, city, t, s)
    if city.texture > 0:
        _texture(ground, city, t, s, road, depth_step, rng)

    fog = canvas.haze(s)[..., None].astype(np.float32)
    ground *= 1 - fog
    ground += fog * canvas.haze_color.astype(np.float32)
    np.clip(ground, 0, 255, out=ground)
    canvas.image[first:] = ground.astype(np.uint8)
    canvas.label[first:] = np.where(road, np.uint8(ROAD), np.uint8(SIDEWALK))


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)  # several times faster than x % 1


def _markings(paint, city, street, t, s, road, along, depth_step, pixel, rng):
    half = street.width / 2
    strength = (1 - 0.45 * city.wear) * np.clip(1.5 - depth_step / 3, 0, 1)
    free = road & ~along
    zebra = np.zeros_like(road)
    if street.zebra is not None:
        zebra = (s > street.zebra) & (s < street.zebra + 3.0) & free
        paint(
            zebra & (_fraction(t / 0.9) < 0.55) & (np.abs(t) < half - 0.3),
            city.marking,
            strength,
        )
        free = free & ~((s > street.zebra - 1.0) & (s < street.zebra + 3.6))
        stop = (s > street.zebra - 1.3) & (s < street.zebra - 0.9) & road & (t > 0)
        paint(stop, city.marking, strength)
    line = 0.15 if city.texture == 0 else 0.12
    wide = np.maximum(line, 0.7 * pixel) / 2
    dash = (s % 7.5) < 3.2
    lane = street.width / street.lanes
    for i in range(1, street.lanes):
        place = i * lane - half
        middle = i * 2 == street.lanes
        inside = free & (np.abs(t - place) < wide)
        if middle and street.lanes == 4:
            for shift in (-0.18, 0.18):
                paint(free & (np.abs(t - shift) < wide), (250, 206, 70), strength)
        else:
            paint(inside & dash, city.marking, strength)
    if city.texture == 0:
        paint(free & (np.abs(np.abs(t) - half + 0.45) < wide), city.marking, strength)


def _light(ground, scene, city, t, s):
    """The shadow of the houses on the side that the sun does not reach."""
    if city.sun > 0.1:
        reach = scene.street.wall - 0.38 * scene.street.width
        shadow = t * scene.sunny_side < -reach + 0.8 * np.floor(np.sin(s * 0.31) * 2)
        if scene.street.junction is not None:
            low, high = scene.street.junction
            shadow = shadow & ~((s > low - 2) & (s < high + 2))
        lit = np.float32(1 - city.sun)
        np.multiply(ground, lit, out=ground, where=shadow[..., None])
    close = np.abs(t) > scene.street.wall - 1.2
    gap = np.clip((scene.street.wall - np.abs(t[close])) / 1.2, 0, 1)
    ground[close] *= (0.8 + 0.2 * gap)[:, None]


def _texture(ground, city, t, s, road, depth_step, rng):
    """Stone, patches, cracks and stains; fine grain fades with distance."""
    a, b = rng.uniform(0, 512, 2).astype(np.float32)

    def sample(kind, per_metre, every=2):
        x = 511 * _fraction((t[::every, ::every] * per_metre + a) / 511)
        y = np.broadcast_to(
            511 * _fraction((s[::every] * per_metre + b) / 511), x.shape
        )
        found = cv2.remap(noise_tile(kind), x, y.astype(np.float32), cv2.INTER_LINEAR)
        return found if every == 1 else cv2.resize(found, t.shape[::-1])

    near = np.clip(1.2 - depth_step * 3, 0, 1)
    value = 1 + city.texture * (
        0.075 * sample("cloud", 9.0) + 0.075 * near * sample("grain", 34.0, 1)
    )
    crack = sample("cloud", 14.0)
    value = value * np.where(
        road & (np.abs(crack - 0.4) < 0.05) & (sample("cloud", 5) > 0.3), 0.8, 1
    )
    patch = sample("cloud", 4.0) > 1.35
    value = value * np.where(patch & road, 0.84, 1.0)
    if city.wear > 0 and rng.random() < 0.35:  # cobbles instead of asphalt
        row = np.floor(s / 0.22)
        gap = (s / 0.22 - row < 0.22) | (_fraction(t / 0.26 + 0.5 * (row % 2)) < 0.18)
        value = value * np.where(road & gap, 1 - 0.28 * near, 1.0)
    ground *= value[..., None].astype(np.float32)


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
