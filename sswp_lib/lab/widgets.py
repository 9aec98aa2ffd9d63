"""The same figures, with controls. Each only calls the function that has already drawn the static figure."""

from __future__ import annotations

import ipywidgets
from IPython.display import display

from sswp_lib.config import Config
from sswp_lib.lab import drawings, plots
from sswp_lib.space import Genotype


def cells(genotype: Genotype) -> ipywidgets.Widget:
    """Step through the cells of a genotype."""
    slider = ipywidgets.IntSlider(0, 0, genotype.num_cells - 1, description="cell")
    return ipywidgets.interactive(lambda cell: display(drawings.cells(genotype, [cell], columns=1)), cell=slider)


def phases(config: Config) -> ipywidgets.Widget:
    """Move the ends of the phases, and see when each cell is pruned."""

    def draw(warm_up: float, bi_level: float) -> None:
        third = round(1 - warm_up - bi_level, 2)
        search = config.changed(**{"search.ratios": (warm_up, bi_level, third), "search.prune": "forward"}).search
        display(plots.phases(search, config.model.num_cells))

    tenth = {"min": 0.0, "max": 0.4, "step": 0.1, "readout_format": ".1f"}
    return ipywidgets.interactive(draw, warm_up=ipywidgets.FloatSlider(0.2, description="warm-up", **tenth), bi_level=ipywidgets.FloatSlider(0.4, description="bi-level", **tenth))
