"""What is searched: operations, cells, paths, supernet, network. Knows tensors; no data, loss, optimiser or run."""

from sswp_lib.space.bench201 import BENCH201
from sswp_lib.space.cell import ProjectionHead
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
from sswp_lib.space.resnest import RESNEST
from sswp_lib.space.spaces import Choices, Space
from sswp_lib.space.supernet import SuperNet

# the spaces whose edges all stay, by the names that configurations have for them
SPACES: dict[str, Space] = {space.name: space for space in (BENCH201, RESNEST)}

__all__ = [
    "CANDIDATES", "EDGES", "OPERATIONS", "SPACES", "Choices", "Genotype", "LoadReport", "MixedNet", "Network", "Paths",
    "ProjectionHead", "Space", "SuperNet", "best_paths", "calibrate", "changed_by_caps", "derive", "drop_path_masks",
    "load_concomitant", "mixture", "published_cells", "reduction_cells", "restore_unsampled", "sample_gates",
    "sample_paths", "sample_two_paths",
]  # fmt: skip
