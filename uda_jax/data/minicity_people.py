"""Minicity's people and two-wheelers, flat figures in metres."""

import numpy as np

from uda_jax.data.minicity_draw import Canvas, Pen, vary
from uda_jax.data.minicity_scene import Thing
from uda_jax.data.minicity_style import BICYCLE, MOTORCYCLE, PERSON, RIDER, City

_SKIN = ((236, 194, 164), (206, 150, 112), (150, 100, 72), (106, 70, 52))
_HAIR = ((40, 30, 26), (92, 60, 36), (196, 160, 96), (120, 120, 122), (24, 22, 24))
_TYRE = (34, 34, 38)


def _pick(rng, colors, city: City):
    return vary(rng, colors[rng.integers(len(colors))], city.hue_jitter)


def draw_person(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """A walking or standing person, 1.5 to 1.9 m tall."""
    city = canvas.city
    pen = Pen(canvas, thing.t, thing.s, flip=rng.random() < 0.5)
    if not pen.visible:
        return
    k = rng.uniform(0.88, 1.08)  # size
    stride = rng.uniform(0.0, 0.34) if rng.random() < 0.75 else 0.06
    top, legs = _pick(rng, city.clothes, city), _pick(rng, city.trousers, city)
    skin = np.array(_SKIN[rng.integers(4)], float)
    hair = np.array(_HAIR[rng.integers(5)], float)
    skirt = rng.random() < 0.25
    hip, chest, head = 0.9 * k, 1.42 * k, 1.62 * k

    def limb(a, b, widths, color):
        pen.limb(a, b, widths, color, PERSON)

    for sign, tone in ((-1, 0.78), (1, 1.0)):  # the far leg is darker
        knee = (sign * stride * 0.55, 0.48 * k)
        foot = (sign * stride * (1.0 if sign > 0 else 1.15), 0.07)
        limb((sign * 0.05, hip), knee, (0.2 * k, 0.16 * k), legs * tone)
        limb(knee, foot, (0.16 * k, 0.12 * k), (skin if skirt else legs) * tone)
        limb((foot[0] - 0.03, 0.05), (foot[0] + 0.13, 0.04), (0.11, 0.09), (40, 36, 36))
    swing = 0.9 * stride
    limb(
        (-0.12, chest - 0.1),
        (-0.16 - swing, hip + 0.02),
        (0.14 * k, 0.1 * k),
        top * 0.75,
    )
    torso = [(-0.21, chest - 0.03), (-0.13, chest + 0.06), (0.13, chest + 0.06),
             (0.21, chest - 0.03), (0.18, hip + 0.15), (0.19, hip - 0.06),
             (-0.19, hip - 0.06), (-0.18, hip + 0.15)]  # fmt: skip
    pen.fill([(x * k, y) for x, y in torso], top, PERSON)
    shaded = [(0.04, chest + 0.06), (0.13, chest + 0.06), (0.21, chest - 0.03),
              (0.19, hip - 0.06), (0.06, hip - 0.06)]  # fmt: skip
    pen.fill([(x * k, y) for x, y in shaded], top * 0.88, PERSON)
    if skirt:
        hem = 0.5 * k
        cloth = [(-0.18, hip + 0.05), (0.18, hip + 0.05), (0.3, hem), (-0.3, hem)]
        pen.fill(cloth, legs, PERSON)
    limb(
        (0.13, chest - 0.08), (0.2 + swing, hip + 0.04), (0.14 * k, 0.1 * k), top * 1.06
    )
    pen.disc(0.2 + swing, hip, 0.06, skin, PERSON)
    limb((0, chest), (0, head), (0.11, 0.11), skin * 0.9)
    pen.disc(0, head + 0.06, 0.135 * k, hair, PERSON, tall=1.12)
    pen.disc(0.035, head + 0.035, 0.105 * k, skin, PERSON, tall=1.1)
    if rng.random() < 0.35:
        bag = _pick(rng, city.awnings, city)
        pen.fill([(-0.34, hip), (-0.14, hip), (-0.14, hip + 0.42), (-0.34, hip + 0.42)],
                 bag, PERSON)  # fmt: skip


def _view(thing: Thing, camera) -> tuple[float, bool]:
    """How long the side of a thing looks (1: side on) and whether it points left."""
    sight = np.arctan2(
        thing.t - camera.offset + 0.5 * camera.bend * thing.s**2, thing.s
    )
    turn = np.sin(thing.heading - sight)
    return float(abs(turn)), bool(turn < 0)


def draw_two_wheeler(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """A bicycle or a motorcycle, parked or with its rider."""
    length, left = _view(thing, canvas.camera)
    motor = thing.kind.startswith("motor")
    ridden = thing.kind.endswith("cyclist")
    away = np.cos(thing.heading) > 0
    if length < 0.45:
        pen = Pen(canvas, thing.t, thing.s, flip=left)
        if pen.visible:
            _from_behind(pen, motor, ridden, away, canvas.city, rng)
        return
    pen = Pen(canvas, thing.t, thing.s, squash=max(length, 0.6), flip=left)
    if not pen.visible:
        return
    frame = _pick(rng, canvas.city.vehicles, canvas.city)
    if motor:
        _motorcycle(pen, frame)
    else:
        _bicycle(pen, frame)
    if ridden:
        _rider(pen, motor, canvas.city, rng)


def _bicycle(pen: Pen, frame):
    label = BICYCLE
    steel = np.asarray(frame, float)
    hub = [(-0.55, 0.36), (0.55, 0.36)]
    for x, y in hub:
        pen.disc(x, y, 0.38, _TYRE, label)
        pen.disc(x, y, 0.31, (126, 128, 130), label)
        for angle in np.arange(0, np.pi, np.pi / 4):
            dx, dy = 0.3 * np.cos(angle), 0.3 * np.sin(angle)
            pen.limb(
                (x - dx, y - dy), (x + dx, y + dy), (0.02, 0.02), (176, 178, 180), label
            )
        pen.disc(x, y, 0.06, (60, 60, 64), label)
    crank, seat, fork = (-0.05, 0.34), (-0.2, 0.84), (0.42, 0.86)
    pen.fill([crank, seat, fork], (112, 114, 116), label)
    for a, b in ((hub[0], crank), (hub[0], seat), (crank, seat), (crank, fork),
                 (seat, fork), (fork, hub[1])):  # fmt: skip
        pen.limb(a, b, (0.085, 0.085), steel, label)
    pen.limb(seat, (-0.24, 0.98), (0.06, 0.06), (50, 50, 54), label)
    pen.limb((-0.38, 1.0), (-0.1, 1.0), (0.12, 0.07), _TYRE, label)
    pen.limb(fork, (0.38, 1.08), (0.06, 0.06), (60, 60, 64), label)
    pen.limb((0.24, 1.1), (0.42, 1.06), (0.07, 0.06), _TYRE, label)


def _motorcycle(pen: Pen, paint):
    label = MOTORCYCLE
    paint = np.asarray(paint, float)
    for x in (-0.68, 0.72):
        pen.disc(x, 0.33, 0.34, _TYRE, label)
        pen.disc(x, 0.33, 0.2, (150, 152, 156), label)
        pen.disc(x, 0.33, 0.07, (60, 60, 64), label)
    pen.fill(
        [(-0.5, 0.28), (0.36, 0.28), (0.42, 0.7), (-0.42, 0.7)], (72, 74, 80), label
    )
    pen.limb((-0.9, 0.3), (-0.1, 0.3), (0.11, 0.09), (168, 170, 174), label)
    pen.fill([(-1.0, 0.62), (-0.9, 0.84), (-0.2, 0.8), (-0.1, 0.6), (-0.5, 0.5)],
             paint, label)  # fmt: skip
    pen.fill([(-0.2, 0.62), (-0.16, 0.88), (0.12, 1.0), (0.42, 0.92), (0.5, 0.66)],
             paint * 0.94, label)  # fmt: skip
    pen.limb((-0.82, 0.86), (-0.16, 0.86), (0.14, 0.12), (36, 36, 40), label)
    pen.limb((0.4, 0.98), (0.72, 0.33), (0.11, 0.1), (120, 122, 128), label)
    pen.fill([(0.36, 0.8), (0.62, 0.86), (0.56, 1.08), (0.38, 1.16)], paint, label)
    pen.limb((0.2, 1.14), (0.44, 1.04), (0.07, 0.07), (34, 34, 38), label)
    pen.disc(0.62, 0.94, 0.09, (250, 244, 214), label)
    pen.fill(
        [(0.45, 0.68), (0.96, 0.68), (0.98, 0.74), (0.5, 0.76)], paint * 0.9, label
    )


def _rider(pen: Pen, motor: bool, city: City, rng):
    top, legs = _pick(rng, city.clothes, city), _pick(rng, city.trousers, city)
    skin = np.array(_SKIN[rng.integers(4)], float)
    helmet = _pick(rng, city.vehicles if motor else city.awnings, city)
    hip = (-0.3, 0.98) if motor else (-0.22, 1.06)
    foot = (0.02, 0.3) if motor else (0.0, 0.24)
    knee = (0.24, 0.72)
    shoulder = (hip[0] + 0.28, hip[1] + 0.56)
    hand = (0.3, 1.12)
    pen.limb(hip, knee, (0.24, 0.18), legs, RIDER)
    pen.limb(knee, foot, (0.18, 0.12), legs * 0.9, RIDER)
    shoe = (foot[0] - 0.05, foot[1]), (foot[0] + 0.15, foot[1])
    pen.limb(*shoe, (0.12, 0.1), (36, 34, 34), RIDER)
    pen.limb(hip, shoulder, (0.32, 0.36), top, RIDER)
    pen.limb(shoulder, (0.2, 1.28), (0.17, 0.13), top * 0.85, RIDER)
    pen.limb((0.2, 1.28), hand, (0.13, 0.1), top * 0.85, RIDER)
    head = (shoulder[0] + 0.1, shoulder[1] + 0.26)
    pen.disc(*head, 0.14, skin, RIDER, tall=1.1)
    pen.fill([(head[0] - 0.17, head[1]), (head[0] - 0.14, head[1] + 0.14),
              (head[0], head[1] + 0.2), (head[0] + 0.14, head[1] + 0.13),
              (head[0] + 0.17, head[1] + 0.02)], helmet, RIDER)  # fmt: skip
    if motor:
        pen.disc(*head, 0.17, helmet, RIDER, tall=1.1)
        pen.bar(
            head[0], head[1] - 0.05, head[0] + 0.16, head[1] + 0.07, (40, 46, 56), RIDER
        )


def _from_behind(pen: Pen, motor: bool, ridden: bool, away: bool, city: City, rng):
    """Seen from the front or the rear: a narrow wheel, handlebars, a back."""
    label = MOTORCYCLE if motor else BICYCLE
    paint = _pick(rng, city.vehicles, city)
    wide = 0.2 if motor else 0.1
    pen.limb((0, 0.1), (0, 0.62), (wide, wide), _TYRE, label)
    pen.limb((0, 0.5), (0, 1.0), (0.1, 0.08), paint, label)
    if motor:
        pen.fill([(-0.2, 0.45), (0.2, 0.45), (0.24, 0.8), (0.14, 0.98), (-0.14, 0.98),
                  (-0.24, 0.8)], paint, label)  # fmt: skip
        lamp = (214, 40, 36) if away else (250, 244, 214)
        pen.disc(0, 0.78, 0.1, lamp, label)
    else:
        pen.bar(-0.2, 0.3, 0.2, 0.36, (70, 70, 74), label)  # pedals
        pen.limb((-0.12, 0.97), (0.12, 0.97), (0.1, 0.1), _TYRE, label)
    pen.limb((-0.34, 1.06), (0.34, 1.06), (0.07, 0.07), (44, 44, 48), label)
    if not ridden:
        return
    top, legs = _pick(rng, city.clothes, city), _pick(rng, city.trousers, city)
    skin = np.array(_SKIN[rng.integers(4)], float)
    helmet = _pick(rng, city.vehicles if motor else city.awnings, city)
    for x in (-1, 1):
        pen.limb((x * 0.1, 0.98), (x * 0.2, 0.62), (0.2, 0.16), legs, RIDER)
        pen.limb((x * 0.2, 0.62), (x * 0.17, 0.3), (0.15, 0.12), legs * 0.88, RIDER)
        pen.limb((x * 0.2, 1.46), (x * 0.34, 1.1), (0.15, 0.11), top * 0.86, RIDER)
    pen.fill([(-0.2, 0.92), (0.2, 0.92), (0.24, 1.48), (0.14, 1.58), (-0.14, 1.58),
              (-0.24, 1.48)], top, RIDER)  # fmt: skip
    pen.disc(0, 1.74, 0.14, skin if not away else skin * 0.85, RIDER, tall=1.1)
    pen.disc(0, 1.79, 0.155, helmet, RIDER, tall=0.95)
    if not away:
        pen.disc(0, 1.71, 0.1, (48, 54, 62) if motor else skin, RIDER)
