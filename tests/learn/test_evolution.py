"""Evolution: what it finds, what it asks for, and that it ends."""

from __future__ import annotations

import pytest
import torch

from sswp_lib.config import Config, Ranking
from sswp_lib.learn.evolution import best_first, evolve, exhaustive
from sswp_lib.space import Choices, Space

NAMES = ("none", "skip", "conv_1x1", "conv_3x3", "pool")
WORTH = {name: k for k, name in enumerate(NAMES)}


def space(edges: int, candidates: int = 5, connected=None) -> Space:
    return Space("any", tuple(f"edge {e}" for e in range(edges)), NAMES[:candidates], build=None, connected=connected)


def first_edge_is_there(choices: Choices) -> bool:
    return choices.operations[0] != "none"


LARGE = space(8)  # 390,625 architectures
PARTLY = space(4, connected=first_edge_is_there)  # 500 of 625


def worth(choices: Choices) -> float:
    """Each edge counts for itself, more or less: pool everywhere is the best."""
    return sum((1 + 0.1 * e) * WORTH[name] for e, name in enumerate(choices.operations))


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_best_of_a_separable_score(seed):
    """In a thousand of 390,625, where as many by lot hardly ever do."""
    found = evolve(LARGE, worth, Ranking(), g(seed))
    best, score = best_first(found)[0]
    assert best.operations == ("pool",) * 8 and score == worth(best)
    assert len(found) == 1000
    by_lot = {LARGE.draw(g(1000 * seed + k)) for k in range(1000)}
    assert max(map(worth, by_lot)) < score


def test_defaults_are_those_of_spos():
    s = Config().ranking
    assert (s.population, s.parents, s.mutations, s.crossovers, s.mutation_p, s.generations) == (
        50,
        10,
        25,
        25,
        0.1,
        20,
    )


def test_it_scores_nothing_twice_and_nothing_that_is_not_connected():
    asked = []

    def score(choices: Choices) -> float:
        asked.append(choices)
        return worth(choices)

    found = evolve(PARTLY, score, Ranking(generations=12), g())
    assert asked == list(found) and len(asked) == len(set(asked)) > 400
    assert all(map(first_edge_is_there, asked))
    assert all(found[choices] == worth(choices) for choices in found)


def test_it_is_the_same_for_the_same_generator_and_goes_on_from_known_scores():
    one, two, other = (list(evolve(LARGE, worth, Ranking(generations=5), g(seed)).items()) for seed in (0, 0, 1))
    assert one == two != other
    known, asked = dict(one[:120]), []  # as far as an interrupted one came

    def score(choices: Choices) -> float:
        asked.append(choices) if choices not in known else None
        return known.setdefault(choices, worth(choices))

    assert list(evolve(LARGE, score, Ranking(generations=5), g()).items()) == one
    assert asked == [choices for choices, _ in one[120:]]
    torch.manual_seed(5)  # torch's own generator has no say
    assert list(evolve(LARGE, worth, Ranking(generations=5), g()).items()) == one


@pytest.mark.parametrize("connected", [None, first_edge_is_there], ids=["whole", "in part"])
def test_it_ends_on_a_small_space_when_all_is_seen(monkeypatch, connected):
    """Whatever the generations that are left: the first that finds nothing is the last."""
    small, draws, draw = space(3, 3, connected), [], Space.draw
    monkeypatch.setattr(Space, "draw", lambda self, g: draws.append(g) or draw(self, g))
    everything = {choices for choices in small.everything() if small.is_connected(choices)}
    found = evolve(small, worth, Ranking(generations=200), g())
    assert set(found) == everything and len(found) == (18 if connected else 27)
    assert len(draws) < 3 * 10 * 50
    assert len(evolve(space(1, 1), worth, Ranking(generations=200), g())) == 1
    few = Ranking(population=4, parents=2, mutations=2, crossovers=2, generations=3)
    assert len(evolve(small, worth, few, g())) == 12


def generations(settings: Ranking, monkeypatch) -> list[list[tuple[str, Choices]]]:
    """Return what each generation was made of: how, and the architecture."""
    made: dict[Choices, str] = {}
    scored = set()
    for name in ("mutation", "crossover"):
        original = getattr(Space, name)
        monkeypatch.setattr(Space, name, lambda *a, original=original, name=name: note(original(*a), name))

    def note(choices: Choices, name: str) -> Choices:
        if choices not in scored:
            made.setdefault(choices, name)
        return choices

    found = list(evolve(LARGE, lambda choices: scored.add(choices) or worth(choices), settings, g()))
    parts = [found[i : i + settings.population] for i in range(0, len(found), settings.population)]
    return [[(made.get(choices, "lot"), choices) for choices in part] for part in parts]


def test_what_a_generation_is_made_of(monkeypatch):
    """The first is by lot, later ones of mutations, crossovers and what is left by lot; both parents of a crossover are
    among the best of everything before.
    """
    settings = Ranking(population=30, parents=10, mutations=9, crossovers=12, generations=4, mutation_p=0.3)
    found = generations(settings, monkeypatch)
    assert [how for how, _ in found[0]] == ["lot"] * 30 and len(found) == 4
    for part in found[1:]:
        assert [how for how, _ in part] == ["mutation"] * 9 + ["crossover"] * 12 + ["lot"] * 9
    for number, part in enumerate(found[1:], start=1):
        earlier = {choices: worth(choices) for each in found[:number] for _, choices in each}
        parents = [choices.operations for choices, _ in best_first(earlier)[:10]]
        for how, child in part:
            if how == "crossover":
                assert any(
                    all(c in (a, b) for a, b, c in zip(one, two, child.operations, strict=True))
                    for one in parents for two in parents if one != two
                )  # fmt: skip
    assert sum(map(worth, (c for _, c in found[3]))) > sum(map(worth, (c for _, c in found[0])))


@pytest.mark.parametrize("left_out", ["mutations", "crossovers"])
def test_either_kind_of_child_may_be_left_out(monkeypatch, left_out):
    found = generations(Ranking(generations=3, **{left_out: 0}), monkeypatch)
    kept = {"mutations": "crossover", "crossovers": "mutation"}[left_out]
    assert [how for how, _ in found[1]] == [kept] * 25 + ["lot"] * 25


def test_a_mutation_draws_each_edge_anew_with_its_probability():
    """Uniform over all candidates, so one in five is drawn as it was."""
    parent = LARGE.choices(("skip",) * 8)
    generator, children = g(), []
    for _ in range(2000):
        children.append(LARGE.mutation(parent, 0.25, generator).operations)
    changed = [name for child in children for name in child if name != "skip"]
    assert len(changed) / 16_000 == pytest.approx(0.25 * 4 / 5, abs=0.01)
    for name in set(NAMES) - {"skip"}:
        assert changed.count(name) / len(changed) == pytest.approx(0.25, abs=0.03)
    per_edge = [sum(child[e] != "skip" for child in children) / 2000 for e in range(8)]
    assert max(abs(share - 0.2) for share in per_edge) < 0.04
    assert LARGE.mutation(parent, 1e-12, g()) == parent


def test_a_crossover_takes_each_edge_of_either_parent():
    one, two = LARGE.choices(("skip",) * 8), LARGE.choices(("pool",) * 8)
    generator = g()
    children = [LARGE.crossover(one, two, generator).operations for _ in range(1000)]
    assert {name for child in children for name in child} == {"skip", "pool"}
    for edge in range(8):
        assert sum(child[edge] == "skip" for child in children) / 1000 == pytest.approx(0.5, abs=0.06)
    assert len(set(children)) > 200
    assert LARGE.crossover(one, two, g()).space == LARGE.name


def test_a_list_is_scored_in_its_order_once():
    asked = []
    listed = [PARTLY.choices((name, "skip", "skip", "skip")) for name in ("pool", "skip", "pool", "conv_1x1")]
    found = exhaustive(iter(listed), lambda choices: asked.append(choices) or -worth(choices))
    assert asked == list(found) == [listed[0], listed[1], listed[3]]
    assert [choices.operations[0] for choices, _ in best_first(found)] == ["skip", "conv_1x1", "pool"]
    assert best_first(dict.fromkeys(listed, 1.0)) == [(choices, 1.0) for choices in dict.fromkeys(listed)]
