"""Minicity's canvas: a pinhole camera, and image and label drawn by the same polygons.

Everything is drawn at twice the final size, far to near.  `Canvas.finish` averages the
image (edges blend) and samples the label (ids never blend).
"""

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
        points = np.asarray(points, np.float64)
        s = points[:, 2]
        across = points[:, 0] - self.offset + 0.5 * self.bend * s * s
        up = points[:, 1] - self.height
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        depth = s * cos - up * sin
        safe = np.maximum(depth, _NEAR)
        column = WIDTH / 2 + self.focal * across / safe
        row = HEIGHT / 2 - self.focal * (up * cos + s * sin) / safe
        return np.stack([column, row], -1), depth

    def ground(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Where each supersampled pixel below the horizon meets the ground.

        Returns t [R,W'], s [R,1] in metres and the first row of the R.
        """
        rows = (np.arange(HEIGHT * SCALE) + 0.5) / SCALE
        columns = (np.arange(WIDTH * SCALE) + 0.5) / SCALE
        up = (HEIGHT / 2 - rows) / self.focal
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        fall = up * cos - sin
        first = int(np.argmax(fall < -self.height / 600.0))
        fall, up = fall[first:], up[first:]
        reach = -self.height / fall
        s = (reach * (up * sin + cos)).astype(np.float32)[:, None]
        across = (columns - WIDTH / 2)[None, :] / self.focal * reach[:, None]
        t = across.astype(np.float32) + self.offset - 0.5 * self.bend * s * s
        return t.astype(np.float32), s, first


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


class Canvas:
    """Image and label of one picture while it is drawn."""

    def __init__(self, camera: Camera, city: City, haze: float, haze_color: Color):
        size = (HEIGHT * SCALE, WIDTH * SCALE)
        self.camera = camera
        self.city = city
        self.image = np.zeros((*size, 3), np.uint8)
        self.label = np.zeros(size, np.uint8)
        self._haze = haze
        self.haze_color = np.asarray(haze_color, np.float64)

    def haze(self, depth):
        """Share of the haze's colour at a depth in metres, in [0, 1)."""
        return 1 - np.exp(-self._haze * np.maximum(depth, 0))

    def fogged(self, color, depth: float) -> tuple[float, float, float]:
        """`color` as it looks through the haze at `depth`."""
        a = self.haze(depth)
        mixed = (1 - a) * np.asarray(color, np.float64) + a * self.haze_color
        return mixed.tolist()

    @staticmethod
    def _bounds(big: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        (x0, y0), (x1, y1) = big.min(0).tolist(), big.max(0).tolist()
        low = (max(int(x0), 0), max(int(y0), 0))
        return low, (min(int(x1) + 2, WIDTH * SCALE), min(int(y1) + 2, HEIGHT * SCALE))

    @staticmethod
    def _fixed(points: np.ndarray) -> np.ndarray:
        fixed = points * float(SCALE << _SHIFT) - (1 << _SHIFT) / 2
        return np.rint(np.minimum(np.maximum(fixed, -1e6), 1e6)).astype(np.int32)[None]

    def polygon(self, points: np.ndarray, color, label: int | None, depth: float):
        """Fills pixels [N,2] (final size) in the image and, given an id, the label."""
        fixed = self._fixed(points)
        color = self.fogged(color, depth)
        cv2.fillPoly(self.image, fixed, color, cv2.LINE_8, _SHIFT)
        if label is not None:
            cv2.fillPoly(self.label, fixed, int(label), cv2.LINE_8, _SHIFT)

    def surface(self, points3: np.ndarray, color, label: int | None):
        """Fills a polygon [N,3] in street coordinates; skipped if it is behind."""
        pixels, depth = self.camera.project(points3)
        if depth.min() > _NEAR:
            self.polygon(pixels, color, label, float(depth.mean()))

    def surfaces(self, quads: np.ndarray, colors, label: int):
        """As `surface` for [M,4,3] in order, projected all at once."""
        pixels, depth = self.camera.project(quads.reshape(-1, 3))
        if depth.min() > _NEAR:
            far = float(depth.mean())
            for points, color in zip(pixels.reshape(-1, 4, 2), colors, strict=True):
                self.polygon(points, color, label, far)

    def region(
        self, points: np.ndarray
    ) -> tuple[tuple[slice, slice], np.ndarray] | None:
        """Bounding slices of a polygon [N,2] and its mask there; None if outside."""
        big = points * SCALE
        low, high = self._bounds(big)
        if high[0] <= low[0] or high[1] <= low[1]:
            return None
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        fixed = self._fixed(points) - np.array(low) * (1 << _SHIFT)
        cv2.fillPoly(mask, fixed, 1, cv2.LINE_8, _SHIFT)
        return (slice(low[1], high[1]), slice(low[0], high[0])), mask

    def shade(self, points: np.ndarray, factor: float):
        """Multiplies the image inside a polygon [N,2]; the label stays."""
        found = self.region(points)
        if found is None:
            return
        where, mask = found
        table = np.round(np.arange(256) * factor).astype(np.uint8)
        patch = self.image[where]
        np.copyto(patch, cv2.LUT(patch, table), where=mask[..., None] > 0)

    def foliage(self, blobs, tones, color, depth, rng, strength: float, cell: float):
        """Overlapping leafy polygons [N,2], drawn in order, each with its brightness.

        `cell` is the size of a leaf in final pixels.
        """
        found = self.region(np.concatenate(blobs))
        if found is None:
            return
        where, _ = found
        offset = np.array([where[1].start, where[0].start]) * (1 << _SHIFT)
        h, w = where[0].stop - where[0].start, where[1].stop - where[1].start
        tone = np.zeros((h, w), np.uint8)
        for points, level in zip(blobs, tones, strict=True):
            fixed = self._fixed(points)
            cv2.fillPoly(tone, fixed - offset, round(level * 128), cv2.LINE_8, _SHIFT)
            cv2.fillPoly(self.label, fixed, VEGETATION, cv2.LINE_8, _SHIFT)
        # About four texels of the tile are one leaf; a far crown sees a mean of leaves.
        step = min(max(4.0 / max(cell * SCALE, 0.5), 0.05), 1.6)
        th, tw = min(int(h * step) + 2, 511), min(int(w * step) + 2, 511)
        y, x = rng.integers(0, 512 - th), rng.integers(0, 512 - tw)
        patch = cv2.resize(noise_tile("leaves")[y : y + th, x : x + tw], (w, h))
        patch *= strength * 0.22
        patch += 1
        patch *= np.linspace(1.12, 0.82, h, dtype=np.float32)[:, None]
        patch *= tone * np.float32(1 / 128)
        fog = self.haze(depth)
        leaf = np.asarray(color, np.float32) * np.float32(1 - fog)
        out = patch[..., None] * leaf + (fog * self.haze_color).astype(np.float32)
        np.clip(out, 0, 255, out=out)
        cv2.copyTo(out.astype(np.uint8), (tone > 0).astype(np.uint8), self.image[where])

    def paste(self, texture, mask, corners3: np.ndarray, label: int):
        """Maps a texture uint8 [h,w,3] with mask [h,w] on a quad [4,3].

        The corners are those of the texture: top left, top right, bottom right, bottom
        left, in street coordinates, on one upright plane.
        """
        pixels, depth = self.camera.project(corners3)
        if depth.min() <= _NEAR:
            return
        big = pixels * SCALE
        low, high = self._bounds(big)
        if high[0] <= low[0] or high[1] <= low[1]:
            return
        h, w = mask.shape
        corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32) - 0.5
        matrix = cv2.getPerspectiveTransform(
            corners, (big - low - 0.5).astype(np.float32)
        )
        size = (high[0] - low[0], high[1] - low[1])
        color = cv2.warpPerspective(
            texture,
            matrix,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        inside = cv2.warpPerspective(mask, matrix, size, flags=cv2.INTER_NEAREST) > 0
        # On an upright plane 1 / depth is linear in the column.
        a, b = big[0, 0] - low[0], big[1, 0] - low[0]
        if abs(b - a) > 1e-6:
            share = (np.arange(size[0]) - a) / (b - a)
            inverse = 1 / depth[0] + share * (1 / depth[1] - 1 / depth[0])
            column = 1 / np.clip(inverse, 1 / 500, 1 / _NEAR)
        else:
            column = np.full(size[0], depth.mean())
        fog = self.haze(column).astype(np.float32)[None, :, None]
        color = color * (1 - fog) + fog * self.haze_color.astype(np.float32)
        where = (slice(low[1], high[1]), slice(low[0], high[0]))
        np.copyto(self.image[where], color.astype(np.uint8), where=inside[..., None])
        np.copyto(self.label[where], np.uint8(label), where=inside)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [256,512,3] RGB and label uint8 [256,512] of raw ids."""
        image = cv2.resize(self.image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
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

    def fill(self, points, color, label: int | None = None):
        """A polygon [N,2] (x right, y up, metres)."""
        self.canvas.polygon(self.pixels(points), color, label, self.depth)

    def disc(self, x, y, radius, color, label: int | None = None, *, tall=1.0):
        self.fill(_RING * (radius, radius * tall) + (x, y), color, label)

    def limb(self, start, end, widths, color, label: int | None = None):
        """A rounded bar from `start` to `end` with a width at either end."""
        start, end = np.asarray(start, float), np.asarray(end, float)
        along = end - start
        along = along / max(np.hypot(*along), 1e-6)
        outline = _CAPSULE @ np.array([along, (-along[1], along[0])])
        outline[:6] = start + outline[:6] * (widths[0] / 2)
        outline[6:] = end + outline[6:] * (widths[1] / 2)
        self.fill(outline, color, label)

    def bar(self, x0, y0, x1, y1, color, label: int | None = None):
        self.fill([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, label)

    def foliage(self, blobs, tones, color, rng, strength, cell):
        """Leafy polygons; `cell` is the size of a leaf in metres."""
        blobs = [self.pixels(points) for points in blobs]
        self.canvas.foliage(
            blobs, tones, color, self.depth, rng, strength, cell * self.scale
        )
