"""A search as an animated picture: what `widgets.watch` showed while it went on, a frame for every few epochs.

    python -m sswp_lib.lab.animation RUN search.gif

It takes alpha epoch by epoch, which lies beside a run's record where it was done and is not part of the record.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from sswp_lib.config import InputError
from sswp_lib.runs import files, runs
from sswp_lib.runs.following import Standing
from sswp_lib.show import standings

FRAMES, MILLISECONDS, LAST = 27, 220, 3000  # of a frame, and of the last; ours
COLOURS = 64  # of the palette, which all frames share so that they do not flicker


def earlier(s: Standing, epochs: int) -> Standing:
    """Return a run as it stood when so many of its epochs were done."""
    if epochs == len(s.history):
        return s
    then = replace(s, state="running", record=None, place={"epoch": epochs, "epochs": len(s.history)})
    kept = {epoch: row for epoch, row in s.alphas.items() if epoch < epochs}
    vars(then).update(config=s.config, history=s.history[:epochs], alphas=kept)  # what it would read from files
    return then


def frames(s: Standing, cell: int, count: int = FRAMES) -> list[Image.Image]:
    """Return pictures of a search that is done, evenly over its epochs, the last after the last.

    Raises:
        InputError: no search that is done, or its alpha was not kept here.
    """
    if s.state != "done" or not s.alphas:
        raise InputError(f"{s.sentence()}; expected a search that was done in this store, so that its alpha is kept")
    total, count = len(s.history), min(count, len(s.history))
    pictures = []
    for i in range(1, count + 1):
        content = io.BytesIO()
        standings.standing(earlier(s, round(i * total / count)), cell).savefig(content, format="png")
        pictures.append(Image.open(content).convert("RGB"))
    palette = pictures[-1].quantize(COLOURS)
    return [picture.quantize(COLOURS, palette=palette, dither=Image.Dither.NONE) for picture in pictures]


def gif(pictures: list[Image.Image]) -> bytes:
    """Return pictures as an animated GIF that begins anew after its last."""
    content, times = io.BytesIO(), [MILLISECONDS] * (len(pictures) - 1) + [LAST]
    first, *others = pictures
    first.save(content, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    return content.getvalue()


def main(run: str, path: str, cell: str = "0") -> None:
    """Write the animated picture of a search."""
    files.write(Path(path), gif(frames(runs.stand(run), int(cell))))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"sswp: {error}")
