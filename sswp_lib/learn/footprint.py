"""Memory of a search step beside that of a compact network's training step.

Paper: section 3.2 ("the memory footprint during the search is reduced to the same magnitude as a compact
architecture"). Both sides run the same operations on the same images: the compact network is the supernet with exactly
the sampled ones left.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sswp_lib.config import Config
from sswp_lib.learn.data import generator
from sswp_lib.learn.loop import frozen, seeded
from sswp_lib.learn.measure import peak_memory
from sswp_lib.learn.objectives import nt_xent
from sswp_lib.space import CANDIDATES, Network, Paths, SuperNet, derive, sample_gates, sample_paths, sample_two_paths

FEW = ("skip_connect", "max_pool_3x3", "sep_conv_3x3")  # three candidates to set beside the seven


def step_memory(config: Config, batch_size: int, device: torch.device | str = "cpu", draws: int = 3) -> dict[str, Any]:
    """Measure peak bytes of tensors in one step beyond what lay there before it; the mean over some sampled paths.

    Returns:
        {"bytes": {step: bytes}, "weights": {model: bytes}, "views": 2 * batch_size}. Steps: "weight step",
        "architecture step", "compact, 14 edges" (the sampled operations alone), "compact, 8 edges" (a derived
        genotype), and both search steps with 3 and with 7 candidates along the same operations. An architecture step
        evaluates two candidates an edge, as the paper's; where the configuration's evaluates m of the seven, that
        stands as "architecture step, m evaluated" beside it.
    """
    size, evaluated = config.data.image_size, min(config.search.evaluated, len(CANDIDATES))
    with seeded(config.seed, "memory"):
        x = torch.randn(2 * batch_size, 3, size, size).to(device, memory_format=torch.channels_last)
        supernets = {len(names): _supernet(config, names, device) for names in (CANDIDATES, FEW)}
    sums: dict[str, float] = {}
    for draw in range(draws):
        g = generator(config.seed, "memory", draw)
        full = supernets[len(CANDIDATES)]
        paths = sample_paths(full.alpha, full.present, g)
        two = sample_two_paths(full.alpha, full.present, g)
        few = sample_two_paths(supernets[len(FEW)].alpha, supernets[len(FEW)].present, g)
        found = {
            "weight step": _peak(full, x, paths, device),
            "architecture step": _peak(full, x, two, device),
            "compact, 14 edges": _peak(_compact(config, paths, device), x, paths, device),
            "compact of the architecture step": _peak(_compact(config, two, device), x, Paths(two.active), device),
            "compact, 8 edges": _peak(_derived(config, g, device), x, None, device),
        }
        if evaluated > 2:
            many = sample_gates(full.alpha, full.present, g, evaluated)
            found[f"architecture step, {evaluated} evaluated"] = _peak(full, x, many, device)
        for name, supernet in (("3", supernets[len(FEW)]), ("7", full)):
            same = few if name == "3" else _translated(few, full)
            found[f"weight step, {name} candidates"] = _peak(supernet, x, Paths(same.active), device)
            found[f"architecture step, {name} candidates"] = _peak(supernet, x, same, device)
        sums = {name: sums.get(name, 0.0) + value / draws for name, value in found.items()}
    weights = {
        f"{count} candidates": sum(p.numel() * p.element_size() for p in s.weight_parameters())
        for count, s in supernets.items()
    }
    return {"bytes": sums, "weights": weights, "views": 2 * batch_size}


def _supernet(config: Config, candidates: tuple[str, ...], device: torch.device | str) -> SuperNet:
    model = config.model
    return SuperNet(model.init_channels, model.num_cells, candidates=candidates, stem=model.stem).to(
        device, memory_format=torch.channels_last
    )


def _compact(config: Config, paths: Paths, device: torch.device | str) -> SuperNet:
    """Return a supernet that has the paths' active operations and no others."""
    supernet = _supernet(config, CANDIDATES, device)
    supernet.prune_as(torch.nn.functional.one_hot(paths.active, len(CANDIDATES)).bool())
    return supernet


def _derived(config: Config, g: torch.Generator, device: torch.device | str) -> Network:
    alpha = torch.randn(config.model.num_cells, 14, len(CANDIDATES), generator=g)
    network = Network(derive(alpha), config.model.init_channels, 128, stem=config.model.stem, affine=False)
    return network.to(device, memory_format=torch.channels_last)


def _translated(few: Paths, full: SuperNet) -> Paths:
    """Return the paths of a three-candidate supernet as those of the full one, with gates of its own alpha."""
    index = torch.tensor([CANDIDATES.index(name) for name in FEW])
    gates = few.gates.detach() + 0 * full.alpha.sum()
    return Paths(index[few.active], index[few.inactive], gates)


def _peak(model: torch.nn.Module, x: Tensor, paths: Paths | None, device: torch.device | str) -> int:
    """Return the peak of one step; a step on alpha where the paths have gates, else SGD on the weights that ran."""
    weights = [p for name, p in model.named_parameters() if name != "alpha"]
    optimizer = torch.optim.SGD(weights, lr=0.0, momentum=0.9)
    extra = () if paths is None else (paths,)

    def weight_step() -> None:
        nt_xent(model(x, *extra)).backward()
        optimizer.step()

    def alpha_step() -> None:
        with frozen(weights):
            torch.autograd.grad(nt_xent(model(x, *extra)), model.alpha, retain_graph=False)

    if paths is not None and paths.gates is not None:
        return peak_memory(alpha_step, device)
    weight_step()  # so that momentum lies there before
    optimizer.zero_grad(set_to_none=True)
    return peak_memory(weight_step, device)
