"""Minicity's architecture: facades drawn flat in metres, mapped on upright walls."""

import cv2
import numpy as np

from uda_jax.data.minicity_draw import SCALE, Canvas, noise_tile, vary
from uda_jax.data.minicity_scene import Scene, Thing
from uda_jax.data.minicity_style import BUILDING, City


class _Wall:
    """A facade while it is drawn: x from the left, y up, in metres."""

    def __init__(self, length, height, density_x, density_y):
        self.length, self.height = length, height
        w = min(max(int(length * density_x), 6), 448)
        h = min(max(int(height * density_y), 8), 512)
        self.per_x, self.per_y = w / length, h / height
        self.rows = h
        self.image = np.zeros((h, w, 3), np.uint8)
        self.value = np.ones((h, w), np.float32)  # light and texture
        # Metres; what lies outside is not drawn.
        self.outline = [(0, 0), (length, 0), (length, height), (0, height)]

    def _fixed(self, points):
        h, x, y = self.image.shape[0], self.per_x * 16, self.per_y * 16
        fixed = [(round(a * x) - 8, round(h * 16 - b * y) - 8) for a, b in points]
        return np.array(fixed, np.int32)

    def clear(self, color):
        h, w = self.image.shape[:2]  # several times faster than by NumPy
        cv2.rectangle(self.image, (0, 0), (w, h), color.tolist(), -1)

    def shows(self, tall: float) -> bool:
        """Whether a stripe that tall, in metres, is wide enough to be drawn."""
        return tall * self.per_y >= 0.6

    def box(self, x0, y0, x1, y1, color):
        per_x, per_y = self.per_x, self.per_y
        wide, tall = (x1 - x0) * per_x, (y1 - y0) * per_y
        if wide < 0.6 or tall < 0.6:
            return  # thinner than a pixel of the picture
        a, b = round(x0 * per_x), round(self.rows - y1 * per_y)
        end = (a + round(wide) - 1, b + round(tall) - 1)
        if not isinstance(color, tuple):
            color = color.tolist()
        cv2.rectangle(self.image, (a, b), end, color, -1)

    def fill(self, points, color):
        color = tuple(color) if isinstance(color, tuple) else color.tolist()
        cv2.fillPoly(self.image, [self._fixed(points)], color, cv2.LINE_8, 4)


def draw_building(canvas: Canvas, scene: Scene, thing: Thing, rng: np.random.Generator):
    """Draws a house: its facade along the street and its wall towards the camera."""
    city = canvas.city
    kind = str(rng.choice(list(city.facades)))
    floors = int(rng.integers(city.floors[0], city.floors[1] + 1))
    storey = rng.uniform(*city.floor_height)
    body = floors * storey + 0.9
    side = np.sign(thing.t)
    wall = vary(rng, city.walls[rng.integers(len(city.walls))], city.hue_jitter)
    roof = vary(rng, city.roofs[rng.integers(len(city.roofs))], city.hue_jitter)
    top = body + _roof_height(kind, thing.length, rng)

    near, far = thing.s, thing.s + thing.length
    t = thing.t
    lit = side == scene.sunny_side
    light = 1.0 if lit else 1.0 - 0.8 * city.sun
    # Left walls run towards the camera from right to left in the picture.
    ends = (near, far) if side < 0 else (far, near)
    corners = np.array(
        [(t, top, ends[0]), (t, top, ends[1]), (t, 0, ends[1]), (t, 0, ends[0])]
    )
    pixels, depth = canvas.camera.project(corners)
    if depth.min() > 0.4:
        span = np.abs(pixels[0, 0] - pixels[1, 0]) * SCALE
        tall = canvas.camera.focal * top / depth.min() * SCALE
        density_x = 1.2 * span / thing.length
        density_y = 1.1 * tall / top
        detail = float(tall / top)  # pixels per metre
        _end_wall(canvas, thing, body, top, wall, roof, kind)
        flat = _Wall(thing.length, top, density_x, density_y)
        _facade(flat, kind, city, floors, storey, body, wall, roof, detail, rng)
        _weather(flat, city, light, rng)
        # Along a wall depth is linear, as is the texture's column.
        share = (np.arange(flat.image.shape[1]) + 0.5) / flat.image.shape[1]
        fog = canvas.haze(depth[0] + share * (depth[1] - depth[0]))
        _finish(flat, fog, canvas.haze_color)
        outline = [
            (t, y, ends[0] + x / thing.length * (ends[1] - ends[0]))
            for x, y in flat.outline
        ]
        canvas.paste(flat.image, corners, np.array(outline), BUILDING)


def _roof_height(kind: str, length: float, rng) -> float:
    if kind in ("gable", "stepped"):
        return float(np.clip(length * rng.uniform(0.4, 0.55), 2.0, 4.5))
    if kind == "mansard":
        return rng.uniform(2.0, 2.8)
    return 0.35


def _end_wall(canvas, thing, body, top, wall, roof, kind):
    """The blind wall that faces the camera where the neighbour is lower or missing."""
    t, s = thing.t, thing.s
    side = np.sign(t)
    deep = t + side * 11.0
    shade = 1 - 0.5 * canvas.city.sun
    color = np.asarray(wall) * shade
    height = body if kind != "mansard" else top
    outline = [(t, 0, s), (deep, 0, s), (deep, height, s), (t, height, s)]
    canvas.surface(np.array(outline), color, BUILDING)
    if kind in ("gable", "stepped"):  # the ridge runs away from the street
        back = [(t, body, s), (deep, body, s), (deep, top, s + 2.5), (t, top, s + 2.5)]
        canvas.surface(np.array(back), np.asarray(roof) * shade, BUILDING)
    if s > 55:
        return
    glass = np.asarray(canvas.city.glass[0], float) * shade
    trim = np.asarray(canvas.city.trims[0], float) * shade
    for grow, tone in ((0.12, trim), (0.0, glass)):
        quads = []
        for y in np.arange(1.2, body - 2, 3.2).tolist():
            for x in (1.6, 4.2, 6.8):
                a, b = t + side * (x - grow), t + side * (x + 1.2 + grow)
                low, high = y - grow, y + 1.5 + grow
                quads.append([(a, low, s), (b, low, s), (b, high, s), (a, high, s)])
        if quads:
            canvas.surfaces(np.array(quads), tone, BUILDING)


def _facade(flat, kind, city: City, floors, storey, body, wall, roof, detail, rng):
    trim = vary(rng, city.trims[rng.integers(len(city.trims))], city.hue_jitter)
    glass = vary(rng, city.glass[rng.integers(len(city.glass))], city.hue_jitter)
    flat.clear(wall)
    if detail < 7:  # too far for more than rows of windows
        _far_front(flat, kind, floors, storey, body, wall, roof, glass)
    elif kind in ("gable", "stepped", "mansard", "cornice"):
        _brick(flat, wall, rng, detail, city)
        _old_front(flat, kind, city, floors, storey, body, wall, trim, roof, glass, rng)
    else:
        _modern_front(flat, kind, city, floors, storey, body, wall, trim, glass, rng)


def _far_front(flat, kind, floors, storey, body, wall, roof, glass):
    length, top = flat.length, flat.height
    if kind == "mansard":
        flat.box(0, body, length, top, roof)
    elif kind in ("gable", "stepped"):
        flat.outline = [
            (0, 0),
            (length, 0),
            (length, body),
            (length / 2, top),
            (0, body),
        ]
    flat.box(0, 0, length, storey, wall * 0.72)
    step = 2.4
    for floor in range(1, floors):
        y = floor * storey + 1.2
        for x in np.arange(0.6, length - 1, step):
            flat.box(x, y, x + 0.5 * step, y + 1.5, glass)


def _modern_front(flat, kind, city, floors, storey, body, wall, trim, glass, rng):
    length = flat.length
    bays = max(2, round(length / rng.uniform(2.2, 3.4)))
    bay = length / bays
    wide, low, high = rng.uniform(0.5, 0.8), rng.uniform(0.2, 0.32), 0.86
    balconies = rng.random() < 0.35
    stripe = np.asarray(wall) * rng.uniform(0.8, 0.92)
    if kind == "curtain":
        flat.clear(glass)
    for floor in range(1, floors):
        y = floor * storey + 0.6
        if kind == "bands":
            flat.box(0, y + storey * low, length, y + storey * high, glass)
            for i in range(bays * 2):
                flat.box(i * bay / 2, y + storey * low, i * bay / 2 + 0.1,
                         y + storey * high, trim)  # fmt: skip
            continue
        if kind == "curtain":
            flat.box(0, y, length, y + 0.28, trim)
        for i in range(bays):
            x = i * bay
            if kind == "curtain":
                tone = np.asarray(glass) * rng.uniform(0.86, 1.18)
                flat.box(x + 0.06, y + 0.28, x + bay - 0.06, y + storey, tone)
                continue
            x0, x1 = x + bay * (1 - wide) / 2, x + bay * (1 + wide) / 2
            y0, y1 = y + storey * low, y + storey * high
            flat.box(x0 - 0.1, y0 - 0.1, x1 + 0.1, y1 + 0.1, trim)
            flat.box(x0, y0, x1, y1, glass)
            light = np.asarray(glass) * 0.55 + 110
            flat.fill([(x0, y1), (x0 + 0.5 * (x1 - x0), y1), (x0, y0 + 0.2)], light)
            flat.box((x0 + x1) / 2 - 0.04, y0, (x0 + x1) / 2 + 0.04, y1, trim)
            if balconies and i % 2:
                flat.box(x0 - 0.3, y0 - 0.25, x1 + 0.3, y0 + 0.65, stripe)
                flat.box(x0 - 0.3, y0 - 0.35, x1 + 0.3, y0 - 0.2, trim)
    # Ground floor: shops.
    flat.box(0, 0, length, storey + 0.4, np.asarray(wall) * 0.72)
    shops = max(1, round(length / 6))
    for i in range(shops):
        x0, x1 = i * length / shops + 0.4, (i + 1) * length / shops - 0.4
        awning = np.asarray(city.awnings[rng.integers(len(city.awnings))], float)
        flat.box(x0, 0.5, x1, storey - 0.3, np.asarray(glass) * 0.8)
        flat.box(x0 + 0.25, 0, x0 + 1.35, storey - 0.6, np.asarray(trim) * 0.85)
        flat.box(x0 + 0.4, 0.1, x0 + 1.2, storey - 0.8, np.asarray(glass) * 0.6)
        stripes = max(4, round((x1 - x0) / 0.5))
        for j in range(stripes):
            a = x0 + (x1 - x0) * j / stripes
            b = x0 + (x1 - x0) * (j + 1) / stripes
            color = awning if j % 2 == 0 else (250, 250, 248)
            flat.box(a, storey - 0.5, b, storey + 0.15, color)
    flat.box(0, body - 0.35, length, flat.height, trim)
    flat.box(0, body - 0.5, length, body - 0.35, np.asarray(wall) * 0.7)


def _old_front(flat, kind, city, floors, storey, body, wall, trim, roof, glass, rng):
    length, top = flat.length, flat.height
    bays = max(2, round(length / rng.uniform(1.9, 2.6)))
    bay = length / bays
    wide = rng.uniform(0.4, 0.52)
    shutters = rng.random() < 0.45
    shutter = np.asarray(city.awnings[rng.integers(len(city.awnings))], float)
    balcony = rng.random() < 0.35
    dark = np.asarray(wall) * 0.6
    if kind == "mansard":
        flat.box(0, body, length, top, roof)
        for y in np.arange(body, top, 0.35).tolist():
            flat.box(0, y, length, y + 0.06, np.asarray(roof) * 0.82)
    for floor in range(1, floors + (kind == "mansard")):
        y = floor * storey + 0.5 + (0.6 if floor == floors else 0)
        for i in range(bays):
            x = (i + 0.5) * bay
            half = bay * wide / 2
            y0, y1 = y + 0.6, y + min(storey - 0.45, 2.35)
            if floor == floors:
                half, y1 = half * 0.8, y0 + 1.1
            _window(flat, x, half, y0, y1, trim, glass, rng)
            if shutters and floor < floors:
                for x0 in (x - 1.75 * half, x + half):
                    flat.box(x0, y0, x0 + 0.75 * half, y1, shutter)
                    if not flat.shows(0.06):
                        continue
                    for k in np.arange(y0 + 0.1, y1, 0.25).tolist():
                        flat.box(x0, k, x0 + 0.75 * half, k + 0.06, shutter * 0.75)
            if balcony and floor < floors and i % 2 == 0:
                flat.box(
                    x - 1.8 * half, y0 - 0.2, x + 1.8 * half, y0 - 0.05, trim * 0.8
                )
                for k in np.arange(x - 1.7 * half, x + 1.7 * half, 0.22).tolist():
                    flat.box(k, y0 - 0.05, k + 0.06, y0 + 0.7, (44, 42, 42))
                flat.box(
                    x - 1.8 * half, y0 + 0.65, x + 1.8 * half, y0 + 0.75, (44, 42, 42)
                )
    # Ground floor: a door, and a shop or windows on a plinth.
    flat.box(0, 0, length, 0.6, dark)
    door = np.asarray(city.awnings[rng.integers(len(city.awnings))], float) * 0.8
    at = rng.uniform(0.15, 0.3) * length if rng.random() < 0.5 else 0.78 * length
    if rng.random() < 0.5:
        x0, x1 = (0.4, at - 0.8) if at > length / 2 else (at + 0.8, length - 0.4)
        flat.box(x0 - 0.15, 0.3, x1 + 0.15, storey + 0.1, shutter * 0.8)
        flat.box(x0, 0.7, x1, storey - 0.6, np.asarray(glass) * 1.25 + (18, 12, 0))
        flat.box(x0 - 0.2, storey - 0.65, x1 + 0.2, storey - 0.1, shutter)
        for k in np.linspace(x0, x1, 4)[1:-1]:
            flat.box(k - 0.05, 0.7, k + 0.05, storey - 0.6, shutter * 0.7)
    else:
        for i in range(bays):
            x = (i + 0.5) * bay
            if abs(x - at) > 1.1:
                _window(flat, x, bay * wide / 2, 1.1, 2.5, trim, glass, rng)
    flat.box(at - 0.65, 0, at + 0.65, 2.55, trim)
    flat.box(at - 0.5, 0.1, at + 0.5, 2.2, door)
    flat.box(at - 0.5, 2.22, at + 0.5, 2.48, glass)
    flat.box(0, storey + 0.2, length, storey + 0.36, trim)
    middle = length / 2
    if kind == "gable":
        rise = top - body
        flat.outline = [(0, 0), (length, 0), (length, body), (middle, top), (0, body)]
        flat.fill([(0, body), (middle, top), (length, body), (length, body - 0.35),
                   (middle, top - 0.4), (0, body - 0.35)], trim)  # fmt: skip
        _window(
            flat,
            middle,
            0.45,
            body - 0.2,
            body + min(0.5 * rise, 1.2),
            trim,
            glass,
            rng,
        )
    elif kind == "stepped":
        outline = [(0, 0), (length, 0), (length, body)]
        steps = 4
        x = np.linspace(length, middle + 0.5, steps + 1)
        y = np.linspace(body, top, steps + 1)
        for i in range(steps):
            outline += [(x[i], y[i + 1]), (x[i + 1], y[i + 1])]
        outline += [(length - a, b) for a, b in outline[:2:-1]] + [(0, body)]
        flat.outline = outline
        for i in range(steps):
            for a in (x[i + 1], length - x[i]):
                flat.box(a, y[i + 1] - 0.25, a + x[i] - x[i + 1], y[i + 1], trim)
        _window(flat, middle, 0.5, body - 0.1, body + 1.2, trim, glass, rng)
    else:
        flat.box(0, body - 0.45, length, body + 0.05, trim)
        flat.box(0, body - 0.6, length, body - 0.45, dark)


def _window(flat, x, half, y0, y1, trim, glass, rng):
    flat.box(x - half - 0.12, y0 - 0.16, x + half + 0.12, y1 + 0.16, trim)
    tone = np.asarray(glass) * rng.uniform(0.75, 1.2)
    if rng.random() < 0.08:
        tone = np.array([222.0, 186, 120])  # somebody is at home
    flat.box(x - half, y0, x + half, y1, tone)
    flat.box(x - half, y1 - 0.35 * (y1 - y0), x + half, y1, tone * 0.5 + 70)
    flat.box(x - 0.04, y0, x + 0.04, y1, trim)
    flat.box(
        x - half, y0 + 0.6 * (y1 - y0), x + half, y0 + 0.6 * (y1 - y0) + 0.06, trim
    )


def _brick(flat, wall, rng, detail, city):
    """Courses of brick, or plain plaster; too small to see from afar."""
    if detail < 10 or rng.random() < 0.35 or city.texture == 0:
        return
    h, w = flat.image.shape[:2]
    y = np.arange(h) / flat.per_y / 0.3
    x = np.arange(w) / flat.per_x / 0.8
    course = y.astype(np.int32)
    rows = np.arange(course[-1] + 1)[:, None]
    place = x + 0.5 * (rows % 2)
    column = place.astype(np.int32)
    joint = np.float32(1 + 0.16 * city.texture)
    tone = (
        1 + 0.09 * city.texture * noise_tile("grain")[rows * 7 % 512, column * 13 % 512]
    )
    tone[place - column < 0.09] = joint
    flat.value = tone[course]  # one row of pixels per course is enough until here
    flat.value[y - course < 0.16] = joint


def _weather(flat, city: City, light: float, rng):
    """Light, darkness near the ground, and stains."""
    h, w = flat.image.shape[:2]
    up = (np.arange(h)[::-1] / flat.per_y)[:, None]
    flat.value *= (light * (1 - 0.16 * np.exp(-up / 2.5))).astype(np.float32)
    if city.texture > 0:
        tile = noise_tile("cloud")
        y, x = rng.integers(0, 256, 2)
        stain = cv2.resize(tile[y : y + 128, x : x + 128], (w, h))
        streak = cv2.resize(tile[y : y + 8, x : x + 200], (w, h))
        stain = cv2.addWeighted(
            stain, 0.07 * city.texture, streak, 0.05 * city.texture, 1.0
        )
        flat.value *= stain


def _finish(flat, fog, haze_color):
    """Multiplies the facade by its light and puts the haze [w] before it."""
    flat.value *= (1 - fog).astype(np.float32)
    three = cv2.merge([flat.value, flat.value, flat.value])
    image = cv2.multiply(flat.image, three, dtype=cv2.CV_8U)
    veil = np.round(fog[:, None] * haze_color).astype(np.uint8)
    flat.image = cv2.add(image, np.tile(veil, (image.shape[0], 1, 1)))
