"""Controls above pictures, and what is said of them: for the keyboard and for who does not see.

Every control is one of the browser's own and has a name. Sliders of ipywidgets have none that a program reading the
screen aloud would find, so beside each stands a field for the same number. Pictures are `<img>` with their words as
alternative text, for `ipywidgets.Image` has none. They are widgets of their own that each change of a control replaces:
capturing the figure as output instead (`interactive`) has now and then left a notebook that runs headlessly waiting for
ever.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure
from PIL import Image

DPI = 110
BESIDE = 0.49  # of the width
DIGITS = 6  # of shares


@dataclass(frozen=True)
class Picture:
    """A picture as PNG, and its words; `share` of the width that there is, at most."""

    png: bytes
    words: str
    share: float | None = None

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
        width = f"width:{100 * self.share:.1f}%;" if self.share else ""
        own = f"{width}max-width:{f'{self.width}px' if self.share else '100%'}"
        return f'<img alt="{escape(self.words)}" src="data:image/png;base64,{data}" style="{own}">'

    @property
    def width(self) -> int:
        return Image.open(BytesIO(self.png)).width


def side_by_side(pictures: Sequence[Picture]) -> list[Picture]:
    """Return pictures of one scale as two stand beside one another, if there are two."""
    widest = max((picture.width for picture in pictures), default=1)
    return [replace(picture, share=BESIDE * picture.width / widest) for picture in pictures]


class Number(ipywidgets.HBox):
    """A whole number, in a field and by a slider."""

    value = traitlets.Int()

    def __init__(self, value: int, low: int, high: int, description: str):
        self.field = ipywidgets.BoundedIntText(value, min=low, max=high, description=description)
        self.slider = ipywidgets.IntSlider(value, low, high, readout=False)
        self.field.style.description_width = "initial"
        self.field.layout.width = f"{9 + len(description) / 2}em"
        super().__init__([self.field, self.slider])
        self.value = value
        ipywidgets.link((self.field, "value"), (self.slider, "value"))
        ipywidgets.link((self.field, "value"), (self, "value"))


class Ends(ipywidgets.HBox):
    """Where the first two of three parts end, by a slider of two handles, and their lengths in fields.

    Args:
        names: of the two parts. lengths: theirs. high: where the third part ends.
    """

    value = traitlets.Tuple()

    def __init__(self, names: Sequence[str], lengths: Sequence[float], high: float):
        self.high, self._settling = high, False
        self.fields = [
            ipywidgets.BoundedFloatText(length, min=0.0, max=high, step=0.05, description=name)
            for name, length in zip(names, lengths, strict=True)
        ]
        for field in self.fields:
            field.style.description_width = "initial"
            field.layout.width = "11em"
            field.observe(self._of_fields, "value")
        ends = (round(lengths[0], DIGITS), round(sum(lengths), DIGITS))
        self.slider = ipywidgets.FloatRangeSlider(value=ends, min=0.0, max=high, step=0.01, readout=False)
        super().__init__([*self.fields, self.slider])
        self.value = ends
        ipywidgets.link((self.slider, "value"), (self, "value"))
        self.observe(self._to_fields, "value")

    def _of_fields(self, change: object) -> None:
        if not self._settling:
            first, second = (field.value for field in self.fields)
            self.value = (first, round(min(first + second, self.high), DIGITS))
            self._to_fields()

    def _to_fields(self, change: object = None) -> None:
        self._settling = True
        first, second = self.value
        for field, length in zip(self.fields, (first, second - first), strict=True):
            field.value = round(length, DIGITS)
        self._settling = False


class Pictured(ipywidgets.VBox):
    """Controls above pictures that follow their values, and between them a line that says what has changed.

    Args:
        draw: called with the controls' values; returns the line, empty for none, and the pictures.
        still: where widgets cannot be shown, the pictures stand in their place; for what no figure precedes.

    Attributes:
        controls: as given. said, shown: the line and the pictures, as widgets of HTML.
    """

    def __init__(
        self, draw: Callable[..., tuple[str, Sequence[Picture]]], *controls: ipywidgets.Widget, still: bool = False
    ):
        self._draw, self.controls, self._still = draw, controls, still
        self.pictures: Sequence[Picture] = ()
        self.said, self.shown = ipywidgets.HTML(), ipywidgets.HTML()
        for control in controls:
            if hasattr(control, "style"):
                control.style.description_width = "initial"
            control.observe(lambda change: self.redraw(), "value")
        row = ipywidgets.HBox(controls, layout={"flex_flow": "row wrap"})
        super().__init__([row, self.said, self.shown])
        self.redraw()

    def redraw(self) -> None:
        """Draw what the controls ask for."""
        text, self.pictures = self._draw(*(control.value for control in self.controls))
        self.say(text)
        self.shown.value = "\n".join(picture.html() for picture in self.pictures)

    def say(self, text: str) -> None:
        """Replace the line; programs that read screens aloud read what has changed when it suits them."""
        html = f'<div role="status" aria-live="polite">{escape(text)}</div>' if text else ""
        if html != self.said.value:
            self.said.value = html

    @property
    def words(self) -> str:
        return " ".join(picture.words for picture in self.pictures)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.words}>"

    def _repr_mimebundle_(self, **given: Any) -> dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**given)
        if bundle is None or not self._still or not self.pictures:
            return bundle
        png = base64.b64encode(below_one_another([picture.png for picture in self.pictures])).decode()
        return bundle | {"text/plain": self.words, "image/png": png}, {"image/png": {"alt": self.words}}


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
