"""Minicity's canvas: a pinhole camera, and image and label drawn by the same polygons.

Everything is drawn at twice the final size, far to near, into four channels: red,
green, blue and the label's id, so that one fill does both.  `Canvas.finish` averages
the colours (edges blend) and samples the id (ids never blend).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from uda_jax.data.minicity_style import VEGETATION, City, Color

HEIGHT, WIDTH = 256, 512
SCALE = 2  # supersampling
_SHIFT = 4  # fractional bits of OpenCV's polygon vertices
_NEAR = 0.4  # metres; nothing nearer is drawn

_ANGLE = np.arange(20) * np.pi / 10
_RING = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], -1)
_HALF = np.linspace(np.pi / 2, 3 * np.pi / 2, 6)
_CAP = np.stack([np.cos(_HALF), np.sin(_HALF)], -1)
_LEVELS = np.arange(256)[:, None] / 128
_CAPSULE = np.concatenate([_CAP, -_CAP])  # along and across a limb's axis


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks along a street.

    Street coordinates are metres (t to the right of the road's middle, y up, s along
    the street); a bent street moves a point sideways by bend / 2 * s^2.
    """

    focal: float
    height: float
    pitch: float  # radians, positive looks down
    offset: float  # t of the camera
    bend: float = 0.0  # 1/metres

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[N,3] (t, y, s) -> pixels [N,2] (column, row) and depths [N] in metres."""
        across, up, s = np.asarray(points, np.float64).T
        across = across - self.offset
        if self.bend:
            across += 0.5 * self.bend * s * s
        up = up - self.height
        cos, sin = math.cos(self.pitch), math.sin(self.pitch)
        depth = s * cos - up * sin
        scale = self.focal / np.maximum(depth, _NEAR)
        pixels = np.empty((len(s), 2))
        pixels[:, 0] = across * scale + WIDTH / 2
        pixels[:, 1] = HEIGHT / 2 - (up * cos + s * sin) * scale
        return pixels, depth

    def ground(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Where each supersampled pixel below the horizon meets the ground.

        Returns t [R,W'], s [R,1] in metres and the first row of the R.
        """
        rows = (np.arange(HEIGHT * SCALE) + 0.5) / SCALE
        columns = (np.arange(WIDTH * SCALE, dtype=np.float32) + 0.5) / SCALE
        up = (HEIGHT / 2 - rows) / self.focal
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        fall = up * cos - sin
        first = int(np.argmax(fall < -self.height / 600.0))
        fall, up = fall[first:], up[first:]
        reach = -self.height / fall
        s = (reach * (up * sin + cos))[:, None]
        across = (columns - WIDTH / 2) / np.float32(self.focal)
        t = across[None, :] * reach[:, None].astype(np.float32)
        t += (self.offset - 0.5 * self.bend * s * s).astype(np.float32)
        return t, s.astype(np.float32), first


@lru_cache(maxsize=4)
def noise_tile(kind: str = "cloud") -> np.ndarray:
    """A periodic texture float32 [512,512], mean 0, standard deviation 1.

    `cloud` has equal power per octave, `grain` is fine, `leaves` is blotchy.
    """
    octaves = {
        "cloud": ((4, 1.0), (8, 0.6), (16, 0.4), (32, 0.25), (64, 0.15)),
        "grain": ((64, 0.5), (128, 0.7), (256, 0.8), (512, 0.8)),
        "leaves": ((16, 0.5), (48, 0.8), (96, 0.9), (200, 0.6)),
    }[kind]
    rng = np.random.default_rng([20220822, len(kind)])
    tile = np.zeros((512, 512), np.float32)
    for cells, amplitude in octaves:
        grid = rng.standard_normal((cells, cells)).astype(np.float32)
        grid = np.pad(grid, 2, mode="wrap")
        pixels = 512 / cells
        size = round((cells + 4) * pixels)
        big = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        start = round(2 * pixels)
        tile += amplitude * big[start : start + 512, start : start + 512]
    return (tile - tile.mean()) / tile.std()


def vary(rng: np.random.Generator, color: Color, spread: float) -> np.ndarray:
    """A colour near `color`, float [3]: a common and a smaller separate change."""
    shift = rng.normal(0, spread) + rng.normal(0, spread / 2, 3)
    return np.minimum(np.maximum(np.asarray(color, np.float64) + shift, 0), 255)


@lru_cache(maxsize=8)
def _darker(factor: float) -> np.ndarray:
    """Table [256,1,4] that multiplies colours and leaves ids."""
    ids = np.arange(256)
    colors = np.round(ids * factor)
    return np.stack([colors] * 3 + [ids], -1).astype(np.uint8)[:, None]


class Canvas:
    """Image and label of one picture while it is drawn."""

    def __init__(self, camera: Camera, city: City, haze: float, haze_color: Color):
        self.camera = camera
        self.city = city
        # Red, green, blue, id.
        self.pixels = np.zeros((HEIGHT * SCALE, WIDTH * SCALE, 4), np.uint8)
        self._haze = float(haze)
        self.haze_color = np.asarray(haze_color, np.float64)
        self._haze_rgb = tuple(self.haze_color.tolist())

    @property
    def label(self) -> np.ndarray:
        """The ids, a view uint8 [512,1024]."""
        return self.pixels[..., 3]

    def haze(self, depth):
        """Share of the haze's colour at a depth in metres, in [0, 1)."""
        return 1 - np.exp(-self._haze * np.maximum(depth, 0))

    def fogged(self, color, depth: float) -> tuple[float, float, float]:
        """`color` as it looks through the haze at `depth`."""
        b = math.exp(-self._haze * max(depth, 0.0))
        a = 1 - b
        x, y, z = self._haze_rgb
        red, green, blue = color.tolist() if isinstance(color, np.ndarray) else color
        return b * red + a * x, b * green + a * y, b * blue + a * z

    @staticmethod
    def _bounds(big: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        (x0, y0), (x1, y1) = big.min(0).tolist(), big.max(0).tolist()
        low = (max(int(x0), 0), max(int(y0), 0))
        return low, (min(int(x1) + 2, WIDTH * SCALE), min(int(y1) + 2, HEIGHT * SCALE))

    @staticmethod
    def _fixed(points: np.ndarray) -> np.ndarray:
        fixed = points * float(SCALE << _SHIFT)
        fixed -= (1 << _SHIFT) / 2
        np.minimum(fixed, 1e6, out=fixed)
        np.maximum(fixed, -1e6, out=fixed)
        return np.rint(fixed, out=fixed).astype(np.int32)

    def polygon(self, points: np.ndarray, color, label: int, depth: float):
        """Fills pixels [N,2] (final size) with a colour and an id."""
        color = (*self.fogged(color, depth), label)
        cv2.fillPoly(self.pixels, [self._fixed(points)], color, cv2.LINE_8, _SHIFT)

    def polygons(self, points: np.ndarray, counts, colors, label: int, depth: float):
        """As `polygon` in order; `points` of all, `counts` of each."""
        fixed = self._fixed(points)
        at = 0
        for count, color in zip(counts, colors, strict=True):
            color = (*self.fogged(color, depth), label)
            part = [fixed[at : at + count]]
            cv2.fillPoly(self.pixels, part, color, cv2.LINE_8, _SHIFT)
            at += count

    def surface(self, points3: np.ndarray, color, label: int):
        """Fills a polygon [N,3] in street coordinates; skipped if it is behind."""
        pixels, depth = self.camera.project(points3)
        if depth.min() > _NEAR:
            self.polygon(pixels, color, label, float(depth.mean()))

    def surfaces(self, quads: np.ndarray, color, label: int):
        """As `surface` for [M,4,3] of one colour that do not overlap."""
        pixels, depth = self.camera.project(quads.reshape(-1, 3))
        if depth.min() > _NEAR:
            fixed = self._fixed(pixels).reshape(-1, 4, 2)
            color = (*self.fogged(color, float(depth.mean())), label)
            cv2.fillPoly(self.pixels, list(fixed), color, cv2.LINE_8, _SHIFT)

    def region(
        self, points: np.ndarray
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Bounding slices of a polygon [N,2] and its mask there; None if outside."""
        big = points * SCALE
        low, high = self._bounds(big)
        if high[0] <= low[0] or high[1] <= low[1]:
            return None
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        fixed = self._fixed(points) - np.array(low, np.int32) * (1 << _SHIFT)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_8, _SHIFT)
        return (slice(low[1], high[1]), slice(low[0], high[0])), mask

    def shade(self, points: np.ndarray, factor: float):
        """Multiplies the image inside a polygon [N,2]; the label stays."""
        found = self.region(points)
        if found is None:
            return
        where, mask = found
        patch = self.pixels[where]
        cv2.copyTo(cv2.LUT(patch, _darker(factor)), mask, patch)

    def foliage(self, blobs, tones, color, depth, rng, strength: float, cell: float):
        """Overlapping leafy polygons [N,2], drawn in order, each with its brightness.

        `cell` is the size of a leaf in final pixels.
        """
        points = np.concatenate(blobs)
        low, high = self._bounds(points * SCALE)
        if high[0] <= low[0] or high[1] <= low[1]:
            return
        w, h = high[0] - low[0], high[1] - low[1]
        fixed = self._fixed(points) - np.array(low, np.int32) * (1 << _SHIFT)
        tone = np.zeros((h, w), np.uint8)
        at = 0
        for blob, level in zip(blobs, tones, strict=True):
            part = [fixed[at : at + len(blob)]]
            cv2.fillPoly(tone, part, round(level * 128), cv2.LINE_8, _SHIFT)
            at += len(blob)
        # About four texels of the tile are one leaf; a far crown sees a mean of leaves.
        step = min(max(4.0 / max(cell * SCALE, 0.5), 0.05), 1.6)
        th, tw = min(int(h * step) + 2, 511), min(int(w * step) + 2, 511)
        y, x = rng.integers(0, 512 - th), rng.integers(0, 512 - tw)
        patch = cv2.resize(noise_tile("leaves")[y : y + th, x : x + tw], (w, h))
        patch *= strength * 0.22
        patch += 1
        patch *= 1.12 - np.arange(h, dtype=np.float32)[:, None] * (0.3 / h)
        level = cv2.multiply(tone, patch, dtype=cv2.CV_8U)
        fog = self.haze(depth)
        table = np.full((256, 4), VEGETATION, np.uint8)
        colors = _LEVELS * ((1 - fog) * np.asarray(color, float))
        colors += fog * self.haze_color
        table[:, :3] = np.minimum(colors, 255, out=colors)
        leaves = table.view(np.uint32)[:, 0].take(level).view(np.uint8)
        where = (slice(low[1], high[1]), slice(low[0], high[0]))
        cv2.copyTo(leaves.reshape(h, w, 4), tone, self.pixels[where])

    def paste(self, texture, corners3: np.ndarray, outline3: np.ndarray, label: int):
        """Maps a texture uint8 [h,w,3] on a quad [4,3], within `outline3` [N,3].

        The corners are those of the texture: top left, top right, bottom right, bottom
        left, in street coordinates, on one upright plane with the outline.  The caller
        has put the haze on the texture.
        """
        both, depth = self.camera.project(np.concatenate([corners3, outline3]))
        if depth.min() <= _NEAR:
            return
        found = self.region(both[4:])
        if found is None:
            return
        where, mask = found
        low = (where[1].start, where[0].start)
        h, w = texture.shape[:2]
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(
            corners, (both[:4] * SCALE - low - 0.5).astype(np.float32)
        )
        texture = cv2.cvtColor(texture, cv2.COLOR_RGB2RGBA)
        texture[..., 3] = label
        drawn = cv2.warpPerspective(
            texture,
            matrix,
            mask.shape[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        cv2.copyTo(drawn, mask, self.pixels[where])

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [256,512,3] RGB and label uint8 [256,512] of raw ids."""
        small = cv2.resize(self.pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        image = cv2.cvtColor(small, cv2.COLOR_RGBA2RGB)
        return image, np.ascontiguousarray(self.label[::SCALE, ::SCALE])


class Pen:
    """Draws flat shapes in metres on an upright sheet that faces the camera."""

    def __init__(
        self, canvas: Canvas, t: float, s: float, *, squash=1.0, flip=False, base=0.0
    ):
        pixels, depth = canvas.camera.project(np.array([[t, base, s]]))
        self.canvas = canvas
        self.depth = float(depth[0])
        self.scale = canvas.camera.focal / max(self.depth, _NEAR)  # pixels per metre
        self._origin = pixels[0]
        self._stretch = np.array([-squash if flip else squash, -1.0]) * self.scale

    @property
    def visible(self) -> bool:
        reach = 4 * self.scale
        inside = -reach < self._origin[0] < WIDTH + reach
        return self.depth > 1.5 and self.scale > 1.2 and inside

    def pixels(self, points) -> np.ndarray:
        return np.asarray(points, np.float64) * self._stretch + self._origin

    def fill(self, points, color, label: int):
        """A polygon [N,2] (x right, y up, metres)."""
        self.canvas.polygon(self.pixels(points), color, label, self.depth)

    def disc(self, x, y, radius, color, label: int, *, tall=1.0):
        self.fill(_RING * (radius, radius * tall) + (x, y), color, label)

    def limb(self, start, end, widths, color, label: int):
        """A rounded bar from `start` to `end` with a width at either end."""
        (x0, y0), (x1, y1) = start, end
        x, y = x1 - x0, y1 - y0
        far = max(math.hypot(x, y), 1e-6)
        x, y = x / far / 2, y / far / 2
        outline = _CAPSULE @ np.array([(x, y), (-y, x)])
        outline[:6] *= widths[0]
        outline[:6] += (x0, y0)
        outline[6:] *= widths[1]
        outline[6:] += (x1, y1)
        self.fill(outline, color, label)

    def bar(self, x0, y0, x1, y1, color, label: int):
        self.fill([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, label)

    def foliage(self, blobs, tones, color, rng, strength, cell):
        """Leafy polygons; `cell` is the size of a leaf in metres."""
        blobs = [self.pixels(points) for points in blobs]
        self.canvas.foliage(
            blobs, tones, color, self.depth, rng, strength, cell * self.scale
        )
