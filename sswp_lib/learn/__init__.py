"""How it is learnt: data, views, objectives, phases, the search and training loops, one-shot training, measures.

Writes no file but decoded images, under the data's own folder.
"""

from sswp_lib.learn.data import ImageData, load
from sswp_lib.learn.objectives import nt_xent
from sswp_lib.learn.oneshot import OneShot
from sswp_lib.learn.phases import cells_to_prune, phase, phase_lengths, pruning_epochs
from sswp_lib.learn.relaxed import RelaxedSearch
from sswp_lib.learn.search import Search
from sswp_lib.learn.train import Training

__all__ = [
    "ImageData",
    "OneShot",
    "RelaxedSearch",
    "Search",
    "Training",
    "cells_to_prune",
    "load",
    "nt_xent",
    "phase",
    "phase_lengths",
    "pruning_epochs",
]
