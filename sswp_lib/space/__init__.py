"""What is searched: operations, cells, paths, supernet, network. Knows tensors; no data, loss, optimiser or run."""

from sswp_lib.space.cell import ProjectionHead
from sswp_lib.space.cells import CellSpace
from sswp_lib.space.genotype import (
    CANDIDATES,
    EDGES,
    Genotype,
    changed_by_caps,
    derive,
    published_cells,
    reduction_cells,
)
from sswp_lib.space.mixed import MixedNet, mixture
from sswp_lib.space.network import LoadReport, Network, drop_path_masks, load_concomitant
from sswp_lib.space.ops import OPERATIONS, calibrate
from sswp_lib.space.paths import Paths, best_paths, restore_unsampled, sample_gates, sample_paths, sample_two_paths
from sswp_lib.space.spaces import Choices, Space
from sswp_lib.space.supernet import SuperNet
from sswp_lib.space.texts import SPACES

__all__ = [
    "CANDIDATES", "EDGES", "OPERATIONS", "SPACES", "CellSpace", "Choices", "Genotype", "LoadReport", "MixedNet",
    "Network", "Paths", "ProjectionHead", "Space", "SuperNet", "best_paths", "calibrate", "changed_by_caps", "derive",
    "drop_path_masks", "load_concomitant", "mixture", "published_cells", "reduction_cells", "restore_unsampled",
    "sample_gates", "sample_paths", "sample_two_paths",
]  # fmt: skip
