"""Memory: search steps beside compact networks', along the same operations."""

from __future__ import annotations

from sswp_lib.learn.footprint import step_memory
from sswp_lib.presets import load_config


def test_a_search_step_needs_the_memory_of_the_compact_network_whatever_the_number_of_candidates():
    config = load_config("smoke", settings={"data.image_size": 16})
    found = step_memory(config, batch_size=8, draws=2)["bytes"]
    compact = found["compact, 14 edges"]
    assert 0 < found["compact, 8 edges"] < compact
    assert found["weight step"] <= 1.05 * compact
    assert found["architecture step"] <= 1.3 * found["compact of the architecture step"]
    for step in ("weight step", "architecture step"):
        assert found[f"{step}, 7 candidates"] <= 1.1 * found[f"{step}, 3 candidates"]
