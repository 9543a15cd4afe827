"""A contact sheet: pictures in a grid, each with its caption underneath."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN, LINE = 10, 17


def contact_sheet(images: np.ndarray, captions: Sequence[str], columns: int = 6) -> Image.Image:
    """Pictures uint8 [B, H, W, 3] with their captions, ``columns`` in a row, on white."""
    height, width = images.shape[1:3]
    font = ImageFont.load_default(size=13)
    wrapped = [textwrap.wrap(caption, width=max(8, width // 7)) for caption in captions]
    cell = height + MARGIN + LINE * max(len(lines) for lines in wrapped)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (MARGIN + columns * (width + MARGIN), MARGIN + rows * (cell + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x, y = MARGIN + (k % columns) * (width + MARGIN), MARGIN + (k // columns) * (cell + MARGIN)
        sheet.paste(Image.fromarray(image), (x, y))
        for n, line in enumerate(lines):
            draw.text((x + 2, y + height + 4 + n * LINE), line, fill=(40, 40, 48), font=font)
    return sheet
