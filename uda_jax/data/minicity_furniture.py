"""Minicity's trees, hedges, gardens, traffic lights, signs and lamps."""

import numpy as np

from uda_jax.data.minicity_draw import Canvas, Pen, vary
from uda_jax.data.minicity_scene import Thing
from uda_jax.data.minicity_style import LIGHT, POLE, SIGN, VEGETATION

_STEEL = (84, 88, 94)
_CIRCLE = {
    n: np.array([(np.cos(a), np.sin(a)) for a in np.arange(n) * 2 * np.pi / n])
    for n in (12, 16)
}


def _blob(rng, radius, rough=0.16, points=16):
    radius = radius * (1 + rough * rng.standard_normal(points))
    return _CIRCLE[points] * radius[:, None]


def draw_tree(canvas: Canvas, thing: Thing, rng: np.random.Generator, base=0.0):
    """A trunk and a crown of overlapping blobs, lighter towards the light."""
    city = canvas.city
    pen = Pen(canvas, thing.t, thing.s, base=base)
    if not pen.visible:
        return
    leaf = vary(rng, city.foliage[rng.integers(len(city.foliage))], city.hue_jitter)
    bark = vary(rng, (112, 82, 58), 6)
    stem, size = rng.uniform(2.2, 3.2), rng.uniform(1.3, 2.0)
    pen.limb((0, 0), (rng.normal(0, 0.1), stem + 0.5), (0.34, 0.2), bark, VEGETATION)
    pen.limb((0.03, 0.1), (0.05, stem), (0.1, 0.07), bark * 0.8, VEGETATION)
    if city.texture == 0:
        blobs = [(0, stem + size, size), (-0.55 * size, stem + 0.7 * size, 0.72 * size),
                 (0.6 * size, stem + 0.75 * size, 0.68 * size),
                 (0.05 * size, stem + 1.7 * size, 0.66 * size)]  # fmt: skip
        for tone, dx, grow in ((0.8, 0.0, 1.0), (1.0, -0.1, 0.86), (1.14, -0.2, 0.52)):
            for x, y, r in blobs:
                ring = _blob(rng, r * grow, 0.03, 12)
                pen.fill(
                    np.add(ring, (x + dx * r, y - dx * r)), leaf * tone, VEGETATION
                )
        return
    counts = (7, 7, 5) if pen.scale > 14 else (4, 4, 2) if pen.scale > 6 else (2, 2, 0)
    blobs, tones = [], []
    for ring, count in enumerate(counts):
        for _ in range(count):
            angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * size * 0.95
            x = far * np.cos(angle) * 1.1
            y = stem + size + far * np.sin(angle) + 0.25 * ring
            ring_points = _blob(rng, size * rng.uniform(0.36, 0.6), 0.2)
            blobs.append(np.add(ring_points, (x, y)))
            tones.append((0.68, 0.9, 1.08)[ring] * rng.uniform(0.93, 1.07))
    pen.foliage(blobs, tones, leaf, rng, city.texture, 0.12)


def draw_hedge(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """A clipped (source) or shaggy (target) hedge along the houses."""
    city = canvas.city
    leaf = vary(rng, city.foliage[rng.integers(len(city.foliage))], city.hue_jitter)
    tall = rng.uniform(0.8, 1.3)
    side = np.sign(thing.t)
    inner, outer = thing.t - side * 0.35, thing.t + side * 0.45
    s0, s1 = max(thing.s, 1.2), thing.s + thing.length
    if city.texture == 0:
        front = [(inner, 0, s0), (outer, 0, s0), (outer, tall, s0), (inner, tall, s0)]
        top = [
            (inner, tall, s0),
            (outer, tall, s0),
            (outer, tall, s1),
            (inner, tall, s1),
        ]
        face = [(inner, 0, s0), (inner, 0, s1), (inner, tall, s1), (inner, tall, s0)]
        for quad, tone in ((top, 1.15), (face, 0.95), (front, 0.8)):
            canvas.surface(np.array(quad), leaf * tone, VEGETATION)
        return
    for s in np.arange(s1, s0, -0.95):
        pen = Pen(canvas, thing.t, s)
        if pen.visible:
            points = _blob(rng, 0.62, 0.14) * [1, tall] + [0, 0.5 * tall]
            points[:, 1] = np.maximum(points[:, 1], 0)
            tone = rng.uniform(0.8, 1.05)
            pen.foliage([points], [tone], leaf, rng, city.texture, 0.1)


def draw_garden(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """Trees and bushes between two houses."""
    side = np.sign(thing.t)
    for s in np.arange(thing.s + thing.length, thing.s, -3.2):
        for deep in (6.0, 1.6):
            place = Thing("tree", thing.t + side * (deep + rng.uniform(0, 1)), float(s))
            if deep > 2:
                draw_tree(canvas, place, rng, base=-1.2)
            else:
                pen = Pen(canvas, place.t, place.s)
                if pen.visible:
                    leaf = vary(rng, canvas.city.foliage[0], canvas.city.hue_jitter)
                    points = np.add(_blob(rng, 1.3, 0.1), (0, 0.7))
                    points[:, 1] = np.maximum(points[:, 1], 0)
                    strength = canvas.city.texture
                    pen.foliage([points], [0.9], leaf, rng, strength, 0.12)


def draw_light(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """A traffic light on its pole, sometimes with a mast arm over the road."""
    city = canvas.city
    pen = Pen(canvas, thing.t, thing.s)
    if not pen.visible:
        return
    steel = np.array(_STEEL, float) * (1 if city.sun > 0.1 else 0.7)
    shell = np.array((38, 42, 48) if city.sun > 0.1 else (58, 62, 50), float)
    heads = [(0.0, 2.45)]
    pen.limb((0, 0), (0, 3.4), (0.15, 0.13), steel, POLE)
    if rng.random() < (0.45 if city.sun > 0.1 else 0.15):
        reach = -np.sign(thing.t) * 2.6
        pen.limb((0, 3.4), (0, 5.3), (0.13, 0.12), steel, POLE)
        pen.limb((0, 5.2), (reach, 5.3), (0.12, 0.1), steel, POLE)
        heads.append((reach, 4.55))
    on = int(rng.integers(0, 3))
    colors = ((238, 52, 46), (250, 186, 40), (52, 210, 110))
    for x, y in heads:
        pen.bar(x - 0.27, y - 0.08, x + 0.27, y + 1.18, (20, 20, 22), LIGHT)
        pen.bar(x - 0.22, y - 0.03, x + 0.22, y + 1.13, shell, LIGHT)
        for i, color in enumerate(colors):
            tone = 1.0 if i == on else 0.3
            at = y + 0.92 - 0.36 * i
            if i == on:
                pen.disc(x, at, 0.17, np.array(color) * 0.7, LIGHT)
            pen.disc(x, at, 0.135, np.array(color) * tone, LIGHT)


def draw_sign(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """A round, triangular, square or octagonal sign, seldom two on one pole."""
    city = canvas.city
    pen = Pen(canvas, thing.t, thing.s)
    if not pen.visible:
        return
    steel = np.array((150, 154, 158) if city.sun > 0.1 else (112, 112, 112), float)
    y = rng.uniform(2.2, 2.7)
    pen.limb((0, 0), (0, y + 0.4), (0.09, 0.09), steel, POLE)
    count = 2 if rng.random() < 0.3 else 1
    for i in range(count):
        _plate(pen, y - 0.9 * i, int(rng.integers(0, 6)), city)


def _plate(pen: Pen, y: float, form: int, city):
    red, blue, yellow = (np.array(c, float) for c in city.signs_colors)
    white = np.array(city.marking, float)
    r = 0.46
    if form == 0:  # speed limit
        pen.disc(0, y, r, red, SIGN)
        pen.disc(0, y, 0.68 * r, white, SIGN)
        pen.bar(-0.16, y - 0.12, -0.03, y + 0.12, (30, 30, 34), SIGN)
        pen.bar(0.03, y - 0.12, 0.16, y + 0.12, (30, 30, 34), SIGN)
    elif form == 1:  # warning
        for k, color in ((1.25, red), (0.8, white)):
            pen.fill([(-0.87 * r * k, y - 0.4 * r * k), (0.87 * r * k, y - 0.4 * r * k),
                      (0, y + 0.95 * r * k)], color, SIGN)  # fmt: skip
        pen.bar(-0.04, y - 0.04, 0.04, y + 0.2, (30, 30, 34), SIGN)
    elif form == 2:  # direction
        pen.disc(0, y, r, blue, SIGN)
        pen.limb((0, y - 0.25), (0, y + 0.1), (0.1, 0.1), white, SIGN)
        pen.fill([(-0.18, y + 0.05), (0.18, y + 0.05), (0, y + 0.32)], white, SIGN)
    elif form == 3:  # crossing
        pen.bar(-r, y - r, r, y + r, blue, SIGN)
        pen.fill([(-0.34, y - 0.32), (0.34, y - 0.32), (0, y + 0.36)], white, SIGN)
    elif form == 4:  # stop
        angle = np.arange(8) * np.pi / 4 + np.pi / 8
        ring = np.stack([np.cos(angle), np.sin(angle)], -1)
        pen.fill(ring * r * 1.05 + [0, y], white, SIGN)
        pen.fill(ring * r * 0.95 + [0, y], red, SIGN)
        pen.bar(-0.28, y - 0.08, 0.28, y + 0.08, white, SIGN)
    else:  # priority
        for k, color in ((1.15, white), (0.85, yellow)):
            k *= r
            pen.fill([(-k, y), (0, y - k), (k, y), (0, y + k)], color, SIGN)


def draw_lamp(canvas: Canvas, thing: Thing, rng: np.random.Generator):
    """A street lamp: a mast (source) or a lantern (target)."""
    pen = Pen(canvas, thing.t, thing.s)
    if not pen.visible:
        return
    steel = np.array(_STEEL, float) * 0.8
    reach = -np.sign(thing.t)
    if canvas.city.sun > 0.1:
        pen.limb((0, 0), (0, 7.0), (0.16, 0.1), steel, POLE)
        pen.limb((0, 6.95), (reach * 1.8, 7.2), (0.1, 0.08), steel, POLE)
        pen.limb(
            (reach * 1.4, 7.15), (reach * 2.1, 7.25), (0.2, 0.16), (236, 236, 226), POLE
        )
    else:
        pen.limb((0, 0), (0, 3.4), (0.14, 0.09), (40, 44, 42), POLE)
        pen.fill(
            [(-0.14, 3.4), (0.14, 3.4), (0.24, 3.95), (-0.24, 3.95)],
            (232, 214, 160),
            POLE,
        )
        pen.fill([(-0.28, 3.95), (0.28, 3.95), (0, 4.25)], (40, 44, 42), POLE)
