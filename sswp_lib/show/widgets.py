"""The same figures, with controls. Each only calls the function that has already drawn the static figure.

The picture is a widget of its own that each change of a control replaces. Capturing the figure as output instead
(`interactive`) has now and then left a notebook that runs headlessly waiting for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from sswp_lib.config import Config
from sswp_lib.show import drawings, plots
from sswp_lib.space import Genotype


def cells(genotype: Genotype) -> ipywidgets.Widget:
    """Step through the cells of a genotype."""
    return _with_controls(
        lambda cell: drawings.cells(genotype, [cell]),
        ipywidgets.IntSlider(0, 0, genotype.num_cells - 1, description="cell"),
    )


def phases(config: Config) -> ipywidgets.Widget:
    """Move the ends of the phases, and see when each cell is pruned."""

    def draw(warm_up: float, bi_level: float) -> Figure:
        third = round(1 - warm_up - bi_level, 2)
        # not validated: the picture also shows what a search refuses, such as no bi-level phase
        search = config.search.model_copy(update={"ratios": (warm_up, bi_level, third), "prune": "forward"})
        return plots.phases(search, config.model.num_cells)

    tenth = {"min": 0.0, "max": 0.4, "step": 0.1, "readout_format": ".1f"}
    return _with_controls(
        draw,
        ipywidgets.FloatSlider(0.2, description="warm-up", **tenth),
        ipywidgets.FloatSlider(0.4, description="bi-level", **tenth),
    )


def _with_controls(draw: Callable[..., Figure], *controls: ipywidgets.ValueWidget) -> ipywidgets.Widget:
    """Return controls above a picture that follows their values."""
    picture = ipywidgets.Image(format="png")

    def redraw(change: object = None) -> None:
        figure, content = draw(*(control.value for control in controls)), BytesIO()
        figure.savefig(content, format="png", dpi=110)
        plt.close(figure)
        picture.value = content.getvalue()

    for control in controls:
        control.observe(redraw, "value")
    redraw()
    return ipywidgets.VBox([*controls, picture])
