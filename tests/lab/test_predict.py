"""`sswp predict`: what the network says of each image; images and exported files that cannot be read."""

import csv
import io
import shutil
import zipfile

import onnx
import pytest
import torch
from PIL import Image
from tiny_runs import Dangerous, tiny

from sswp_lib.lab.export import export
from sswp_lib.lab.portable import note_export
from sswp_lib.learn.views import normalise
from sswp_lib.runs import runs
from sswp_lib.runs.models import backbone
from sswp_lib.space import Genotype

SIZES = {"train.epochs": 1, "data.decode_size": 12}  # 12 pixels a side, of which the middle 8 are used
WITHOUT_LABELS = {
    "train.objective": "simclr", "train.labels_per_class": None, "train.validation": 0.0, "train.batch_size": 200,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder of runs: one with labels, exported in both formats, and a pre-training without, as a torch program."""
    folder = tmp_path_factory.mktemp("store") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSWP_RUNS", str(folder))
        for name, settings in (("labelled", {}), ("unlabelled", WITHOUT_LABELS)):
            config = tiny().changed(**SIZES | settings)
            record = runs.train(config, Genotype.published("DARTS_V2", 2), device="cpu", quiet=True)
            export(record, output=folder / f"{name}.pt2")
            if not settings:
                export(record, "onnx", folder / f"{name}.onnx")
    return folder


@pytest.fixture
def files(store, runs_folder):
    """The exported files, in a folder of runs of this test's own."""
    shutil.copytree(store, runs_folder)
    return runs_folder


@pytest.fixture
def digit_files(digits, tmp_path):
    """Seventy digits as PNG files of 12 pixels a side, in a folder and one inside it; and the pixels, uint8."""
    folder, pixels = tmp_path / "images", []
    (folder / "inner").mkdir(parents=True)
    for i, image in enumerate(digits.test[:70]):
        drawn = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((12, 12), Image.Resampling.BILINEAR)
        drawn.save(folder / ("inner" if i >= 40 else "") / f"{i:03d}.png")
        pixels.append(torch.frombuffer(bytearray(drawn.tobytes()), dtype=torch.uint8).view(12, 12, 3).permute(2, 0, 1))
    return folder, torch.stack(pixels)


def expected(record, pixels) -> torch.Tensor:
    """Return what the run's own network makes of pixels, by the way that training's images go."""
    model = backbone(record)
    with torch.no_grad():
        mean, std = (torch.tensor(model.default_cfg[name]) for name in ("mean", "std"))
        return model(normalise(pixels, mean, std, 8))


def labelled(with_labels: bool):
    (record,) = [r for r in runs.everything() if (r.config["train"]["objective"] == "supervised") == with_labels]
    return record


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_classes_are_the_networks_own(call, files, digit_files, suffix):
    folder, pixels = digit_files
    status, out, _ = call("predict", files / f"labelled{suffix}", folder)
    header, *rows = csv.reader(io.StringIO(out))
    assert status == 0 and header == ["file", "class", "probability"]
    assert [row[0] for row in rows] == [
        str(p) for p in (*sorted(folder.glob("*.png")), *sorted(folder.glob("*/*.png")))
    ]
    probabilities, best = expected(labelled(True), pixels).softmax(1).max(1)
    assert [row[1] for row in rows] == [str(label) for label in best.tolist()]
    assert [float(row[2]) for row in rows] == pytest.approx(probabilities.tolist(), abs=1e-4)


def test_features_where_there_are_no_classes(call, files, digit_files, tmp_path):
    folder, pixels = digit_files
    status, out, _ = call("predict", files / "unlabelled.pt2", folder / "003.png", "--output", tmp_path / "a.csv")
    assert status == 0 and out == ""
    header, row = csv.reader((tmp_path / "a.csv").open())
    features = expected(labelled(False), pixels[3:4])[0].tolist()
    assert header == ["file", *(f"feature_{i}" for i in range(len(features)))]
    assert list(map(float, row[1:])) == pytest.approx(features, abs=1e-4)


def test_images_that_cannot_be_read_are_named_and_passed_over(call, files, digit_files, tmp_path):
    folder, _ = digit_files
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:50])
    (folder / "note.txt").write_text("no image, and not meant to be one")
    (folder / "photo.heic").write_bytes(b"x")
    status, out, err = call("predict", files / "labelled.pt2", tmp_path / "none.png", folder)
    assert status == 1 and len(out.splitlines()) == 71 and "broken" not in out
    said = [line for line in err.splitlines() if line.startswith("sswp: ")]
    assert len(said) == 4 and "Traceback" not in err
    assert "(.heic): 1" in said[0] and "none.png' (No such file" in said[1] and "broken.png' (" in said[2]
    assert said[3] == "sswp: not all images could be read; the table has the others"


def test_a_folder_without_images(refused, files, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no images in" in refused("predict", files / "labelled.pt2", tmp_path / "empty")


def test_a_program_that_would_run_code_is_not_read(refused, files, digit_files, tmp_path):
    """Nor is one of another store: torch unpickles what it reads."""
    hostile = tmp_path / "hostile.pt2"
    with zipfile.ZipFile(files / "labelled.pt2") as old, zipfile.ZipFile(hostile, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sample_inputs/model.pt"):
                buffer = io.BytesIO()
                torch.save(Dangerous(tmp_path / "created"), buffer)
                content = buffer.getvalue()
            new.writestr(name, content)
    line = refused("predict", hostile, digit_files[0])
    assert "hostile.pt2" in line and "not exported here" in line and "may run code" in line
    assert not (tmp_path / "created").exists()
    note_export(hostile, hostile.read_bytes())  # it does run code where it is trusted
    with pytest.raises(AssertionError):
        refused("predict", hostile, digit_files[0])
    assert (tmp_path / "created").exists()


@pytest.mark.parametrize("name", ["labelled.pt2", "labelled.onnx"])
def test_damaged_files(refused, files, digit_files, tmp_path, name):
    content = (files / name).read_bytes()
    for damaged in (b"", content[:1000], content[:-1000], b"\0" * 100):
        (tmp_path / name).write_bytes(damaged)
        assert name in refused("predict", tmp_path / name, digit_files[0])


def changed(files, tmp_path, **properties):
    """Write the ONNX file with other properties; None takes one out."""
    model = onnx.load(files / "labelled.onnx")
    known = {p.key: p.value for p in model.metadata_props} | properties
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {name: text for name, text in known.items() if text is not None})
    onnx.save(model, tmp_path / "other.onnx")
    return tmp_path / "other.onnx"


@pytest.mark.parametrize(
    "properties, said",
    [
        ({"classes": None}, "no description of its network and images (classes: Field required)"),
        ({"classes": '["a", "b"]'}, "makes (64, 10) numbers of 64 images; expected (64, 2)"),
        ({"classes": "["}, "not JSON"),
        ({"preprocessing": '{"resize": 1000000, "crop": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}'}, "resize"),
        ({"preprocessing": '{"resize": 4, "crop": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}'}, "crop 8 is larger than"),
        ({"preprocessing": '{"resize": 9, "crop": 9, "mean": [0, 0, 0], "std": [1, 1, 1]}'}, "not images of 9 pixels"),
    ],
)
def test_descriptions_that_cannot_be(refused, files, digit_files, tmp_path, properties, said):
    assert said in refused("predict", changed(files, tmp_path, **properties), digit_files[0])


def test_what_is_no_exported_file(refused, files, digit_files, tmp_path):
    assert "ends in .pt2 or .onnx" in refused("predict", tmp_path / "weights.safetensors", digit_files[0])
    assert "none.onnx': No such file" in refused("predict", tmp_path / "none.onnx", digit_files[0])


def test_a_table_that_cannot_be_written(refused, files, digit_files, tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "a.csv"
    line = refused("predict", files / "labelled.onnx", digit_files[0], "--output", place, status=1, notes=1)
    assert "cannot write" in line
