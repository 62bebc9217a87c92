"""Minicity's cars and buses: a side profile, extruded, in true perspective."""

import numpy as np

from uda_jax.data.minicity_draw import Canvas, vary
from uda_jax.data.minicity_scene import Thing
from uda_jax.data.minicity_style import BUS, CAR

_GLASS, _BODY = "glass", "body"

# Corner points (x forward, y up, metres) from the rear bottom over the roof to the
# front bottom, and the material of the strip that follows each corner.
_PROFILES = {
    "hatch": (
        ((-1.95, 0.3), (-2.0, 0.85), (-1.75, 1.0), (-1.4, 1.5), (0.25, 1.52),
         (1.0, 1.0), (1.85, 0.84), (2.0, 0.6), (1.98, 0.3)),
        (_BODY, _BODY, _GLASS, _BODY, _GLASS, _BODY, _BODY, _BODY),
    ),
    "sedan": (
        ((-2.3, 0.3), (-2.35, 0.9), (-1.6, 1.0), (-0.95, 1.44), (0.4, 1.46),
         (1.15, 0.98), (2.15, 0.82), (2.3, 0.58), (2.28, 0.3)),
        (_BODY, _BODY, _GLASS, _BODY, _GLASS, _BODY, _BODY, _BODY),
    ),
    "van": (
        ((-2.2, 0.32), (-2.25, 1.0), (-2.15, 1.9), (-2.0, 1.98), (0.95, 1.98),
         (1.65, 1.1), (2.2, 0.95), (2.3, 0.6), (2.28, 0.32)),
        (_BODY, _GLASS, _BODY, _BODY, _GLASS, _BODY, _BODY, _BODY),
    ),
    "bus": (
        ((-5.2, 0.35), (-5.2, 1.5), (-5.15, 2.75), (-5.0, 3.05), (4.9, 3.05),
         (5.1, 2.9), (5.2, 1.1), (5.2, 0.35)),
        (_BODY, _GLASS, _BODY, _BODY, _BODY, _GLASS, _BODY),
    ),
}  # fmt: skip
_HALF_WIDTH = {"hatch": 0.88, "sedan": 0.9, "van": 0.95, "bus": 1.27}
_WHEELS = {"hatch": 1.25, "sedan": 1.4, "van": 1.4, "bus": 3.3}
_RADIUS = {"hatch": 0.33, "sedan": 0.34, "van": 0.36, "bus": 0.5}

_ANGLE = np.arange(16) * np.pi / 8
_RING = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], -1)


class _Body:
    """Maps (x forward, y up, w to the right) of one vehicle to the picture."""

    def __init__(self, canvas: Canvas, thing: Thing, label: int):
        self.canvas, self.thing, self.label = canvas, thing, label
        self.faces: list = []
        self.cos, self.sin = np.cos(thing.heading), np.sin(thing.heading)

    def street(self, points) -> np.ndarray:
        x, y, w = np.asarray(points, np.float64).T
        t = self.thing.t + x * self.sin + w * self.cos
        s = self.thing.s + x * self.cos - w * self.sin
        return np.stack([t, y, s], -1)

    def face(self, points, color):
        """Remembers a face; `draw` projects them all at once."""
        self.faces.append((points, color))

    def draw(self):
        """Draws the remembered faces in their order; none if one is behind."""
        counts = [len(points) for points, _ in self.faces]
        corners = np.concatenate([points for points, _ in self.faces])
        pixels, depth = self.canvas.camera.project(self.street(corners))
        if depth.min() < 0.5:
            return
        colors = [color for _, color in self.faces]
        far = float(depth.mean())
        self.canvas.polygons(pixels, counts, colors, self.label, far)

    def camera_at(self) -> np.ndarray:
        """The camera in the vehicle's own (x, y, w); the bend moves it sideways."""
        camera, thing = self.canvas.camera, self.thing
        t = camera.offset - 0.5 * camera.bend * thing.s**2 - thing.t
        return np.array(
            [t * self.sin - thing.s * self.cos, camera.height,
             t * self.cos + thing.s * self.sin]
        )  # fmt: skip


def draw_vehicle(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """Draws a hatch, sedan, van or bus with its visible faces only."""
    kind = thing.kind
    city = canvas.city
    colors = city.buses if kind == "bus" else city.vehicles
    paint = vary(rng, colors[rng.integers(len(colors))], city.hue_jitter)
    glass = np.array([52.0, 66, 82]) + 26 * (city.sun > 0.1)
    corners, materials = _PROFILES[kind]
    corners = np.array(corners)
    half, radius, axle = _HALF_WIDTH[kind], _RADIUS[kind], _WHEELS[kind]
    body = _Body(canvas, thing, BUS if kind == "bus" else CAR)
    eye = body.camera_at()
    narrow = 0.0 if kind == "bus" else 0.2
    top = float(corners[:, 1].max())

    def width(y):
        """Half the width at height y: the cabin leans in."""
        return half * (1 - narrow * min(max((y - 0.95) / (top - 0.95), 0.0), 1.0))

    side = 1.0 if eye[2] > 0 else -1.0
    rear = eye[0] < 0
    # Underbody and tyres, then strips from far to near, then the visible side.
    low = corners[0, 1] + 0.05
    end = -corners[-1, 0] * 0.96 if rear else corners[-1, 0] * 0.96
    body.face(
        [(end, 0.12, -half * 0.9), (end, 0.12, half * 0.9), (end, low, half * 0.9),
         (end, low, -half * 0.9)], (26, 27, 30),
    )  # fmt: skip
    for w in (-half * 0.82, half * 0.82):
        tyre = [(end, 0, w - 0.12), (end, 0, w + 0.12), (end, low, w + 0.12),
                (end, low, w - 0.12)]  # fmt: skip
        body.face(tyre, (20, 20, 22))
    strips = []
    for i, material in enumerate(materials):
        (x0, y0), (x1, y1) = corners[i], corners[i + 1]
        normal = np.array([-(y1 - y0), x1 - x0])
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        if normal @ (eye[:2] - middle) > 0:
            strips.append((np.hypot(*(eye[:2] - middle)), i, material, normal))
    for _, i, material, normal in sorted(strips, key=lambda strip: -strip[0]):
        (x0, y0), (x1, y1) = corners[i], corners[i + 1]
        up = normal[1] / max(np.hypot(*normal), 1e-6)
        light = 0.84 + 0.22 * up
        quad = [(x0, y0, -width(y0)), (x0, y0, width(y0)), (x1, y1, width(y1)),
                (x1, y1, -width(y1))]  # fmt: skip
        if material == _GLASS:
            body.face(quad, paint * light)
            inner = [(x, y, w * 0.88) for x, y, w in quad]
            body.face(inner, glass * (1 + 0.5 * max(up, 0)))
            shine = [inner[0], inner[3], tuple(np.add(inner[3], inner[2]) / 2)]
            body.face(shine, glass * 1.25 + 8)
        else:
            body.face(quad, paint * light)
    if thing.s < 60:
        _end_details(body, kind, corners, half, rear)
    _side(body, kind, corners, width, side, paint, glass, axle, radius)
    body.draw()


def _end_details(body: _Body, kind, corners, half, rear):
    if abs(body.cos) < 0.3:
        return
    x = (corners[0, 0] + corners[1, 0]) / 2 - 0.03 if rear else corners[-2, 0] + 0.03
    y = 0.68 if kind != "bus" else 0.85
    lamp = (206, 36, 34) if rear else (250, 246, 224)
    for w in (-half * 0.78, half * 0.78):
        box = [(x, y, w - 0.17), (x, y, w + 0.17), (x, y + 0.17, w + 0.17),
               (x, y + 0.17, w - 0.17)]  # fmt: skip
        body.face(box, lamp)
    plate = [(x, y - 0.18, -0.26), (x, y - 0.18, 0.26), (x, y - 0.04, 0.26),
             (x, y - 0.04, -0.26)]  # fmt: skip
    body.face(plate, (236, 236, 226))
    if kind == "bus":
        sign = [(x, 2.62, -0.8), (x, 2.62, 0.8), (x, 2.9, 0.8), (x, 2.9, -0.8)]
        body.face(sign, (30, 30, 32))
        text = [(x, 2.7, -0.6), (x, 2.7, 0.3), (x, 2.82, 0.3), (x, 2.82, -0.6)]
        body.face(text, (252, 178, 40))
    else:
        bumper = [(x, 0.3, -half * 0.95), (x, 0.3, half * 0.95), (x, 0.45, half * 0.95),
                  (x, 0.45, -half * 0.95)]  # fmt: skip
        body.face(bumper, (48, 50, 54))


def _side(body: _Body, kind, corners, width, side, paint, glass, axle, radius):
    outline = [(x, y, side * width(y)) for x, y in corners.tolist()]
    body.face(outline, paint * 0.8)
    out = 1.005 * side

    def panel(points, color):
        body.face([(x, y, out * width(y)) for x, y in points], color)

    if kind == "bus":
        for x in np.arange(-4.9, 4.6, 1.25):
            panel([(x, 1.45), (x + 1.1, 1.45), (x + 1.1, 2.6), (x, 2.6)], glass)
        panel([(-5.2, 0.95), (5.2, 0.95), (5.2, 1.15), (-5.2, 1.15)], paint * 0.5 + 110)
        door = [(3.9, 0.4), (4.8, 0.4), (4.8, 2.6), (3.9, 2.6)]
        panel(door, glass * 0.85)
    else:
        rear, front = corners[3], corners[4]
        belt = 1.0
        a, b = corners[2, 0], corners[5, 0]
        if kind == "van":
            rear, a = np.array([-0.1, 1.98]), -0.1
            belt = 1.12
        window = [(a + 0.25, belt), (rear[0] + 0.15, rear[1] - 0.1),
                  (front[0] - 0.08, front[1] - 0.1), (b - 0.25, belt)]  # fmt: skip
        panel(window, glass)
        post = (rear[0] + front[0]) / 2
        panel([(post, belt), (post + 0.08, belt), (post + 0.08, rear[1] - 0.08),
               (post, rear[1] - 0.08)], paint * 0.72)  # fmt: skip
        sill = [(corners[0, 0], 0.3), (corners[-1, 0], 0.3), (corners[-1, 0], 0.42),
                (corners[0, 0], 0.42)]  # fmt: skip
        panel(sill, paint * 0.45)
    for x in (-axle, axle):
        for size, color in (
            (1.22, paint * 0.42),
            (1.0, (24, 24, 26)),
            (0.58, (170, 174, 178)),
        ):
            panel((_RING * (radius * size) + (x, radius)).tolist(), color)
