"""All methods on one bench: compute counted by hand, epochs that fit it, the right random search beside each."""

import numpy as np
import pandas as pd
import pytest

from sswp_lib.config import InputError
from sswp_lib.learn.searches import SEARCHES
from sswp_lib.paper import bench
from sswp_lib.paper.bench_claims import BENCH_CLAIMS, rival
from sswp_lib.paper.studies import Lot
from sswp_lib.presets import load_config
from sswp_lib.space import Genotype


@pytest.fixture(scope="module")
def configs():
    return bench.configurations("quick")


def test_steps_cost_what_they_run(configs):
    """Counted by hand, of batches of 64: seven candidates; contrast has two views, labels have one."""
    cost = {arm: bench.a_step(config, 64) for arm, config in configs.items()}
    assert cost[bench.SSWP] == pytest.approx({"weights": 1, "alpha": 8 / 3})  # seven forward, one backward
    assert cost[bench.SSNAS] == pytest.approx({"weights": 7, "alpha": 14 / 3})
    assert cost[bench.FIRST] == pytest.approx({"weights": 3.5, "alpha": 7 / 3})
    assert cost[bench.SECOND] == pytest.approx({"weights": 3.5, "alpha": 2 * 3.5 + 2 * 7 / 3})
    assert cost[bench.SPOS] == {"weights": 1} and cost[bench.RANDOM_LABELS] == {"weights": 0.5}
    assert cost[bench.PI_NAS] == pytest.approx({"weights": 4 / 3, "linear": 1 / 6})
    halved = configs[bench.SSNAS].changed(**{"search.batch_size": 32})
    assert bench.a_step(halved, 64)["weights"] == pytest.approx(3.5)
    pair = configs[bench.SSWP].changed(**{"search.evaluated": 2})
    assert bench.a_step(pair, 64)["alpha"] == pytest.approx(1)


def test_whole_searches_cost_their_steps(configs):
    """673 images in a half, 10 batches; 16 epochs, of them 4 of warm-up; cells are pruned at the start of the epochs 9,
    11 and 13 (from 0), and run one candidate from then on.
    """
    on_alpha = [(9 - 4) * 8 / 3 + (13 - 9) * 2 / 3, (11 - 4) * 8 / 3 + (13 - 11) * 2 / 3, (13 - 4) * 8 / 3]
    assert bench.total(configs[bench.SSWP], 64) == pytest.approx(16 * 10 + 10 * sum(on_alpha) / 3)
    darts = configs[bench.FIRST]
    assert bench.total(darts, 64) == pytest.approx(darts.search.epochs * 10 * (3.5 + 7 / 3))
    spos = configs[bench.SPOS]
    learnt, held = 1078, 269  # of 1,347, a fifth of each class held out
    scoring = 100 * (512 + held) / 128 / 3
    assert bench.total(spos, 64) == pytest.approx(spos.one_shot.epochs * (learnt // 64) + scoring)
    drawn = configs[bench.RANDOM_SEARCH]
    assert bench.total(drawn, 64) == drawn.random.draws * drawn.search.epochs * 10


def test_the_relaxation_has_the_models_size_at_every_preset():
    configs = bench.configurations("paper", data="digits")
    assert {(c.relaxed.init_channels, c.relaxed.num_cells) for c in configs.values() if c.search.method != "spos"} == {
        (None, None)
    }


@pytest.mark.parametrize("preset", ["quick", "night"])
def test_epochs_come_as_near_to_the_budget_as_they_can(preset):
    configs = bench.configurations(preset)
    budget = bench.total(configs[bench.SSWP], 64)
    for config in configs.values():
        each, _ = bench.compute(config, 64)
        assert abs(bench.total(config, 64) - budget) <= each / 2 + 1e-9
    methods = {config.search.method for config in configs.values()}
    assert methods == set(SEARCHES) and {c.model.num_cells for c in configs.values()} == {3}


def test_the_relaxations_rate_goes_with_its_steps(configs):
    for arm in (bench.FIRST, bench.SECOND, bench.SSNAS):
        steps = configs[arm].search.epochs * 10
        assert configs[arm].relaxed.alpha_lr * steps == pytest.approx(6, rel=0.03)


def test_a_method_takes_of_the_settings_what_it_can_use():
    given = ["search.epochs=32", "search.batch_size=32", "search.alpha_every=4", "one_shot.lr=0.05", "train.epochs=3"]
    configs = bench.configurations("quick", settings=given)
    assert configs[bench.SSWP].search.epochs == 32 and configs[bench.SSWP].search.alpha_every == 4
    assert configs[bench.SPOS].one_shot.lr == configs[bench.PI_NAS].one_shot.lr == 0.05
    assert configs[bench.FIRST].search.batch_size == 32 and configs[bench.FIRST].search.epochs != 32
    with pytest.raises(InputError, match=r"search\.epoch"):
        bench.configurations("quick", settings=["search.epoch=3"])


def test_the_plan_has_each_arm_from_both_starts_and_a_draw(configs):
    study = load_config("quick", study="bench")
    jobs = bench.plan(configs, study, seeds=2, trainings=2)
    counts = pd.Series([(job.labels["arm"], job.labels["what"]) for job in jobs]).value_counts()
    for arm in configs:
        assert [counts[arm, what] for what in ("search", "scratch", "fine-tuned")] == [2, 4, 4]
    assert counts[bench.DRAWN, "scratch"] == 4 and (bench.DRAWN, "search") not in counts
    for job in jobs:
        assert not isinstance(job.source, Lot)
        if job.labels["what"] != "search":
            assert isinstance(job.source, Genotype) == (job.labels["arm"] == bench.DRAWN)
            recipe = study.changed(**{"train.init": job.config.train.init}, seed=job.config.seed)
            assert job.config == recipe


def frame() -> pd.DataFrame:
    """Three seeds of every arm: random search at 80 and 70 %, each method 1 to 6 points above, and 0 to 2 by seed."""
    base = {bench.RANDOM_SEARCH: 80.0, bench.RANDOM_LABELS: 70.0, bench.DRAWN: 60.0}
    rows = []
    for place, arm in enumerate(bench.ORDER):
        level = base[arm] if arm in base else base[rival(arm)] + place + 1
        for seed in range(3):
            extra = 0 if arm in base else seed
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "scratch": level + extra,
                    "fine-tuned": level + 2 * extra,
                    "parameters": 1000 * (place + 1),
                    "seconds": 10.0 + seed,
                    "scratch run": f"train-{arm}{seed}",
                }
            )
    return pd.DataFrame(rows)


def test_each_method_is_set_against_random_search_of_its_kind(configs):
    gains = bench.improvements(frame()).groupby("arm")[["scratch", "fine-tuned"]].mean()
    labelled = [arm for arm in configs if rival(arm) == bench.RANDOM_LABELS]
    assert labelled == [bench.FIRST, bench.SECOND, bench.SPOS]
    assert {arm: bench.labels_seen(arm) for arm in labelled} == dict.fromkeys(labelled, "to learn")
    for place, arm in enumerate(bench.ORDER):
        if rival(arm):
            assert gains.loc[arm].tolist() == [place + 2, place + 3]
    effects = bench.effects(frame())
    assert set(effects) == set(BENCH_CLAIMS)
    assert effects["bench_sswp"].mean == 2 and effects["bench_random_beats_draw"].mean == 10
    assert effects["bench_sswp"].n == 3


def test_the_table_tells_cost_accuracy_and_improvement(configs):
    table = bench.table(frame(), configs, "quick").set_index("arm")
    assert list(table.index) == list(bench.ORDER)
    assert table.loc[bench.SSWP, "weight steps"] == round(bench.total(configs[bench.SSWP], 64))
    assert table.loc[bench.SSWP, "seconds"] == 11 and table.loc[bench.SSWP, "parameters (k)"] == 1.0
    assert table.loc[bench.SSWP, "minus random search (points)"].startswith("+2.00 [")
    assert table.loc[bench.RANDOM_SEARCH, "minus random search (points)"] == ""
    drawn = table.loc[bench.DRAWN]
    assert drawn["weight steps"] == 0 and drawn["from its own weights (%)"] == ""
    assert not np.isnan(frame()["scratch"]).any()
