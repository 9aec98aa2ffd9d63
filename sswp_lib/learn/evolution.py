"""Search in a space of architectures whose scores are given: by evolution, or of a whole list.

SPOS (Guo et al., ECCV 2020): an evolution of 20 generations of 50. The score of an architecture is the same whenever it
is asked for, so none is scored twice. Deliberate deviation: where hardly any are left that were not seen, generations
are smaller, and the search ends with the first that is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from sswp_lib.config import Ranking
from sswp_lib.space import Choices, Space

Scores = dict[Choices, float]
ATTEMPTS = 10  # draws for each architecture that a generation asks for, before it is left smaller; ours


def exhaustive(candidates: Iterable[Choices], score: Callable[[Choices], float]) -> Scores:
    """Return the score of every architecture of a list, in its order; one that is named twice is scored once."""
    return {choices: score(choices) for choices in dict.fromkeys(candidates)}


def best_first(scores: Scores) -> list[tuple[Choices, float]]:
    """Return architectures with their scores, the best first; of equal ones the one scored first."""
    return sorted(scores.items(), key=lambda item: -item[1])


def evolve(space: Space, score: Callable[[Choices], float], settings: Ranking, g: torch.Generator) -> Scores:
    """Return every architecture that an evolution scores, in the order in which it does; connected ones only.

    The first generation is drawn by lot. Each later one has the children of the best `parents` of all before: so many
    mutations, then crossovers, and the rest of the population by lot. What is drawn follows from the generator and the
    scores alone: an evolution that was interrupted is taken up by doing it again with the scores that are known.

    Args:
        score: of one architecture, higher is better. settings: population, parents, mutations, mutation_p, crossovers,
            generations. g: a CPU generator.
    """
    scores: Scores = {}
    for _ in range(settings.generations):
        generation = next_generation(space, scores, settings, g)
        if not generation:
            break
        scores |= exhaustive(generation, score)
    return scores


def next_generation(space: Space, scores: Scores, s: Ranking, g: torch.Generator) -> list[Choices]:
    """Return the next architectures to score, all different from one another and from those that were."""
    parents = [choices for choices, _ in best_first(scores)[: s.parents]]
    found: list[Choices] = []

    def fill(count: int, draw: Callable[[], Choices]) -> None:
        """Add `count` new architectures, or as many as so many attempts give."""
        wanted = len(found) + count
        for _ in range(ATTEMPTS * count):
            if len(found) == wanted:
                return
            drawn = draw()
            if drawn not in scores and drawn not in found and space.is_connected(drawn):
                found.append(drawn)

    if parents:
        fill(s.mutations, lambda: space.mutation(parents[_below(len(parents), g)], s.mutation_p, g))
    if len(parents) > 1:
        fill(s.crossovers, lambda: space.crossover(*_two(parents, g), g))
    fill(s.population - len(found), lambda: space.draw(g))
    return found


def _two(parents: list[Choices], g: torch.Generator) -> tuple[Choices, Choices]:
    """Draw two different parents."""
    first, second = torch.randperm(len(parents), generator=g)[:2].tolist()
    return parents[first], parents[second]


def _below(count: int, g: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=g))
