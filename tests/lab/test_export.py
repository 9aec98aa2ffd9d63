"""Exported networks: the run's own outputs in other hands, described by the file itself and by its model card."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from tiny_runs import images, tiny

from sswp_lib.config import InputError, RunError
from sswp_lib.lab import card
from sswp_lib.lab import export as exporting
from sswp_lib.lab.export import Normalised, _onnx_bytes, _torch_bytes, export, traced
from sswp_lib.lab.portable import Description, opened
from sswp_lib.learn.train import network_of
from sswp_lib.presets import load_config
from sswp_lib.runs import runs
from sswp_lib.runs.models import Backbone, backbone
from sswp_lib.space import CANDIDATES, Choices, Genotype

EXACT = 1e-5
BENCH201 = ("nor_conv_3x3", "avg_pool_3x3", "skip_connect", "none", "nor_conv_1x1", "nor_conv_1x1")
INPUTS = (0, 1, 0, 1, 2, 0, 1, 3)  # of a cell's eight pairs
ALL = Genotype(cells=[[(CANDIDATES[(3 * i + k) % 7], n) for k, n in enumerate(INPUTS)] for i in range(3)])
ELSEWHERE = """
import sys

class Refused:
    def find_spec(self, name, *rest):
        if name.split(".")[0] == "sswp_lib":
            raise ImportError(name)

sys.meta_path.insert(0, Refused())
import json, numpy, onnxruntime, torch
program, onnx_file, images, outputs = sys.argv[1:]
images = numpy.load(images)
beside = {"sswp.json": ""}
network = torch.export.load(program, extra_files=beside).module()
session = onnxruntime.InferenceSession(onnx_file)
found = {
    f"{kind}{n}": compute(images[:n])
    for n in (1, 7)
    for kind, compute in (
        ("torch", lambda x: network(torch.from_numpy(x)).numpy()),
        ("onnx", lambda x: session.run(None, {"images": x})[0]),
    )
}
numpy.savez(outputs, **found)
print(json.dumps([json.loads(beside["sswp.json"]), session.get_modelmeta().custom_metadata_map]))
assert not [name for name in sys.modules if name.startswith("sswp_lib")]
"""


def of_random_weights(architecture, stem: str, size: int) -> tuple[Normalised, Description]:
    """Return a network of weights and statistics away from where they start, and its description."""
    torch.manual_seed(0)
    network = network_of(architecture, tiny(model__stem=stem, model__init_channels=4, data__image_size=32).model, 10)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 2)
        elif tensor.dim() == 1:
            tensor.normal_(std=0.3)
    classes, colours = tuple("0123456789"), {"mean": (0.3, 0.4, 0.5), "std": (0.2, 0.3, 0.4)}
    model = Backbone(network, {"num_classes": 10, "classes": classes, **colours}).eval()
    described = Description(
        output="scores", classes=classes, preprocessing={"resize": size, "crop": size, **colours}, architecture={},
        run="train-0", made={},
    )  # fmt: skip
    return Normalised(model).eval().requires_grad_(False), described


@pytest.mark.parametrize(
    "architecture, stem, size",
    [
        (ALL, "cifar", 9),
        (ALL, "imagenet", 33),
        (Choices("nasbench201", BENCH201), "cifar", 8),
    ],
    ids=["cifar", "imagenet", "nasbench201"],
)
def test_outputs_are_the_networks_own(architecture, stem, size, digits):
    network, described = of_random_weights(architecture, stem, size)
    program = traced(network, size)
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called and all(name.startswith("aten.") for name in called), "plain operations alone"
    x = F.interpolate(digits.test[:7].float() / 255, (size, size), mode="bilinear")
    for kind, made in (("torch", _torch_bytes), ("onnx", _onnx_bytes)):
        content = made(program, described)
        read = opened(content, kind, threads=1)
        assert read.description == described
        for n in (1, 7):
            torch.testing.assert_close(read.compute(x[:n]), network(x[:n]), atol=EXACT, rtol=EXACT)
        assert b"/space/" not in content, "no paths of this machine"


def do_training(**settings) -> runs.Record:
    return runs.train(tiny(train__epochs=2, **settings), Genotype.published("DARTS_V2", 2), device="cpu", quiet=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run's record, and both of its files."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSWP_RUNS", str(folder / "runs"))
        record = do_training()
        paths = export(record), export(record, "onnx", folder / "digits.onnx")
        yield record, backbone(record), *paths


def test_files_need_nothing_of_this_package(exported, digits, tmp_path):
    record, model, *paths = exported
    assert paths[0] == runs.root() / record.name / f"{record.name}.pt2"
    x = digits.test[:7].float() / 255
    np.save(tmp_path / "images.npy", x.numpy())
    arguments = [sys.executable, "-I", "-c", ELSEWHERE, *paths, tmp_path / "images.npy", tmp_path / "outputs.npz"]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = Normalised(model)(x)
    for name, found in np.load(tmp_path / "outputs.npz").items():
        torch.testing.assert_close(torch.from_numpy(found), expected[: int(name[-1])], atol=EXACT, rtol=EXACT)
    beside, properties = json.loads(done.stdout)
    assert beside == {name: json.loads(text) for name, text in properties.items()}
    assert beside["classes"] == list("0123456789") and beside["output"] == "scores"
    assert beside["preprocessing"]["mean"] == list(model.default_cfg["mean"])
    assert Genotype.from_json(json.dumps(beside["architecture"])) == record.genotype
    assert beside["run"] == record.name and beside["made"]["seed"] == 0


def test_onnx_file_is_valid(exported):
    model = onnx.load(exported[3])
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_card_says_how_good_and_where_from(exported):
    record, _, path, _ = exported
    text = path.with_name(f"{path.name}.md").read_text()
    n, z = 450, norm.ppf(0.975)
    p = record.accuracies["test"]["top1"] / 100
    middle, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = (100 * (middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    assert f"{100 * p:.2f} % [{low:.2f}, {high:.2f}]: 95 % interval (Wilson) over 450 test images" in text
    labels = f"| labels used | {record.result['trained_on']}; {record.result['validated_on']} more were held out"
    for said in (
        "**Trained at the preset `smoke` or `quick` or `night`, but for ", "not the paper's", labels, "CC BY 4.0",
        f"| parameters | {record.result['parameters']:,} |", f"{record.result['multiply_adds']:,} an image",
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9", "at random", "on one core of", "seed 0", str(record.provenance["commit"]),
        f'torch.export.load("{path.name}"',
    ):  # fmt: skip
        assert said in text, said
    assert "onnxruntime.InferenceSession" in exported[3].with_name("digits.onnx.md").read_text()


def test_card_tells_of_the_weights_that_are_kept(exported):
    record = exported[0]
    calibrated = {"test": {"top1": 90.0}}
    found = {name: value for name, value in record.result.items() if name != "calibrated"}
    without, other = (record.model_copy(update={"result": r}) for r in (found, found | {"calibrated": calibrated}))
    assert card.tested(without)[0] == record.result["test"]["top1"] and card.tested(other)[0] == 90.0


@pytest.mark.parametrize("presets", [["smoke"], ["quick", "night"], ["paper"]])
def test_preset_is_told_by_its_settings(exported, presets):
    config = load_config(presets[-1], "digits").model_dump(mode="json")
    record = exported[0].model_copy(update={"config": config})
    assert card.nearest_presets(record) == (presets, [])
    changed = config | {"train": config["train"] | {"weight_decay": 0.123, "init": "concomitant", "labels": 0.5}}
    record = record.model_copy(update={"config": changed})
    assert card.nearest_presets(record) == (presets, ["train.weight_decay = 0.123"])


def test_pretraining_exports_features(runs_folder):
    record = do_training(
        train__objective="simclr", train__labels_per_class=None, train__validation=0.0, train__batch_size=200
    )
    path = export(record)
    read = opened(path.read_bytes(), "torch")
    assert read.description.classes is None and read.description.output == "features"
    assert read.compute(torch.rand(3, 3, 8, 8)).shape == (3, backbone(record).num_features)
    text = path.with_name(f"{path.name}.md").read_text()
    assert "labels used | none (1347 images)" in text and "features, no classes" in text and "accuracy" not in text


def test_own_images_are_described(runs_folder, tmp_path):
    folder = images(tmp_path / "own", {f"{part}/{c}": 4 for part in ("train", "test") for c in ("a|b", "c")})
    record = do_training(data__name=f"folder:{folder}", data__decode_size=12, train__batch_size=2)
    path = export(record, output=tmp_path / "own.pt2")
    wanted = opened(path.read_bytes(), "torch").description.preprocessing
    assert (wanted.resize, wanted.crop) == (12, 8)
    text = (tmp_path / "own.pt2.md").read_text()
    assert "its middle square, resized to 12 pixels" in text and "a\\|b, c" in text and "your own images" in text


def test_what_cannot_be_exported(refused, finished, tmp_path):
    assert "is a search" in refused("export", finished.name)
    assert "no finished run 'nothing'" in refused("export", "nothing")
    assert "unknown format 'onnxx'; did you mean 'onnx'?" in refused("export", finished.name, "--format", "onnxx")
    assert "ends in .onnx" in refused("export", finished.name, "--format", "onnx", "--output", tmp_path / "a.pt2")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_packages_that_are_missing_are_named(exported, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package} is not installed: pip install 'sswp\[export\]'"):
        export(exported[0], "onnx", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_is_not_written(exported, monkeypatch, tmp_path):
    def other(*arguments, **named):
        read = opened(*arguments, **named)
        return replace(read, compute=lambda x: read.compute(x) + 0.1)

    monkeypatch.setattr(exporting, "opened", other)
    with pytest.raises(RunError, match=r"outputs differ by up to 0\.1 from the run's"):
        export(exported[0], output=tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []
