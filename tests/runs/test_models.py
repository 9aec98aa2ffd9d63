"""The network of a run as a module for other code: the run's own numbers, under the names that users of timm know."""

import json
import subprocess
import sys

import pytest
import torch
from tiny_runs import images, tiny

import sswp_lib
from sswp_lib.config import InputError
from sswp_lib.learn.data import load as load_data
from sswp_lib.learn.views import normalise
from sswp_lib.runs import records, runs
from sswp_lib.runs.models import data_facts
from sswp_lib.space import Choices, Genotype

OPERATIONS = ("nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none", "nor_conv_1x1", "nor_conv_3x3")
CHOICES = Choices("nasbench201", OPERATIONS)
WITHOUT_LABELS = {
    "train__objective": "simclr", "train__labels_per_class": None, "train__validation": 0.0, "train__evaluate_every": 0,
    "train__batch_size": 200,
}  # fmt: skip


def trained(source=None, **settings) -> runs.Record:
    source = source or Genotype.published("DARTS_V2", 2)
    return runs.train(tiny(**{"train__epochs": 1} | settings), source, device="cpu", quiet=True)


def normalised(record, count: int = 40) -> torch.Tensor:
    data = load_data(tiny().data)
    return normalise(data.test[:count], data.mean, data.std)


@pytest.mark.parametrize("choices", [False, True])
def test_a_run_is_loaded_with_its_own_accuracy(runs_folder, choices):
    other = {"train__drop_path": 0.0, "train__auxiliary": 0.0} if choices else {"train__auxiliary": 0.4}
    record = trained(CHOICES if choices else None, **other)
    model, data = sswp_lib.load(record.name[:9]), load_data(tiny().data)
    with torch.no_grad():
        scores = model(normalise(data.test, data.mean, data.std))
    right = (scores.argmax(1) == data.test_labels).double().mean()
    assert 100 * float(right) == pytest.approx(record.accuracies["test"]["top1"], abs=0.3)
    assert not model.training and not any("auxiliary" in name for name in model.state_dict())


def test_names_that_timm_has(runs_folder):
    record = trained()
    model, x = sswp_lib.load(record.name), normalised(record)
    cfg = model.default_cfg
    assert cfg["input_size"] == (3, 8, 8) and cfg["num_classes"] == model.num_classes == 10 and cfg["crop_pct"] == 1
    assert cfg["classes"] == tuple("0123456789") and cfg["run"] == record.name
    assert Genotype.from_json(json.dumps(cfg["architecture"])) == record.genotype
    data = load_data(tiny().data)
    assert torch.equal(torch.tensor(cfg["mean"]), data.mean) and torch.equal(torch.tensor(cfg["std"]), data.std)
    with torch.no_grad():
        scores, last = model(x), model.forward_features(x)
        features = model.forward_head(last, pre_logits=True)
        torch.testing.assert_close(features, last.mean((2, 3)))
        torch.testing.assert_close(model.get_classifier()(features), scores)
        model.reset_classifier(3)
        assert model(x).shape == (40, 3) and model.default_cfg["num_classes"] == model.num_classes == 3
        assert model.default_cfg["classes"] is None and cfg["num_classes"] == 10
        model.reset_classifier(0)
        assert torch.equal(model(x), features) and features.shape == (40, model.num_features)


def test_a_pretraining_gives_features(runs_folder):
    record = trained(
        train__objective="simclr",
        train__labels_per_class=None,
        train__validation=0.0,
        train__evaluate_every=0,
        train__batch_size=200,
    )
    model = sswp_lib.load(record.name)
    with torch.no_grad():
        assert model(normalised(record)).shape == (40, model.num_features)
    assert model.default_cfg["num_classes"] == 0 and model.default_cfg["classes"] is None


def test_what_is_no_training_or_has_no_weights_is_refused(finished):
    with pytest.raises(InputError, match=r"is a search, whose network .* sswp train search-\w+ --init concomitant"):
        sswp_lib.load(finished.name)
    record = trained()
    (runs.root() / record.name / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=f"the weights of {record.name} are not here"):
        sswp_lib.load(record.name)


def test_a_record_of_an_earlier_release_asks_images_that_are_always_the_same(runs_folder, tmp_path):
    record = trained()
    earlier = record.model_copy(update={"result": {k: v for k, v in record.result.items() if k != "data"}})
    assert data_facts(earlier) == record.result["data"]
    assert record.result["data"] | {"mean": 0, "std": 0} == {
        "classes": list("0123456789"), "mean": 0, "std": 0, "images": 1347, "test_images": 450,
    }  # fmt: skip
    folder = images(tmp_path / "own", {f"{part}/{c}": 4 for part in ("train", "test") for c in "ab"})
    record = trained(data__name=f"folder:{folder}", train__batch_size=2)
    assert sswp_lib.load(record.name).default_cfg["classes"] == ("a", "b")
    earlier = record.model_copy(update={"result": {k: v for k, v in record.result.items() if k != "data"}})
    records.write(runs.root() / record.name, earlier)
    with pytest.raises(InputError, match=r"earlier release .* classes and the colours of its folder; .* --fresh"):
        sswp_lib.load(record.name)


def test_importing_the_package_stays_light():
    code = "import sys, sswp_lib; assert callable(sswp_lib.load); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
