"""Controls above pictures, and what is said of them: for the keyboard and for who does not see.

Every control is one of the browser's or answers to the arrow keys, and bears a description. Pictures are `<img>` with
their words as alternative text, for `ipywidgets.Image` has none. They are widgets of their own that each change of a
control replaces: capturing the figure as output instead (`interactive`) has now and then left a notebook that runs
headlessly waiting for ever.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

DPI = 110


@dataclass(frozen=True)
class Picture:
    """A picture as PNG, and its words."""

    png: bytes
    words: str

    @classmethod
    def of(cls, figure: Figure, words: str) -> Picture:
        content = BytesIO()
        if plt.fignum_exists(getattr(figure, "number", -1)):
            figure.savefig(content, format="png", dpi=DPI)
            plt.close(figure)
        else:  # drawn without pyplot: as it is, without the time that a tight frame takes
            figure.canvas.print_png(content)
        return cls(content.getvalue(), words)

    def html(self) -> str:
        data = base64.b64encode(self.png).decode()
        return f'<img alt="{escape(self.words)}" src="data:image/png;base64,{data}" style="max-width:100%">'


class Pictured(ipywidgets.VBox):
    """Controls above pictures that follow their values, and between them a line that says what has changed.

    Args:
        draw: called with the controls' values; returns the line, empty for none, and the pictures.
        still: where widgets cannot be shown, the pictures stand in their place; for what no figure precedes.

    Attributes:
        said, shown: the line and the pictures, as widgets of HTML.
    """

    def __init__(
        self, draw: Callable[..., tuple[str, Sequence[Picture]]], *controls: ipywidgets.ValueWidget, still: bool = False
    ):
        self._draw, self._controls, self._still = draw, controls, still
        self.pictures: Sequence[Picture] = ()
        self.said, self.shown = ipywidgets.HTML(), ipywidgets.HTML()
        for control in controls:
            control.style.description_width = "initial"
            control.observe(lambda change: self.redraw(), "value")
        super().__init__([*controls, self.said, self.shown])
        self.redraw()

    def redraw(self) -> None:
        """Draw what the controls ask for."""
        text, self.pictures = self._draw(*(control.value for control in self._controls))
        self.say(text)
        self.shown.value = "\n".join(picture.html() for picture in self.pictures)

    def say(self, text: str) -> None:
        """Replace the line; programs that read screens aloud read what has changed when it suits them."""
        html = f'<div role="status" aria-live="polite">{escape(text)}</div>' if text else ""
        if html != self.said.value:
            self.said.value = html

    def _repr_mimebundle_(self, **given: Any) -> dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**given)
        if bundle is None or not self._still or not self.pictures:
            return bundle
        words = " ".join(picture.words for picture in self.pictures)
        png = base64.b64encode(below_one_another([picture.png for picture in self.pictures])).decode()
        return bundle | {"text/plain": words, "image/png": png}, {"image/png": {"alt": words}}


def below_one_another(pngs: Sequence[bytes]) -> bytes:
    """Return pictures as one."""
    if len(pngs) == 1:
        return pngs[0]
    images = [Image.open(BytesIO(png)).convert("RGB") for png in pngs]
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    for i, image in enumerate(images):
        whole.paste(image, (0, sum(above.height for above in images[:i])))
    content = BytesIO()
    whole.save(content, "png")
    return content.getvalue()
