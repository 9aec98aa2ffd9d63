"""The search loop: what each step changes, the same seed twice, an interruption anywhere, the export."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

import sswp_lib.learn.search as module
from sswp_lib.config import InputError, RunError
from sswp_lib.learn import Search
from sswp_lib.learn.views import normalise
from sswp_lib.space import CANDIDATES, Genotype, Paths, derive

FAST = {"search.epochs": 3, "search.batch_size": 20, "search.ratios": (0.3, 0.4, 0.3), "search.alpha_every": 1}


def run(search: Search) -> Search:
    for _ in search.advance():
        pass
    return search


def snapshot(search: Search) -> dict[str, torch.Tensor]:
    """Return copies of every tensor of the supernet and the objective."""
    everything = {
        **search.supernet.state_dict(),
        **{f"objective.{k}": v for k, v in search.objective.state_dict().items()},
    }
    return {name: t.clone() for name, t in everything.items()}


def differing(one: dict, two: dict) -> set[str]:
    assert set(one) == set(two)
    return {name for name in one if not torch.equal(one[name], two[name])}


@pytest.fixture
def taken(monkeypatch) -> list:
    """Every Paths that the search draws, in order."""
    seen = []
    for name in ("sample_paths", "sample_two_paths"):
        draw = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, draw=draw, **k: seen.append(draw(*a, **k)) or seen[-1])
    return seen


def warmed(config, data, **settings) -> Search:
    """A search in its bi-level phase, after two weight steps, alpha away from 0."""
    search = Search(config.changed(**settings), data)
    with torch.no_grad():
        search.supernet.alpha.normal_(generator=torch.Generator().manual_seed(0))
    search.epoch = 1
    for search.step in range(2):
        search.weight_step(torch.arange(16) + search.step)
    return search


def test_a_weight_step_changes_only_what_ran(config, data, taken):
    """Momentum and weight decay included: what did not run has no gradient and is bitwise what it was."""
    search = warmed(config, data)
    before = snapshot(search)
    search.weight_step(torch.arange(16))
    ran = tuple(
        f"cells.{c}.edges.{e}.{CANDIDATES[k]}."
        for c, row in enumerate(taken[-1].active.tolist())
        for e, k in enumerate(row)
    )
    changed = differing(before, snapshot(search))
    weights = {name for name, _ in search.supernet.named_parameters() if name != "alpha"}
    assert changed == {name for name in weights if ".edges." not in name or name.startswith(ran)}
    for name, p in search.supernet.named_parameters():
        assert (p.grad is None) == (name not in changed)
    earlier = {
        f"cells.{c}.edges.{e}.{CANDIDATES[k]}."
        for paths in taken[:2]
        for c, row in enumerate(paths.active.tolist())
        for e, k in enumerate(row)
    }
    assert [name for name in weights - changed if name.startswith(tuple(earlier))]  # some had momentum


@pytest.mark.parametrize("objective", ["simclr", "supervised", "byol"])
def test_an_architecture_step_leaves_no_trace_but_in_alpha(config, data, objective):
    search = warmed(config, data, **{"search.objective": objective})
    before, gradients = (
        snapshot(search),
        {name: p.grad.clone() for name, p in search._named_weights().items() if p.grad is not None},
    )
    momenta = copy.deepcopy(search.state()["optimizer"])
    search.alpha_step(0)
    assert differing(before, snapshot(search)) == {"alpha"}
    after = {name: p.grad for name, p in search._named_weights().items() if p.grad is not None}
    assert set(after) == set(gradients) and all(torch.equal(after[name], g) for name, g in gradients.items())
    assert all(p.requires_grad for p in search._named_weights().values())
    for name, entries in search.state()["optimizer"].items():
        assert all(torch.equal(t, momenta[name][key]) for key, t in entries.items())


def test_an_architecture_step_computes_no_gradient_of_a_weight(config, data, monkeypatch):
    search, seen = warmed(config, data), []
    original = search.loss

    def spy(*arguments):
        seen.extend(p.requires_grad for p in search.supernet.weight_parameters())
        return original(*arguments)

    monkeypatch.setattr(search, "loss", spy)
    search.alpha_step(0)
    assert seen and not any(seen)


def test_an_architecture_step_moves_the_sampled_entries_only(config, data, taken):
    """Unsampled entries are bitwise what they were, and so, to 1e-6, are their probabilities; over several steps of
    Adam.
    """
    search = warmed(config, data, **{"search.alpha_lr": 0.1})
    search.prune(0)
    for count in range(5):
        before = search.supernet.alpha.detach().clone()
        search.alpha_step(count)
        after, paths = search.supernet.alpha.detach(), taken[-1]
        sampled = torch.zeros_like(before, dtype=torch.bool)
        for chosen in (paths.active, paths.inactive):
            sampled.scatter_(-1, chosen.clamp(min=0).unsqueeze(-1), True)
        sampled[0] = False
        assert torch.equal(after[~sampled], before[~sampled])
        torch.testing.assert_close(after.softmax(-1)[~sampled], before.softmax(-1)[~sampled], rtol=0, atol=1e-6)
        assert ((after != before).sum(-1)[1:] == 2).float().mean() > 0.9


def test_an_architecture_step_lowers_the_loss_along_its_gradient(config, data):
    """Adam with beta1 = 0 at its first step is the sign of the gradient: the active operation's entry moves
    against it.
    """
    search = warmed(config, data, **{"search.alpha_lr": 1e-3})
    recorded = {}
    original = search.alpha_optimizer.step
    search.alpha_optimizer.step = lambda: (
        recorded.update(grad=search.supernet.alpha.grad.clone(), alpha=search.supernet.alpha.detach().clone()),
        original(),
    )
    search.alpha_step(0)
    moved = search.supernet.alpha.detach() - recorded["alpha"]
    clear = recorded["grad"].abs() > 1e-4  # where Adam's eps plays no part
    assert clear.sum() > 20
    assert (moved[clear].sign() == -recorded["grad"][clear].sign()).all()
    assert search.alpha_optimizer.param_groups[0]["betas"] == (0.0, 0.99)


def test_alpha_learns_from_the_other_half(config, data, monkeypatch):
    search, seen = Search(config, data), {"weights": set(), "alpha": set()}
    original = search.loss

    def spy(index, *rest):
        (paths,) = (each for each in rest if isinstance(each, Paths))
        seen["weights" if paths.gates is None else "alpha"].update(index.tolist())
        return original(index, *rest)

    monkeypatch.setattr(search, "loss", spy)
    run(search)
    assert seen["weights"] <= set(search.weights_half.tolist()) and seen["alpha"] <= set(search.alpha_half.tolist())
    assert not seen["weights"] & seen["alpha"] and len(seen["alpha"]) > 30


def test_an_architecture_step_follows_every_kth_weight_step_after_warm_up(config, data, taken):
    """5 epochs of 5 steps, k = 2, warm-up of one epoch; in the fifth epoch the last cell is pruned and nothing is left
    to learn.
    """
    search = Search(config, data)
    assert search.num_steps == 5
    kinds = []
    for progress in search.advance():
        if progress.row is None:
            kinds.append([paths.gates is not None for paths in taken])
            taken.clear()
    expected = [[False, True] if 5 <= i < 20 and (i + 1) % 2 == 0 else [False] for i in range(25)]
    assert kinds == expected


def test_architecture_steps_are_counted_one_by_one(config, data, monkeypatch):
    """By the weight steps before them, warm-up's too: each count is a random stream of its own."""
    counts = []
    monkeypatch.setattr(Search, "alpha_step", lambda self, count: counts.append(count))
    run(Search(config, data))
    assert counts == list(range(3, 11))


def test_warm_up_draws_uniform_paths_without_dropout(config, data, monkeypatch):
    calls = []
    draw = module.sample_paths
    monkeypatch.setattr(module, "sample_paths", lambda *a, **k: calls.append(k) or draw(*a, **k))
    search = Search(config, data)
    run(search)
    assert calls[:5] == [{"uniform": True, "candidates": CANDIDATES}] * 5
    later = {"uniform": False, "candidates": CANDIDATES, "skip_dropout": 0.2, "pool_dropout": 0.0}
    assert calls[5:] == [later] * 20


@pytest.mark.parametrize("edges", ["all", "top2"])
def test_pruning_makes_the_optimiser_forget(config, data, edges):
    search = warmed(config, data, **{"search.edges": edges})
    before = snapshot(search)
    held = set(search.optimizer.state)
    states = copy.deepcopy(search.state()["optimizer"])
    search.prune(1)
    alive = set(search._named_weights().values())
    assert set(search.optimizer.param_groups[0]["params"]) == alive
    assert set(search.optimizer.state) == held & alive < held
    after = snapshot(search)
    assert len(after) < len(before)
    assert all(torch.equal(t, before[name]) for name, t in after.items() if name != "present")
    for name, entries in search.state()["optimizer"].items():
        assert all(torch.equal(t, states[name][key]) for key, t in entries.items())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"search.objective": "supervised", "search.prune": "backward"},
        {"search.objective": "byol", "search.edges": "all"},
    ],
    ids=["simclr", "supervised", "byol"],
)
def test_same_seed_same_result(config, data, settings):
    one, two, other = (Search(config.changed(**FAST | settings | {"seed": seed}), data) for seed in (0, 0, 1))
    assert differing(snapshot(one), snapshot(two)) == set()  # torch's own generator has no say in the initial weights,
    assert differing(snapshot(one), snapshot(other)) != set()
    for seed, search in enumerate((one, two)):
        torch.manual_seed(seed)  # nor in the steps
        run(search)
    assert differing(snapshot(one), snapshot(two)) == set()
    assert one.history == two.history
    assert one.finish()[0] == two.finish()[0]


INTERRUPTIONS = {
    "in the middle of an epoch": (1, 2),
    "at an epoch's boundary, before cells are pruned": (3, 0),
    "after some cells are pruned": (3, 3),
    "after all cells are pruned": (4, 1),
}


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, tuple(INTERRUPTIONS)),
        ({"search.objective": "byol", "search.edges": "all"}, ("after some cells are pruned",)),
        ({"search.prune": "none", "search.ratios": (0.2, 0.8)}, ("at an epoch's boundary, before cells are pruned",)),
    ],
    ids=["simclr", "byol", "unpruned"],
)
def test_interrupted_equals_uninterrupted(config, data, settings, places, tmp_path):
    """Wherever the search is left, a new one that takes up its state ends bitwise where the first one ends."""
    config = config.changed(**settings)
    whole, left = Search(config, data), set()
    for _ in whole.advance():
        place = next((name for name, at in INTERRUPTIONS.items() if at == (whole.epoch, whole.step)), None)
        if place:
            torch.save(whole.state(), tmp_path / place)
            left.add(place)
    assert left == set(INTERRUPTIONS)
    expected, history = snapshot(whole), whole.history
    result, weights = whole.finish()
    for place in places:
        resumed = Search(config, data)
        resumed.restore(torch.load(tmp_path / place, weights_only=True))
        assert (resumed.epoch, resumed.step) == INTERRUPTIONS[place]
        run(resumed)
        assert differing(expected, snapshot(resumed)) == set(), place
        assert resumed.history == history, place
    again, other = resumed.finish()
    assert again == result and differing(weights, other) == set()


def test_interrupted_between_an_epochs_last_step_and_its_row(config, data, tmp_path):
    """The epoch's row, its learning rate included, is the uninterrupted search's."""
    config = config.changed(**FAST)
    whole = Search(config, data)
    for progress in whole.advance():
        if (progress.epoch, progress.step, progress.row) == (1, whole.num_steps, None):
            torch.save(whole.state(), tmp_path / "state")
    resumed = Search(config, data)
    resumed.restore(torch.load(tmp_path / "state", weights_only=True))
    run(resumed)
    assert differing(snapshot(whole), snapshot(resumed)) == set()
    assert resumed.history == whole.history


@pytest.mark.parametrize("caps", [2, None])
def test_top2_exports_the_supernet_itself(config, digits, data, caps):
    """After a whole search: equal outputs, to the bit, on 1,000 images, and equal losses and accuracies."""
    search = run(Search(config.changed(**{"search.max_skips": caps, "search.max_pools": caps}), data))
    result, weights = search.finish()
    network = search.export()
    assert result["supernet"] == result["exported"]
    x = normalise(digits.train[:1000], data.mean, data.std)
    supernet = search.supernet.eval()
    with torch.no_grad():
        assert torch.equal(network.eval()(x), supernet(x, supernet.kept_paths()))
    assert Genotype.model_validate(result["genotype"]) == derive(weights["alpha"], caps, caps) == network.genotype
    assert supernet.num_searching == 0 and result["pruned_at"] == {"0": 3, "1": 3, "2": 4}


def skipping(config, data, **settings) -> tuple[Search, dict, dict]:
    """A finished search whose alpha prefers skips everywhere, so that the caps have work."""
    search = Search(config.changed(**{"search.edges": "all", "search.alpha_lr": 1e-8} | settings), data)
    with torch.no_grad():
        search.supernet.alpha[..., 0] = 1 + torch.rand(3, 14, generator=torch.Generator().manual_seed(0))
    search._fetch_alpha()
    return search, *run(search).finish()


def test_all_keeps_14_edges_and_says_what_the_caps_changed(config, data):
    search, result, weights = skipping(config, data)
    assert search.supernet.present.sum(-1).tolist() == [[1] * 14] * 3
    assert all(len(cell.edges) == 14 for cell in search.supernet.cells)
    assert result["changed_by_caps"] == 3 * 6
    assert result["operation_counts"]["skip_connect"] == 6 and result["skip_share"] == 0.25
    assert result["supernet"] != result["exported"]
    assert all(math.isfinite(result[at]["loss"]) for at in ("supernet", "exported"))
    assert sum(f".edges.{e}." in name for name in weights for e in range(14)) > 0


def test_without_caps_nothing_is_changed(config, data):
    _, result, _ = skipping(config, data, **{"search.max_skips": None, "search.max_pools": None})
    assert result["changed_by_caps"] == 0
    assert result["skip_share"] == 1.0


def test_history_has_a_row_for_each_epoch(config, data):
    search = run(Search(config, data))
    assert [row["epoch"] for row in search.history] == [0, 1, 2, 3, 4]
    assert [row["phase"] for row in search.history] == ["warm-up", "bi-level", "bi-level", "pruning", "pruning"]
    assert [row["pruned"] for row in search.history] == [[], [], [], [0, 1], [2]]
    assert [sum(e > 0 for e in row["entropy"]) for row in search.history] == [3, 3, 3, 1, 0]
    assert ["alpha_loss" in row for row in search.history] == [False, True, True, True, False]


def test_supervised_search_needs_labels(config, data):
    unlabelled = replace(data, train_labels=None, classes=(), test=None, test_labels=None)
    with pytest.raises(InputError, match="supervised objective needs labels"):
        Search(config.changed(**{"search.objective": "supervised"}), unlabelled)
    result, _ = run(Search(config.changed(**FAST), unlabelled)).finish()
    assert result["images"] == 160


def test_a_batch_larger_than_a_half_is_refused(config, data):
    with pytest.raises(InputError, match=r"batch_size 90 is larger than the .* images that each half"):
        Search(config.changed(**{"search.batch_size": 90}), data)


def test_a_loss_that_is_not_finite_ends_the_search(config, data):
    search = Search(config, data)
    search.loss = lambda *_: (sum(p.sum() for p in search.supernet.head.parameters()) * math.nan, {})
    with pytest.raises(RunError, match="loss became nan in epoch 0 at or shortly before step 0"):
        run(search)


def test_a_search_in_bfloat16(config, data):
    search = run(Search(config.changed(**FAST | {"model.precision": "bfloat16"}), data))
    assert all(p.dtype == torch.float32 for p in search.supernet.parameters())
    assert math.isfinite(search.finish()[0]["exported"]["loss"])


def test_weights_learn_from_all_images_once_alpha_needs_none(config, data):
    changes = {"search.epochs": 8, "search.ratios": (0.25, 0.25, 0.25, 0.25), "search.alpha_every": 1}
    search, seen = Search(config.changed(**changes), data), []
    step = search.weight_step
    search.weight_step = lambda index: seen.append((search.phase, search.supernet.num_searching, index)) or step(index)
    run(search)
    half = set(search.weights_half.tolist())
    for what, searching, index in seen:
        assert searching == 0 or what != "fixed"
        assert what == "fixed" or set(index.tolist()) <= half
    assert not set(torch.cat([index for what, _, index in seen if what == "fixed"]).tolist()) <= half
    assert len([1 for what, _, _ in seen if what == "fixed"]) == 2 * search.num_steps


def test_another_stream_of_alpha_changes_nothing_before_its_first_step(config, data):
    """The same weights until the warm-up ends, then other architecture steps."""
    one, other = (Search(config.changed(**{"search.alpha_stream": stream}), data) for stream in (0, 1))
    for search in (one, other):
        steps = search.advance()
        while search.phase == "warm-up":
            next(steps)
    same = lambda: all(  # noqa: E731
        torch.equal(a, b) for a, b in zip(one.supernet.parameters(), other.supernet.parameters(), strict=True)
    )
    assert same() and float(one.supernet.alpha.detach().abs().max()) == 0
    one.alpha_step(1), other.alpha_step(1)
    assert not torch.equal(one.supernet.alpha, other.supernet.alpha)


def test_planted_operations_are_searched_and_not_found(config, data):
    search = Search(config.changed(**{"search.planted": ("noise", "zero", "twin")}), data)
    run(search)
    result, weights = search.finish()
    assert weights["alpha"].shape[-1] == len(CANDIDATES) + 3
    assert {name for cell in result["genotype"]["cells"] for name, _ in cell} <= set(CANDIDATES)
    assert len(result["evidence"]["updates"][0][0]) == len(CANDIDATES) + 3
