"""CIFAR is one data set wherever its files come from; slices of it are the same."""

import numpy as np
import pytest
import torch
from PIL import Image

from sswp_lib.config import Data, InputError
from sswp_lib.learn import known
from sswp_lib.learn.data import fingerprint, load
from sswp_lib.presets import SLICES, load_config, load_slice

CLASSES = ["bird", "cat"]
SIZES = ((12, 6), 2)


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The same images as torchvision's data set and as a folder, in other orders."""
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 12), ("test", 6)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        parts[part] = images, [i % 2 for i in range(count)]
        for i, (image, label) in enumerate(zip(*parts[part], strict=True)):
            path = tmp_path / "folder" / "cifar10" / part / CLASSES[label] / f"{99 - i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)

    class Stored:
        filename = "cifar.tar.gz"

        def __init__(self, root, train, download):
            self.data, self.targets = parts["train" if train else "test"]
            self.classes = CLASSES

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Stored)
    monkeypatch.setitem(known.CIFAR, "cifar10", SIZES)
    return {name: str(tmp_path / name) for name in ("folder", "files")}


@pytest.mark.parametrize("settings", [{}, {"per_class": 2}, {"per_class": 2, "image_size": 16}])
def test_folder_and_files_are_one_data_set(both, settings):
    one, other = (load(Data(name="cifar10", root=root, **settings)) for root in both.values())
    for name in ("train", "train_labels", "test", "test_labels"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert one.classes == other.classes == tuple(CLASSES)
    assert one.train.shape[-1] == settings.get("image_size", 32)
    assert fingerprint(Data(name="cifar10", root=both["folder"])) is None  # so runs have one name


def test_a_slice_has_so_many_of_each_class_and_is_part_of_larger_ones(both):
    of = lambda count: load(Data(name="cifar10", root=both["folder"], per_class=count))  # noqa: E731
    small, large = of(2), of(4)
    assert torch.bincount(small.train_labels).tolist() == torch.bincount(small.test_labels).tolist() == [2, 2]
    assert torch.bincount(large.train_labels).tolist() == [4, 4]
    held = {image.numpy().tobytes() for image in large.train}
    assert {image.numpy().tobytes() for image in small.train} < held


def test_a_folder_that_lacks_images_is_refused(both, tmp_path):
    next((tmp_path / "folder" / "cifar10" / "train" / "cat").iterdir()).unlink()
    with pytest.raises(InputError, match="has 11 training and 6 test images of 2 classes; cifar10 has 12 and 6 of 2"):
        load(Data(name="cifar10", root=both["folder"]))


def test_slices_of_digits_and_of_what_has_no_labels(tmp_path):
    some = load(Data(name="digits", image_size=8, per_class=3))
    assert torch.bincount(some.train_labels).tolist() == [3] * 10 and len(some.test) == 30
    for i in range(3):
        path = tmp_path / "bare" / "train" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    with pytest.raises(InputError, match=r"has no labels, of which data\.per_class=3"):
        load(Data(name=f"folder:{tmp_path / 'bare'}", image_size=8, per_class=3))


def test_what_is_there_needs_no_download(both, tmp_path):
    assert known.is_there("cifar10", tmp_path / "folder") and not known.is_there("cifar10", tmp_path / "files")
    (tmp_path / "files" / "cifar-10-batches-py").mkdir(parents=True)
    assert known.is_there("cifar10", tmp_path / "files") and not known.is_there("cifar100", tmp_path / "files")


def test_the_slice_of_a_preset_is_its_own_but_for_what_it_says():
    assert load_slice("quick") is None
    for study in (None, "ablations", "few_labels"):
        found = load_slice("night", {"seed": 3}, study)
        assert found.data.name == "cifar10" and found.data.per_class == 500 and found.seed == 3
        assert found.model == load_config("night").model
        assert load_config("night", "cifar10", 3, study=study) == found  # a reader who asks for the data gets the same
    assert {k.partition(".")[0] for settings in SLICES.values() for k in settings} <= {"data", "search", "train"}
