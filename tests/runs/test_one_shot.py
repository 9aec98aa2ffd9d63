"""One-shot training, linear evaluation and ranking as runs: named, kept, taken up."""

from __future__ import annotations

import pytest

from sswp_lib.config import InputError
from sswp_lib.learn.oneshot import OneShot
from sswp_lib.learn.ranking import LinearEvaluation
from sswp_lib.learn.scoring import Scoring
from sswp_lib.presets import load_config
from sswp_lib.runs import one_shot, runs
from sswp_lib.space import SPACES

SPACE = SPACES["nasbench201"]
TINY = {
    "one_shot.init_channels": 4, "one_shot.num_cells": 1, "one_shot.epochs": 1, "one_shot.batch_size": 128,
    "one_shot.queue": 256, "model.projection_dim": 8, "ranking.linear_epochs": 1, "ranking.linear_lr": 0.3,
    "ranking.calibration_images": 64, "ranking.calibration_batch": 32,
}  # fmt: skip


def tiny(**changes):
    return load_config("smoke", settings=TINY | {f"one_shot.{name}": value for name, value in changes.items()})


@pytest.fixture
def some(g):
    return [SPACE.draw(g) for _ in range(4)]


@pytest.mark.parametrize("objective", ["crosspath", "supervised"])
def test_a_ranking_trains_what_it_needs_and_is_done_once(runs_folder, some, objective, monkeypatch):
    config = tiny(objective=objective)
    record = one_shot.rank(config, some, some[:2], "cpu", quiet=True)
    kinds = sorted(path.parent.name.rsplit("-", 1)[0] for path in runs_folder.glob("*/record.json"))
    assert kinds == sorted(["one-shot", "ranking", *["linear"] * (objective == "crosspath")])
    assert len(record.result["scores"]) == 4 and all(0 <= score <= 100 for score in record.result["scores"])
    assert set(record.result["similarity"]) == {"raw", "centred", "different", "matrix"}
    monkeypatch.setattr(Scoring, "train_step", lambda self: pytest.fail("computed again"))
    assert one_shot.rank(config, some, some[:2], "cpu", quiet=True) == record


def test_a_name_holds_what_the_result_depends_on_and_nothing_else(runs_folder):
    name = lambda config: one_shot.identity(config, "one_shot")  # noqa: E731
    base = tiny()
    same = {"search.epochs": 99, "train.lr": 0.5, "model.init_channels": 20, "data.root": "elsewhere"}
    for setting, value in same.items():
        assert name(base.changed(**{setting: value})) == name(base), setting
    other = {
        "one_shot.lr": 0.5,
        "one_shot.queue": 128,
        "one_shot.in_batch": True,
        "model.projection_dim": 16,
        "data.views.rotation": 3.0,
        "seed": 1,
    }
    for setting, value in other.items():
        assert name(base.changed(**{setting: value})) != name(base), setting
    ranked = lambda config: one_shot.identity(config, "one_shot", "ranking")  # noqa: E731
    assert ranked(base.changed(**{"ranking.generations": 3})) == ranked(base)
    assert ranked(base.changed(**{"ranking.linear_lr": 0.7})) != ranked(base)
    labelled = tiny(objective="supervised")
    assert ranked(labelled.changed(**{"ranking.linear_lr": 0.7})) == ranked(labelled)
    ignored = {"one_shot.queue": 128, "one_shot.in_batch": True, "model.projection_dim": 16}
    assert name(labelled.changed(**ignored)) == name(labelled)


def test_another_list_is_another_ranking_of_the_same_training(runs_folder, some):
    config = tiny()
    one, other = (one_shot.rank(config, each, device="cpu", quiet=True) for each in (some, some[::-1]))
    assert one.name != other.name and one.result["scores"] == other.result["scores"][::-1]
    assert (
        len(list(runs_folder.glob("one-shot-*/record.json")))
        == len(list(runs_folder.glob("linear-*/record.json")))
        == 1
    )


def test_a_ranking_that_was_interrupted_goes_on(runs_folder, some, monkeypatch):
    config, step = tiny(), Scoring.train_step
    expected = one_shot.rank(config, some, device="cpu", quiet=True).result
    for path in runs_folder.glob("ranking-*/record.json"):
        path.unlink()
    monkeypatch.setattr("sswp_lib.runs.carrying_out.CHECKPOINT_SECONDS", 0.0)
    scored = []

    def stopping(self):
        if len(scored) == 2 and self.step == 2:
            raise KeyboardInterrupt
        scored.append(self.step)
        step(self)

    monkeypatch.setattr(Scoring, "train_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        one_shot.rank(config, some, device="cpu", quiet=True)
    scored.append("again")
    assert one_shot.rank(config, some, device="cpu", quiet=True).result == expected
    assert scored == [0, 1, "again", 2, 3]


def test_weights_that_were_not_restored_are_made_again(runs_folder, some):
    config = tiny()
    before = one_shot.rank(config, some[:2], device="cpu", quiet=True)
    for path in runs_folder.glob("*/weights.safetensors"):
        path.unlink()
    after = one_shot.rank(config, [*some[:2], some[3]], device="cpu", quiet=True)
    assert after.result["scores"][:2] == before.result["scores"]
    assert all(runs.has_weights(r) for r in runs.everything() if r.kind in ("one-shot", "linear"))


def test_a_ranking_that_is_there_needs_no_weights(runs_folder, some, monkeypatch):
    assert one_shot.finished(tiny()) is None and one_shot.finished(tiny(), some, some[:2]) is None
    before = one_shot.rank(tiny(), some, some[:2], "cpu", quiet=True)
    for path in runs_folder.glob("*/weights.safetensors"):
        path.unlink()
    for loop in (OneShot, LinearEvaluation, Scoring):
        monkeypatch.setattr(loop, "train_step", lambda self: pytest.fail("computed again"))
    assert one_shot.rank(tiny(), some, some[:2], "cpu", quiet=True) == before
    assert one_shot.finished(tiny(), some, some[:2]) == before and one_shot.finished(tiny(), some) is None
    assert one_shot.finished(tiny()).name == before.provenance["started_from"]


def test_an_untrained_network_is_ranked_too(runs_folder, some):
    record = one_shot.rank(tiny(epochs=0), some[:2], device="cpu", quiet=True)
    trained = one_shot.train(tiny(epochs=0), "cpu", quiet=True)
    assert trained.result["steps"] == 0 and trained.history == [] and len(record.result["scores"]) == 2


def test_nothing_to_score_is_refused(runs_folder):
    with pytest.raises(InputError, match="no architecture to score"):
        one_shot.rank(tiny(), [], device="cpu", quiet=True)
