"""Pi-NAS's arms differ in what they should, and what is measured of rankings is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from sswp_lib.config import InputError
from sswp_lib.paper import pi_nas, pi_nas_claims, ranked, stand_alone, studies
from sswp_lib.paper.claims import CLAIMS, ledger
from sswp_lib.paper.pi_nas import ARMS, Truth
from sswp_lib.presets import PRESETS, load_config
from sswp_lib.runs.records import Done, Record
from sswp_lib.space.bench201 import BENCH201

TINY = {
    "one_shot.init_channels": 4, "one_shot.epochs": 1, "one_shot.batch_size": 128, "one_shot.queue": 256,
    "model.projection_dim": 8, "ranking.linear_epochs": 1, "ranking.calibration_images": 64,
    "ranking.calibration_batch": 32, "train.epochs": 1, "train.labels_per_class": 4,
}  # fmt: skip
RECORD = {"kind": "ranking", "config": {}, "seed": 0, "provenance": {"started_from": "one-shot-a"}}


def config(**changes):
    return load_config("smoke", study="one_shot", settings=TINY | changes)


def test_arms_differ_in_what_they_should_alone():
    base = config()
    changed = {}
    for job in pi_nas.rankings(base, pi_nas.drawn(3), 1):
        one, other = base.one_shot.model_dump(), job.config.one_shot.model_dump()
        changed[job.labels["arm"]] = {name: other[name] for name in one if one[name] != other[name]}
        assert job.config.changed(**{f"one_shot.{name}": value for name, value in one.items()}) == base
    assert changed == {
        "Pi-NAS": {},
        "cross-path only": {"teacher": 0.0},
        "teacher only": {"cross_path": False},
        "neither": {"cross_path": False, "teacher": 0.0},
        "no negatives": {"negatives": False},
        "SPOS": {"objective": "supervised", "lr": 0.1},
        "untrained supernet": {"epochs": 0},
    }


def test_all_arms_and_seeds_rank_the_same_architectures():
    jobs = pi_nas.rankings(config(), pi_nas.drawn(5), 2)
    assert [(job.labels["seed"], job.labels["arm"]) for job in jobs] == [(s, arm) for s in (0, 1) for arm in ARMS]
    assert {job.config.seed for job in jobs} == {0, 1} and len({(job.architectures, job.alike) for job in jobs}) == 1
    with pytest.raises(InputError, match=r"one_shot\.space is 'resnest'"):
        pi_nas.rankings(config(**{"one_shot.space": "resnest"}), pi_nas.drawn(2), 1)


def test_architectures_are_drawn_once_among_the_729():
    everything = stand_alone.without_none_and_skip()
    assert pi_nas.drawn(729) == pi_nas.drawn(10_000) == everything
    few = pi_nas.drawn(12)
    assert few == pi_nas.drawn(12) and len(set(few)) == 12 and set(few) <= set(pi_nas.drawn(24)) <= set(everything)
    assert [choices.operations[-1] for choices in pi_nas.paths_compared()] == list(BENCH201.candidates[1:])


@pytest.mark.parametrize("preset", PRESETS)
def test_supernets_of_a_preset_are_scaled_to_its_length(preset):
    """The teacher averages over no more than a fifth of a run, and the queue holds less than half of the images."""
    images = {"cifar": 50_000, "paper": 50_000, "imagenet": 1_281_167}.get(preset, 1347)
    s = load_config(preset, study="one_shot").one_shot
    learnt = (1 - s.validation) * images
    assert s.queue < learnt / 2 or preset == "paper"
    if preset not in ("smoke", "paper"):
        assert 1 / (1 - s.teacher) <= s.epochs * (learnt // s.batch_size) / 2


def test_extents():
    assert pi_nas.extent("smoke", 7) == replace(pi_nas.extent("smoke"), architectures=7, published=7)
    assert pi_nas.extent("quick", None, 4).trainings == 4
    for wrong in ({"architectures": 1}, {"trainings": 0}, {"trainings": True}):
        with pytest.raises(InputError, match="expected a whole number"):
            pi_nas.extent("smoke", **wrong)


def test_a_seed_means_the_same_images_for_all_architectures(runs_folder):
    """Architectures of one seed are trained on the same labelled images in the same order, with the supernet's size."""
    base, few = config(), pi_nas.drawn(2)
    jobs = pi_nas.alone_jobs(base, few, 2)
    assert [(j.labels["seed"], j.labels["architecture"]) for j in jobs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [j.source for j in jobs] == [*few, *few] and [j.config.seed for j in jobs] == [0, 0, 1, 1]
    assert jobs[0].config == jobs[1].config and jobs[0].config.model.init_channels == 4
    done = studies.carry_out(jobs, "cpu")
    found = pi_nas.trained(done, few)
    assert found.accuracies.shape == (2, 2)
    assert found.accuracies[1, 0] == done[2].record.accuracies["test"]["top1"]
    assert found.accuracy == pytest.approx(found.accuracies.mean(0)) and len(found.runs) == 4
    assert {job.record.result["trained_on"] for job in done} == {40}
    counted = ranked.counts(base, few)["parameters"].tolist()
    assert [job.record.result["parameters"] for job in done[:2]] == counted


def truth(*seeds) -> Truth:
    return Truth(tuple(pi_nas.drawn(len(seeds[0]))), np.array(seeds, dtype=float))


def test_the_ceiling_is_the_mean_tau_of_single_seeds():
    a, b, c = [1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]
    expected = np.mean([kendalltau(x, y).statistic for x, y in ((a, b), (a, c), (b, c))])
    assert truth(a, b, c).ceiling == pytest.approx(expected)
    assert np.isnan(truth(a).ceiling) and truth(a, a).ceiling == 1
    assert replace(truth(a), short=np.array(b, dtype=float)).ceiling == pytest.approx(2 / 3)


def test_published_accuracies_take_the_place_of_trainings(tmp_path, monkeypatch):
    few = pi_nas.drawn(3)
    table = pd.DataFrame(
        {"arch": [BENCH201.write(c) for c in few], stand_alone.LONG: [90.0, 91, 92], stand_alone.SHORT: [80.0, 82, 81]}
    ).set_index("arch")
    found = pi_nas.published(table, few)
    assert found.accuracy.tolist() == [90, 91, 92] and found.ceiling == pytest.approx(1 / 3) and found.published
    on_photographs = config(**{"data.name": "cifar10", "data.image_size": 16})
    monkeypatch.setattr(pi_nas, "home", lambda: tmp_path)
    assert len(pi_nas.extent("quick").drawn(on_photographs)) == 16
    (tmp_path / "data").mkdir()
    table.reset_index().to_csv(tmp_path / "data" / stand_alone.FILE, index=False)
    assert len(pi_nas.extent("quick").drawn(on_photographs)) == 64 and len(pi_nas.extent("quick").drawn(config())) == 16
    same = pi_nas.truth(on_photographs, pi_nas.extent("quick", 3))
    assert same.accuracy.tolist() == [90, 91, 92] and same.architectures == tuple(few)
    without = pi_nas.published(table[[stand_alone.LONG]], few)
    assert np.isnan(without.ceiling) and "published" in without.words


def test_some_published_architectures_are_trained_at_the_supernets_size(monkeypatch):
    on_photographs, affords = config(**{"data.name": "cifar10"}), replace(pi_nas.extent("quick", 6), small=4)
    assert pi_nas.small_jobs(config(), affords) == [] and pi_nas.alone_here(config(), affords, truth([1])) == {}
    monkeypatch.setattr(pi_nas, "is_published", lambda config: config.data.name == "cifar10")
    jobs = pi_nas.small_jobs(on_photographs, affords)
    assert [job.source for job in jobs] == pi_nas.drawn(4)
    assert all(job.config == pi_nas.alone(on_photographs) for job in jobs)
    assert len(pi_nas.small_jobs(on_photographs, replace(affords, small=9))) == 6, "no more than are ranked"

    reached = dict(zip(pi_nas.drawn(4), [40.0, 10.0, 30.0, 20.0], strict=True))
    result = lambda job: {"test": {"top1": reached[job.source]}}  # noqa: E731
    made_up = lambda job: Record(name="train-a", result=result(job), **RECORD)  # noqa: E731
    monkeypatch.setattr(pi_nas.studies, "carry_out", lambda jobs, device: [Done(j.labels, made_up(j)) for j in jobs])
    known = truth([60, 50, 40, 30, 20, 10])
    accuracy = dict(zip(known.architectures, known.accuracy, strict=True))
    expected = kendalltau(list(reached.values()), [accuracy[choices] for choices in reached]).statistic
    found = pi_nas.alone_here(on_photographs, affords, known)
    assert found == {"4 trained alone at this size": pytest.approx(expected)}


def test_controls_count_parameters_and_convolutions():
    base, few = config(), [BENCH201.choices([name] * 6) for name in ("avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")]
    counted = ranked.counts(base.changed(**{"one_shot.init_channels": 8}), few)
    assert counted["parameters"].tolist() == [18_738, 27_474, 91_986] and counted["3x3 convolutions"].tolist() == [
        0,
        0,
        6,
    ]
    found = ranked.controls(base, Truth(tuple(few), np.array([[50.0, 60, 70], [50, 70, 60]])))
    assert found["parameters"] == pytest.approx(kendalltau([0, 1, 2], [50, 65, 65]).statistic)
    assert found["ceiling"] == pytest.approx(1 / 3)


def done(arm: str, seed: int, scores: list[float], centred: float = 0.5) -> Done:
    similarity = {"raw": 0.9, "centred": centred, "different": 0.8, "matrix": [[1.0, centred], [centred, 1.0]]}
    result = {"scores": scores, "similarity": similarity}
    return Done({"arm": arm, "seed": seed}, Record(name=f"ranking-{arm}{seed}", result=result, **RECORD))


@pytest.fixture
def supernets(monkeypatch):
    found = {"collapse": {"cosine": 0.3, "spread": 0.9}}
    history = [{"epoch": 0, "cosine": 0.9}, {"epoch": 1, "cosine": 0.4}]
    record = Record(name="one-shot-a", result=found, history=history, **RECORD)
    monkeypatch.setattr(ranked, "supernet_of", lambda ranking: record)


def test_a_row_a_supernet(supernets):
    known = truth([10, 20, 30, 40])
    frame = ranked.by_supernet([done("Pi-NAS", 0, [1, 2, 3, 4]), done("SPOS", 0, [4, 4, 4, 4])], known)
    assert frame["tau"].tolist()[0] == 1 and np.isnan(frame["tau"][1])
    assert (
        frame["linear"].tolist() == [2.5, 4]
        and frame["top 3"].tolist() == [30, 25]
        and frame["all"].tolist() == [25, 25]
    )
    assert frame["best"].tolist() == [40, 25] and frame["cosine"].tolist() == [0.3, 0.3]
    table = ranked.table7(frame, {"parameters": 0.25}, "quick")
    assert table["tau"].tolist() == ["1.00 (1)", "", "0.25"] and table["paper, tau"].tolist() == [0.79, 0.19, ""]
    assert ranked.histories([done("Pi-NAS", 0, [1, 2])]) == {"Pi-NAS": [[0.9, 0.4]]}
    assert ranked.table4(frame, known, "quick")["here (%)"].tolist() == ["40.00 (1)", "25.00 (1)", "40.00"]


def test_ties_for_the_highest_are_shared():
    accuracy = np.array([1.0, 2, 3, 4])
    assert ranked.of_highest([5, 5, 5, 9], accuracy, 1) == 4
    assert ranked.of_highest([5, 5, 5, 9], accuracy, 2) == pytest.approx((4 + 2) / 2)
    assert ranked.of_highest([1, 2, 3, 4], accuracy, 3) == 3 and ranked.of_highest([1, 1, 1, 1], accuracy, 9) == 2.5


def test_the_bootstrap_over_architectures_is_scipys_tau(supernets):
    rng = np.random.default_rng(1)
    one, other = rng.integers(4, size=9).astype(float), rng.normal(size=9)
    draws = rng.integers(9, size=(5, 9))
    expected = [kendalltau(one[k], other[k]).statistic for k in draws]
    assert ranked._taus(one, other, draws) == pytest.approx(expected)
    known = truth(list(range(12)))
    right, wrong = list(range(12)), list(range(12))[::-1]
    both = [done("Pi-NAS", s, right) for s in (0, 1)] + [done("SPOS", s, wrong) for s in (0, 1)]
    assert ranked.over_architectures(both, known, "Pi-NAS", "SPOS") == (2, 2)
    said = ranked.notes(both, known)
    assert said == {"pi_tau": "difference over architectures 2.00 to 2.00"}
    effects = pi_nas_claims.measured(ranked.by_supernet(both, known), said)
    expected = "no spread, nothing to test; taus 1.00 and -1.00; difference over architectures 2.00 to 2.00"
    assert effects["pi_tau"].note == expected
    assert effects["pi_cp"].note == ""


def test_what_predictions_follow():
    """A supernet that counts pools says so, whatever its tau with the accuracies is."""
    few = [BENCH201.choices(names) for names in (["avg_pool_3x3"] * 6, ["nor_conv_1x1"] * 6, ["nor_conv_3x3"] * 6)]
    mixed = BENCH201.choices(["avg_pool_3x3"] * 3 + ["nor_conv_3x3"] * 3)
    known = Truth((*few, mixed), np.array([[50.0, 60, 90, 80]]))
    rankings = [done("Pi-NAS", 0, [6, 0, 0, 3]), done("Pi-NAS", 1, [6, 0, 0, 3]), done("SPOS", 0, [0, 0, 9, 4])]
    table = ranked.follows(rankings, known, config(), "quick").set_index("arm")
    assert list(table.columns) == [
        ranked.SPREAD, "tau with parameters", "tau with nor_conv_1x1", "tau with nor_conv_3x3",
        "tau with avg_pool_3x3", "preset",
    ]  # fmt: skip
    assert table.loc["Pi-NAS", "tau with avg_pool_3x3"] == "1.00 ± 0.00 (2)"
    expected = kendalltau([6, 0, 0, 3], [0, 1, 3, 2]).statistic
    assert table.loc["Pi-NAS", "tau with parameters"] == f"{expected:.2f} ± 0.00 (2)" and expected < 0
    assert table.loc["SPOS", "tau with nor_conv_3x3"] == "1.00 (1)"
    assert table.loc["Pi-NAS", ranked.SPREAD] == "2.49 ± 0.00 (2)"
    assert table.loc["their own training", "tau with parameters"] == "1.00"


def frame(seeds: int = 3, **taus: float) -> pd.DataFrame:
    """Return rows of made-up supernets: tau as given, growing with the seed, and all that goes with it."""
    rows = [
        {"arm": arm, "seed": seed, "tau": taus.get(arm.split()[0], 0.2) + 0.01 * seed * (1 + len(arm) % 3)}
        | {"cosine": 0.9 + 0.01 * seed if arm == "no negatives" else 0.3, "centred": 0.1 * place + 0.01 * seed * place}
        | {"top 3": 60.0 + seed, "all": 50.0, "best": 60.0 + place * (1 + 0.1 * seed), "run": f"ranking-{place}{seed}"}
        for place, arm in enumerate(ARMS)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_claims_are_measured_by_supernet_seed():
    given = frame(**{"Pi-NAS": 0.8, "cross-path": 0.5})
    effects = pi_nas_claims.measured(given, {"pi_tau": "a note"})
    assert list(effects) == list(pi_nas_claims.PI_NAS) and set(effects) <= set(CLAIMS)
    assert {effect.unit for effect in effects.values()} == {"supernet"} and effects["pi_tau"].n == 3
    assert effects["pi_mt"].mean == pytest.approx(0.3, abs=0.05) and effects["pi_tau"].note.endswith("a note")
    assert effects["pi_collapse"].mean == pytest.approx(0.61) and effects["pi_top"].mean == 11
    verdicts = ledger(effects, "quick").set_index("key")["alone"]
    assert verdicts["pi_collapse"] == "seen" and verdicts["pi_consistency"] == verdicts["pi_best201"] == "contradicted"


def test_supernets_are_paired_by_seed():
    """What a seed has in common cancels; a seed that one arm lacks does not count."""
    given = frame(seeds=4)
    given["tau"] += given["seed"].map({0: 5.0, 1: -3.0, 2: 1.0, 3: 0.0})
    effect = pi_nas_claims.measured(given)["pi_tau"]
    assert abs(effect.mean) < 0.1 and effect.high - effect.low < 0.2
    less = given[(given["arm"] != "SPOS") | (given["seed"] > 0)]
    assert pi_nas_claims.measured(less.assign(tau=given["tau"]))["pi_tau"].n == 3


def test_what_has_no_tau_tests_nothing():
    given = frame()
    given.loc[given["arm"] == "SPOS", "tau"] = np.nan
    effects = pi_nas_claims.measured(given)
    assert "no supernet seed has a tau of both" in effects["pi_tau"].untestable
    assert ledger(effects, "quick").set_index("key").loc["pi_tau", "alone"] == "not testable"
    single = pi_nas_claims.measured(frame(seeds=1))
    assert {CLAIMS[key].verdict(effect) for key, effect in single.items()} == {"undecided", "not testable"}
    assert [key for key, effect in single.items() if effect.untestable] == ["pi_link"]  # taus of made-up arms are tied


def test_the_link_is_a_rank_correlation_over_arms():
    given = frame()
    given["tau"] = given["centred"] ** 3 + given["seed"]
    assert pi_nas_claims.link(given).mean == pytest.approx(1)
    given["tau"] = -given["centred"]
    assert pi_nas_claims.link(given).mean == pytest.approx(-1)
    assert pi_nas_claims.link(given.assign(tau=0.5)).untestable


def test_sizes_of_the_papers_space_stand_beside_the_reported():
    table = ranked.resnest_sizes("quick").set_index("architecture")
    assert table.loc["ResNeSt-50", "parameters (M)"] == 27.483
    for name, row in table.iterrows():
        assert row["parameters (M)"] == pytest.approx(row["parameters, paper (M)"], abs=0.06), name
        assert row["with elementwise (G)"] == pytest.approx(row["FLOPs, paper (G)"], abs=0.006), name
