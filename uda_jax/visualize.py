"""Pictures of labels and predictions: colours, overlays, heat maps, captioned panels.

Everything takes and gives numpy uint8 RGB; labels are train ids, and an id without a
colour (255, ignored) is black, or leaves the photograph as it is.
"""

import io
import zlib
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT = (255, 255, 255), (31, 35, 40), (101, 109, 118)
_GAP = 8
_TEXT = 15  # pixels; captions shrink with narrow cells


def colorize(label: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Paints every id in its colour.

    Args:
      label: [..., H, W] integer ids in [0, 255].
      colors: [C, 3] uint8 RGB; ids from C on, so also 255, become black.

    Returns:
      [..., H, W, 3] uint8.
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(colors)] = colors
    return table[np.asarray(label, np.uint8)]


def png(
    picture: np.ndarray, *, colors: np.ndarray | None = None, compress_level: int = 6
) -> bytes:
    """A picture or a label map as a PNG file.

    Args:
      picture: [H, W, 3] or [H, W] uint8.
      colors: [C, 3] uint8, the palette of a label map, whose ids stay what is stored;
        ids from C on become black.  None: grey levels.
      compress_level: 0 (large, fast) to 9.
    """
    image = Image.fromarray(picture)
    if colors is not None:
        image.putpalette(colorize(np.arange(256)[None], colors).tobytes())
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=compress_level)
    return stream.getvalue()


def without_palette(data: bytes) -> bytes:
    """The label map of `png` with colours as a grey one, of the same pixels.

    Both forms have the same compressed data behind another header, so this takes no
    time worth naming, and compressing twice would.
    """
    header, rest = bytearray(data[12:29]), data[33:]  # IHDR without its length; chunks
    header[13] = 0  # colour type: 3 is a palette, 0 grey
    checked = bytes(header) + zlib.crc32(header).to_bytes(4, "big")
    palette = 12 + int.from_bytes(rest[:4], "big")  # PLTE comes next
    return data[:12] + checked + rest[palette:]


def overlay(
    image: np.ndarray, label: np.ndarray, colors: np.ndarray, alpha: float = 0.55
) -> np.ndarray:
    """The photograph tinted with the classes' colours, borders drawn a little darker.

    Args:
      image: [H, W, 3] uint8.
      label: [H, W] ids; where an id has no colour the photograph stays as it is.
      colors: [C, 3] uint8.
      alpha: share of the colour, 0 (photograph) to 1 (colours alone).

    Returns:
      [H, W, 3] uint8.
    """
    known = (np.asarray(label) < len(colors))[..., None]
    share = np.where(known, np.float32(alpha), 0)
    mixed = image * (1 - share) + colorize(label, colors) * share
    border = np.zeros(label.shape, bool)
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    border[1:] |= label[1:] != label[:-1]
    mixed[border] *= 0.6
    return np.rint(mixed).astype(np.uint8)


def heat(values: np.ndarray, *, colormap: str = "viridis") -> np.ndarray:
    """A matplotlib colour map over values in [0, 1]; outside is clipped, NaN black.

    Args:
      values: [..., H, W] floating point, a confidence for example.
      colormap: matplotlib's name of it.

    Returns:
      [..., H, W, 3] uint8.
    """
    values = np.asarray(values, np.float32)
    rgb = matplotlib.colormaps[colormap](np.clip(np.nan_to_num(values), 0, 1))[..., :3]
    rgb = np.where(np.isnan(values)[..., None], 0, rgb)
    return np.rint(rgb * 255).astype(np.uint8)


def keep(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture where `mask` [H, W] is true, nearly white elsewhere."""
    grey = picture.mean(-1, keepdims=True) * 0.2 + 200
    kept = np.asarray(mask, bool)[..., None]
    return np.rint(np.where(kept, picture, grey)).astype(np.uint8)


def legend(
    names: Sequence[str],
    colors: np.ndarray,
    *,
    width: int,
    text_size: int = _TEXT,
) -> np.ndarray:
    """Swatches with class names in rows that fill `width` pixels.

    Returns:
      [h, width, 3] uint8, as high as it takes.
    """
    font = ImageFont.load_default(text_size)
    side, line = text_size, int(text_size * 1.9)
    places, x, y = [], 0, 0
    for name in names:
        needed = side + 6 + int(font.getlength(name))
        if x and x + needed > width:
            x, y = 0, y + line
        places.append((x, y))
        x += needed + 18
    canvas = Image.new("RGB", (width, y + line), PAPER)
    draw = ImageDraw.Draw(canvas)
    for (x, y), name, color in zip(places, names, colors, strict=True):
        top = y + (line - side) // 2
        swatch = (x, top, x + side - 1, top + side - 1)
        draw.rounded_rectangle(swatch, 3, fill=tuple(int(v) for v in color))
        middle = (x + side + 6, y + line // 2)
        draw.text(middle, name, INK, font, anchor="lm")
    return np.asarray(canvas)


def panel(
    rows: Sequence[Mapping[str, np.ndarray]],
    *,
    captions: Sequence[str] = (),
    title: str = "",
    legend_of: tuple[Sequence[str], np.ndarray] | None = None,
    cell_width: int = 384,
) -> np.ndarray:
    """One labelled picture: a row per image, a column per kind of picture.

    Args:
      rows: for each row {column name: [h, w, 3] uint8}; the first row sets the columns,
        and a column that a later row lacks stays empty there.  Pictures are scaled to
        the width of the cell and keep their proportions.
      captions: a line under each row, the image's name for example.
      title: a line above everything.
      legend_of: (class names, colours [C, 3]) for a legend at the bottom.
      cell_width: pixels.

    Returns:
      [H, W, 3] uint8.

    Raises:
      ValueError: no rows, or not one caption per row.
    """
    if not rows or not rows[0]:
        raise ValueError("a panel needs at least one row with one picture.")
    if captions and len(captions) != len(rows):
        raise ValueError(f"{len(captions)} captions for {len(rows)} rows.")
    columns = list(rows[0])
    size = max(10, min(_TEXT, cell_width // 14))
    font, large = ImageFont.load_default(size), ImageFont.load_default(size + 6)
    line = int(size * 1.7)
    scaled = [{k: _fit(v, cell_width) for k, v in row.items()} for row in rows]
    heights = [max(p.height for p in row.values()) for row in scaled]
    width = _GAP + len(columns) * (cell_width + _GAP)
    strip = None
    if legend_of is not None:
        strip = legend(*legend_of, width=width - 2 * _GAP, text_size=size)

    top = _GAP + (int(size * 2.2) if title else 0)
    below = line if captions else _GAP
    height = top + line + sum(heights) + below * len(rows)
    height += _GAP if captions else 0
    total = height + (0 if strip is None else len(strip) + _GAP)
    canvas = Image.new("RGB", (width, total), PAPER)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((_GAP, _GAP + size), title, INK, large, anchor="lm")
    lefts = [_GAP + i * (cell_width + _GAP) for i in range(len(columns))]
    for left, name in zip(lefts, columns, strict=True):
        text = _shorten(name, font, cell_width)
        draw.text((left, top + line // 2 - 1), text, INK, font, anchor="lm")
    y = top + line
    for index, row in enumerate(scaled):
        for left, name in zip(lefts, columns, strict=True):
            if name in row:
                canvas.paste(row[name], (left, y))
        y += heights[index]
        if captions:
            text = _shorten(captions[index], font, width - 2 * _GAP)
            draw.text((_GAP, y + line // 2), text, FAINT, font, anchor="lm")
        y += below
    if strip is not None:
        canvas.paste(Image.fromarray(strip), (_GAP, height))
    return np.asarray(canvas)


def stack(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures [h, w, 3] uint8 one below the other, narrow ones with paper at right."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=PAPER[0])
        for p in pictures
    ]
    return np.concatenate(padded)


def contact_sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    *,
    columns: int = 4,
    cell_width: int = 288,
) -> np.ndarray:
    """Many pictures in a grid, each above its caption.

    Args:
      pictures: [h, w, 3] uint8 each; scaled to the cell's width.
      captions: one per picture.
      columns: pictures side by side.
      cell_width: pixels.

    Returns:
      [H, W, 3] uint8.
    """
    size = max(10, min(_TEXT, cell_width // 18))
    font = ImageFont.load_default(size)
    line = int(size * 1.8)
    cells = [_fit(p, cell_width) for p in pictures]
    cell_height = max(p.height for p in cells) + line
    lines = -(-len(cells) // columns)
    shape = (_GAP + columns * (cell_width + _GAP), _GAP + lines * (cell_height + _GAP))
    canvas = Image.new("RGB", shape, PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        x = _GAP + index % columns * (cell_width + _GAP)
        y = _GAP + index // columns * (cell_height + _GAP)
        canvas.paste(cell, (x, y))
        middle = (x, y + cell_height - line // 2)
        text = _shorten(caption, font, cell_width)
        draw.text(middle, text, FAINT, font, anchor="lm")
    return np.asarray(canvas)


def _fit(picture: np.ndarray, width: int) -> Image.Image:
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(
            f"a picture is uint8 [H, W, 3], not {picture.dtype} {picture.shape}."
        )
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    # Lanczos rings at the hard borders of enlarged label maps.
    shrinks = width < picture.shape[1]
    resample = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BILINEAR
    return Image.fromarray(picture).resize((width, height), resample)


def _shorten(text: str, font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
