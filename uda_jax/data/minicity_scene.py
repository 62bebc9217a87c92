"""Minicity's layout: where street, houses and things of one picture stand."""

from dataclasses import dataclass

import numpy as np

from uda_jax.data.minicity_draw import WIDTH, Camera
from uda_jax.data.minicity_style import City

FAR = 130.0  # metres; nothing but the skyline stands farther


@dataclass(frozen=True)
class Street:
    """The ground, in metres: s along the street, t to the right of its middle."""

    width: float
    sidewalk: float
    junction: tuple[float, float] | None  # s of the crossing road's edges
    zebra: float | None  # s of the near edge of a zebra crossing
    lanes: int

    @property
    def wall(self) -> float:
        """t of the facades on the right (negative on the left)."""
        return self.width / 2 + self.sidewalk


@dataclass(frozen=True)
class Thing:
    """Something that stands at (t, s); `heading` 0 looks away from the camera."""

    kind: str
    t: float
    s: float
    heading: float = 0.0
    length: float = 0.0  # extent along the street, for buildings and hedges
    order: float = 0.0  # farther is drawn first


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn."""

    camera: Camera
    street: Street
    things: tuple[Thing, ...]
    sunny_side: int  # -1: the left facades are in the sun


def compose(city: City, rng: np.random.Generator) -> Scene:
    """Draws the layout of one picture of `city` from `rng`."""
    street = _street(city, rng)
    bend = city.bend * rng.uniform(-1, 1) if rng.random() < 0.6 else 0.0
    camera = Camera(
        focal=rng.uniform(*city.focal),
        height=rng.uniform(*city.camera_height),
        pitch=np.deg2rad(rng.uniform(*city.pitch)),
        offset=street.width * rng.uniform(*city.camera_offset),
        bend=bend,
    )
    placer = _Placer(city, street, camera, rng)
    placer.buildings()
    placer.greenery()
    placer.furniture()
    placer.vehicles()
    placer.people()
    things = sorted(placer.things, key=lambda thing: -thing.order)
    return Scene(camera, street, tuple(things), int(rng.choice([-1, 1])))


def _street(city: City, rng: np.random.Generator) -> Street:
    width = rng.uniform(*city.road_width)
    junction = zebra = None
    if rng.random() < city.junction_probability:
        near = rng.uniform(14, 32)
        junction = (near, near + rng.uniform(7, 11))
        if rng.random() < 0.7:
            zebra = near - 4.2
    elif rng.random() < 0.3:
        zebra = rng.uniform(9, 22)
    lanes = 2 if width < 11.5 else 4
    return Street(width, rng.uniform(*city.sidewalk_width), junction, zebra, lanes)


class _Placer:
    """Collects the things of a scene; each method places one family."""

    def __init__(self, city, street: Street, camera: Camera, rng):
        self.city, self.street, self.camera, self.rng = city, street, camera, rng
        self.things: list[Thing] = []
        # t, s, half of the width and half of the length of what stands already.
        self.taken: list[tuple[float, float, float, float]] = []

    def add(self, kind, t, s, *, heading=0.0, length=0.0, order=None):
        order = s if order is None else order
        self.things.append(
            Thing(kind, float(t), float(s), float(heading), float(length), float(order))
        )

    def visible_from(self, t: float) -> float:
        """The least s at which something at t is inside the picture."""
        seen = abs(t - self.camera.offset) * self.camera.focal / (WIDTH / 2)
        return max(seen * 1.02, 5.5)

    def free(self, t, s, wide, long) -> bool:
        """Whether a place is free; if so, takes it."""
        for t2, s2, wide2, long2 in self.taken:
            if abs(t - t2) < wide + wide2 and abs(s - s2) < long + long2:
                return False
        self.taken.append((t, s, wide, long))
        return True

    def near(self, t: float, far: float, power: float = 1.7) -> float:
        """A distance in the picture, near ones more often."""
        least = self.visible_from(t)
        return least + max(far - least, 4.0) * self.rng.random() ** power

    def in_junction(self, s, margin=0.0) -> bool:
        junction = self.street.junction
        return junction is not None and junction[0] - margin < s < junction[1] + margin

    def buildings(self):
        rng, city, street = self.rng, self.city, self.street
        for side in (-1, 1):
            s = max(self.visible_from(side * street.wall) * 0.7, 2.0)
            s += rng.uniform(-3, 0)
            while s < FAR:
                length = rng.uniform(*city.building_length) * (1 + s / 90)
                if street.junction is not None:
                    low = street.junction[0] - street.sidewalk
                    high = street.junction[1] + street.sidewalk
                    if s < high and s + length > low:
                        if low - s > 3.0:
                            length = low - s
                        else:
                            s = high
                            continue
                start = max(s, 1.5)
                garden = rng.random() < city.gap_probability and s > 8
                kind = "garden" if garden else "building"
                self.add(
                    kind,
                    side * street.wall,
                    start,
                    length=s + length - start,
                    order=s + length,
                )
                s += length + (0.0 if rng.random() < 0.85 else rng.uniform(0.2, 1.0))

    def greenery(self):
        rng, city, street = self.rng, self.city, self.street
        for side in (-1, 1):
            line = side * (street.width / 2 + 0.75)
            if rng.random() < 0.8:
                s = self.visible_from(line) + rng.uniform(-1, 8)
                while s < 90:
                    if not self.in_junction(s, 3.0) and self.free(line, s, 0.4, 0.8):
                        self.add("tree", line + rng.uniform(-0.15, 0.15), s)
                    s += rng.uniform(*city.tree_spacing)
            if rng.random() < city.hedge_probability:
                line = side * (street.wall - 0.45)
                s = self.visible_from(line) + rng.uniform(-2, 15)
                length = rng.uniform(4, 14)
                if not (self.in_junction(s, 4) or self.in_junction(s + length, 4)):
                    self.add("hedge", line, s, length=length, order=s + length)

    def furniture(self):
        rng, city, street = self.rng, self.city, self.street
        spots = []
        if street.junction is not None:
            spots += [(side, street.junction[0] - 1.0) for side in (-1, 1)]
        elif street.zebra is not None:
            spots += [(side, street.zebra - 0.6) for side in (-1, 1)]
        spots += [
            (int(rng.choice([-1, 1])), None) for _ in range(rng.poisson(city.lights))
        ]
        for side, s in spots:
            t = side * (street.width / 2 + 0.45)
            s = self.near(t, 34) if s is None else s
            if s > self.visible_from(t) and self.free(t, s, 0.25, 0.4):
                self.add("light", t, s)
        for _ in range(rng.poisson(city.signs)):
            t = rng.choice([-1, 1]) * (street.width / 2 + rng.uniform(0.35, 0.7))
            s = self.near(t, 38)
            if not self.in_junction(s) and self.free(t, s, 0.45, 0.5):
                self.add("sign", t, s)
        for side in (-1, 1):
            if rng.random() < 0.5:
                t = side * (street.width / 2 + 0.4)
                for s in np.arange(self.visible_from(t) + rng.uniform(0, 14), 90, 22):
                    if not self.in_junction(s) and self.free(t, s, 0.2, 0.3):
                        self.add("lamp", t, s)

    def vehicles(self):
        rng, city, street = self.rng, self.city, self.street
        lane = street.width / street.lanes
        # Where two lanes share the road with parked cars, traffic keeps to the middle.
        keep = max(min(lane / 2, street.width / 2 - 3.05), 0.6)
        inward = lane / 2 - keep if street.lanes == 2 else 0.0
        if rng.random() < city.bus_probability:
            side = int(rng.choice([-1, 1]))
            t = side * (lane / 2 - inward + (street.lanes // 2 - 1) * lane)
            s = max(self.near(t, 38), 11.0)
            if abs(t - self.camera.offset) < 1.8:
                s += 7
            if self.free(t, s, 1.35, 6.5):
                self.add("bus", t, s, heading=0.0 if side > 0 else np.pi)
        for side in (-1, 1):
            t = side * (street.width / 2 - 1.05)
            s = self.visible_from(t) + rng.uniform(-1, 3)
            parking = rng.random() < 0.75
            while parking and s < 75:
                blocked = self.in_junction(s, 5) or (
                    street.zebra is not None and abs(s - street.zebra - 1.5) < 5
                )
                wanted = rng.random() < city.parked_share and not blocked
                if wanted and self.free(t, s, 0.92, 2.4):
                    heading = (0.0 if side > 0 else np.pi) + rng.normal(0, 0.03)
                    self.add(self._car(), t, s, heading=heading)
                s += rng.uniform(5.4, 6.2)
        for _ in range(rng.poisson(city.cars)):
            index = int(rng.integers(0, street.lanes))
            t = (index + 0.5) * lane - street.width / 2
            t += rng.normal(0, 0.15) - np.sign(t) * inward
            s = max(self.near(t, 70), 8.0 if t > 0 else 7.0)
            heading = (0.0 if t > 0 else np.pi) + rng.normal(0, 0.02)
            if self.in_junction(s) and rng.random() < 0.6:
                heading = rng.choice([-1, 1]) * (np.pi / 2 + rng.normal(0, 0.1))
            if self.free(t, s, 0.95, 2.8):
                self.add(self._car(), t, s, heading=heading)

    def _car(self) -> str:
        return str(self.rng.choice(["hatch", "sedan", "van"], p=[0.5, 0.33, 0.17]))

    def people(self):
        rng, city, street = self.rng, self.city, self.street
        inner, outer = street.width / 2 + 0.5, street.wall - 0.5
        for _ in range(rng.poisson(city.persons)):
            if street.zebra is not None and rng.random() < 0.25:
                t = rng.uniform(-street.width / 2, street.width / 2)
                s = street.zebra + rng.uniform(0.4, 2.6)
                if s < self.visible_from(t):
                    continue
            else:
                t = rng.choice([-1, 1]) * rng.uniform(inner, outer)
                s = self.near(t, 45)
            if self.free(t, s, 0.35, 0.35):
                self.add("person", t, s, heading=rng.uniform(0, 2 * np.pi))
                if rng.random() < 0.3:
                    self.add("person", t + 0.62, s + rng.uniform(-0.3, 0.3))
        for kind, mean in (
            ("cyclist", city.cyclists),
            ("motorcyclist", city.motorcyclists),
        ):
            for _ in range(rng.poisson(mean)):
                side = int(rng.choice([-1, 1]))
                t = side * rng.uniform(0.12, 0.42) * street.width
                s = self.near(t, 38)
                heading = (0.0 if side > 0 else np.pi) + rng.normal(0, 0.35)
                if rng.random() < 0.35:
                    heading = rng.choice([-1, 1]) * rng.uniform(0.9, 2.2)
                if self.free(t, s, 0.4, 1.2):
                    self.add(kind, t, s, heading=heading)
        for kind, mean in (
            ("bicycle", city.parked_bicycles),
            ("motorcycle", city.parked_motorcycles),
        ):
            for _ in range(rng.poisson(mean)):
                t = rng.choice([-1, 1]) * rng.uniform(inner, min(inner + 1.0, outer))
                s = self.near(t, 32)
                heading = rng.choice([-1, 1]) * rng.uniform(0.8, 1.9)
                for i in range(int(rng.integers(1, 3))):
                    if self.free(t, s + 0.8 * i, 0.45, 0.35):
                        self.add(kind, t, s + 0.8 * i, heading=heading)
