"""Data sets, their splits and batches."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from PIL import Image

from sswp_lib.config import Data, InputError
from sswp_lib.learn import pixels
from sswp_lib.learn.data import (
    epoch_batches,
    fingerprint,
    generator,
    halves,
    load,
    number_of_classes,
    take,
    training_subset,
)
from sswp_lib.learn.measure import peak_memory
from sswp_lib.presets import load_config

LABELS = torch.arange(10).repeat_interleave(torch.tensor([40, 41, 37, 60, 52, 33, 45, 40, 40, 40]))[
    torch.randperm(428, generator=torch.Generator().manual_seed(0))
]


def per_class(index: torch.Tensor) -> torch.Tensor:
    return torch.bincount(LABELS[index], minlength=10)


def test_generators_differ_by_purpose_and_agree_by_name():
    draw = lambda *purpose: torch.rand(4, generator=generator(*purpose)).tolist()  # noqa: E731
    assert draw(0, "paths", 1, 2) == draw(0, "paths", 1, 2)
    others = [draw(1, "paths", 1, 2), draw(0, "views", 1, 2), draw(0, "paths", 2, 1), draw(0, "paths", 12)]
    assert draw(0, "paths", 1, 2) not in others


@pytest.mark.parametrize("labels", [LABELS, None])
def test_halves_are_disjoint_stratified_and_cover_everything(labels):
    one, two = halves(len(LABELS), labels, seed=0)
    assert torch.equal(torch.cat([one, two]).sort().values, torch.arange(428))
    if labels is not None:
        assert ((per_class(one) - per_class(two)).abs() <= 1).all()
    else:
        assert len(one) == len(two)
    assert torch.equal(one, halves(len(LABELS), labels, seed=0)[0])
    assert not torch.equal(one, halves(len(LABELS), labels, seed=1)[0])


def test_halves_without_labels_look_at_none():
    """Chance alone splits a class of 400 so unevenly now and then."""
    one, two = halves(801, None, seed=0)
    assert (len(one), len(two)) == (401, 400)
    uneven = [(halves(800, None, seed)[0] < 400).sum().item() for seed in range(10)]
    stratified = [(halves(800, torch.arange(800) // 400, seed)[0] < 400).sum().item() for seed in range(10)]
    assert stratified == [200] * 10 and np.std(uneven) > 3


@pytest.mark.parametrize("validation", [0.0, 0.2])
def test_labelled_fractions_are_nested_stratified_and_apart_from_validation(validation):
    held = training_subset(LABELS, validation, 1.0, None, seed=3)[1]
    before: set[int] = set()
    for fraction in (0.01, 0.1, 0.3, 0.5, 1.0):
        index, held_out = training_subset(LABELS, validation, fraction, None, seed=3)
        available = per_class(torch.arange(428)) - per_class(held_out)
        assert torch.equal(held_out, held)
        assert before < set(index.tolist())
        assert not set(index.tolist()) & set(held_out.tolist())
        wanted = (fraction * available).clamp(min=1)
        assert ((per_class(index) - wanted).abs() <= 0.5).all()
        before = set(index.tolist())
    assert len(before) + len(held) == 428
    assert ((per_class(held) - validation * per_class(torch.arange(428))).abs() <= 0.5).all()


def test_labels_per_class():
    few, _ = training_subset(LABELS, 0.2, 1.0, 2, seed=0)
    more, _ = training_subset(LABELS, 0.2, 1.0, 5, seed=0)
    assert per_class(few).tolist() == [2] * 10 and per_class(more).tolist() == [5] * 10
    assert set(few.tolist()) < set(more.tolist())
    with pytest.raises(InputError, match=r"50 labels per class.*26 training images left"):
        training_subset(LABELS, 0.2, 1.0, 50, seed=0)


def test_a_class_with_too_few_images_is_named():
    labels = torch.tensor([0] * 10 + [1])
    with pytest.raises(InputError, match=r"one training image of each class.*class 'c' has 0.*\(1, of which.*=0.2"):
        training_subset(labels, 0.2, 1.0, None, seed=0, classes=("a", "c"))
    with pytest.raises(InputError, match=r"5 labels per class.*class 'c' has 1 training images left.*data.classes"):
        training_subset(labels, 0.0, 1.0, 5, seed=0, classes=("a", "c"))


def test_batches_of_an_epoch():
    index = torch.arange(100, 130)
    batches = epoch_batches(index, 8, 0, "weights", 0)
    drawn = torch.cat(batches).tolist()
    assert [len(b) for b in batches] == [8, 8, 8] and len(set(drawn)) == 24 and set(drawn) <= set(index.tolist())
    assert drawn == torch.cat(epoch_batches(index, 8, 0, "weights", 0)).tolist()
    assert drawn != torch.cat(epoch_batches(index, 8, 0, "weights", 1)).tolist()
    assert [len(b) for b in epoch_batches(index, 30, 0, "weights", 0)] == [30]
    with pytest.raises(InputError, match="batch_size 31 is larger than the 30 images that each half has"):
        epoch_batches(index, 31, 0, "each half", 0)


def test_take():
    images = torch.arange(5)
    assert take(images, torch.tensor([3, 1]), "cpu").tolist() == [3, 1]


def statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    flat = images.double().div(255).transpose(0, 1).flatten(1)
    return flat.mean(1).float(), flat.std(1, correction=0).float()


def test_digits(digits):
    assert digits.train.shape == (1347, 3, 8, 8) and digits.test.shape == (450, 3, 8, 8)
    assert digits.train.dtype == torch.uint8 and digits.train.max() == 255
    assert digits.classes == tuple("0123456789")
    counts = torch.bincount(torch.cat([digits.train_labels, digits.test_labels]))
    assert (torch.bincount(digits.test_labels) - counts / 4).abs().max() < 1
    mean, std = statistics(digits.train)
    torch.testing.assert_close((digits.mean, digits.std), (mean, std))
    assert torch.equal(digits.train[:, 0], digits.train[:, 2])


def test_images_are_resized_on_loading():
    small, large = load(Data(name="digits", image_size=8)), load(Data(name="digits", image_size=20))
    assert large.train.shape == (1347, 3, 20, 20)
    back = torch.nn.functional.interpolate(large.train.float(), (8, 8), mode="area")
    correlation = np.corrcoef(back.flatten().numpy(), small.train.float().flatten().numpy())[0, 1]
    assert correlation > 0.9 and torch.equal(small.train_labels, large.train_labels)


def save(
    path, mode: str = "RGB", size: tuple[int, int] = (10, 10), colour: tuple[int, int, int] = (200, 100, 50)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    if mode == "RGBA":
        image.putalpha(128)
    (image.quantize(8) if mode == "P" else image.convert(mode)).save(path)


def folder(path, size: int = 8):
    return load(Data(name=f"folder:{path}", image_size=size))


def test_a_folder_of_images_of_every_mode_and_size(tmp_path):
    modes = {
        "a.png": "RGB",
        "b.png": "RGBA",
        "c.png": "P",
        "d.jpg": "CMYK",
        "e.jpg": "RGB",
        "f.bmp": "RGB",
        "g.PNG": "RGB",
    }
    for i, (name, mode) in enumerate(modes.items()):
        save(tmp_path / "train" / "one" / name, mode, (8 + 3 * i, 12))
    for name, mode in {"a.png": "L", "b.png": "LA", "c.png": "1"}.items():
        save(tmp_path / "train" / "two" / name, mode, (5, 9), (255, 255, 255))
    save(tmp_path / "test" / "two" / "a.png", colour=(0, 0, 0))
    (tmp_path / "train" / "one" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "empty").mkdir()
    found = folder(tmp_path)
    assert found.train.shape == (10, 3, 8, 8) and found.classes == ("one", "two")
    assert found.train_labels.tolist() == [0] * 7 + [1] * 3
    assert found.test_labels.tolist() == [1] and not found.test.any()
    expected = torch.tensor([200, 100, 50]).view(3, 1, 1).repeat(7, 1, 1, 1).expand(-1, -1, 8, 8).clone()
    expected[1] = (expected[1] + 255) // 2  # half transparent, on white
    torch.testing.assert_close(found.train[:7].int(), expected.int(), rtol=0, atol=4)  # a JPEG is not exact
    assert (found.train[7:] == 255).all()
    torch.testing.assert_close((found.mean, found.std), statistics(found.train))


def test_a_16_bit_image_keeps_its_brightness(tmp_path):
    """A grey of 25 % in 16 bits is one of 25 % in 8 bits, not white."""
    Image.fromarray(np.full((8, 8), 2**14, dtype=np.uint16)).save(tmp_path / "a.png")
    torch.testing.assert_close(folder(tmp_path).train.float(), torch.full((1, 3, 8, 8), 64.0), rtol=0, atol=1)


def test_photographs_are_cut_to_their_middle_square(tmp_path):
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(tmp_path / "a.png")
    assert (folder(tmp_path).train == 255).all()


def test_a_folder_without_classes_has_no_labels(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png")
    found = folder(tmp_path)
    assert found.train.shape == (2, 3, 8, 8) and found.classes == ()
    assert found.train_labels is found.test is found.test_labels is None
    with pytest.raises(InputError, match=r"the probe needs labels.*train/<class>/"):
        found.labels("the probe")
    with pytest.raises(InputError, match="no labelled test images"):
        found.test_set()


def test_tiny_imagenet_as_it_is_distributed(tmp_path):
    """Its test images have no labels; its validation labels stand in a file."""
    for name in ("ant", "bee"):
        save(tmp_path / "train" / name / "images" / "a.png")
    for part in ("val", "test"):
        for image in ("a.png", "b.png", "c.png"):
            save(tmp_path / part / "images" / image)
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "a.png\tbee\t0\t0\t9\t9\nb.png\tant\t0\t0\t9\t9\nc.png\tbee\t0\t0\t9\t9\n"
    )
    found = folder(tmp_path)
    assert found.classes == ("ant", "bee") and found.test_labels.tolist() == [1, 0, 1] and len(found.train) == 2


def test_mean_and_deviation_are_those_of_all_training_images():
    images = torch.randint(0, 256, (5000, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = pixels.statistics(images)
    whole = images.double() / 255
    torch.testing.assert_close(mean, whole.mean((0, 2, 3)).float())
    torch.testing.assert_close(std, whole.std((0, 2, 3), correction=0).float())


def test_mean_and_deviation_are_exact_and_need_little_memory():
    images = torch.randint(0, 256, (3000, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert peak_memory(lambda: pixels.statistics(images)) < images.nbytes
    images[:, 0], images[:, 1] = 0, 255
    mean, std = pixels.statistics(images)
    assert mean[:2].tolist() == [0.0, 1.0] and std[:2].tolist() == [torch.tensor(1e-3).item()] * 2


def test_images_may_be_kept_larger_than_networks_see_them():
    config = Data(name="digits", image_size=8, decode_size=12)
    assert load(config).train.shape == (1347, 3, 12, 12)
    assert torch.equal(load(config).train, load(Data(name="digits", image_size=12)).train)
    with pytest.raises(InputError, match="decode_size 8 is less than image_size 16"):
        load_config("smoke", settings={"data.image_size": 16, "data.decode_size": 8})


def test_test_labels_follow_the_training_classes(tmp_path):
    for name in ("ant", "bee", "cat"):
        save(tmp_path / "train" / name / "a.png")
    save(tmp_path / "val" / "cat" / "a.png")
    assert folder(tmp_path).test_labels.tolist() == [2]
    save(tmp_path / "val" / "dog" / "a.png")
    with pytest.raises(InputError, match="class 'dog'"):
        folder(tmp_path, size=9)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_image_is_named(tmp_path, content):
    save(tmp_path / "train" / "one" / "a.png")
    (tmp_path / "train" / "one" / "broken.png").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot read image '.*broken\.png'") as error:
        folder(tmp_path)
    assert "\n" not in str(error.value)


def test_a_truncated_image_is_named(tmp_path):
    save(tmp_path / "whole.jpg", size=(200, 200))
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"cut\.jpg"):
        folder(tmp_path)


@pytest.mark.parametrize("part", ["test", "val"])
def test_test_images_are_never_taken_for_training_images(tmp_path, part):
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png")
        save(tmp_path / part / name / "b.png")
    with pytest.raises(InputError, match=f"has a folder '{part}' but none named 'train'"):
        folder(tmp_path)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InputError, match=r"no folder.*nowhere.*train/<class>"):
        folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images in"):
        folder(tmp_path)


def test_fingerprint_follows_content_not_place(tmp_path):
    for name in ("one", "two"):
        save(tmp_path / name / "train" / "x" / "a.png")
    of = lambda name: fingerprint(Data(name=f"folder:{tmp_path / name}"))  # noqa: E731
    assert of("one") == of("two")
    save(tmp_path / "two" / "train" / "x" / "b.png")
    assert of("one") != of("two")
    assert fingerprint(Data(name="digits")) is None


@pytest.mark.parametrize(
    ("name", "named"),
    [("cifar11", "did you mean 'cifar1"), ("folder:", "folder:"), ("faces", "expected one of|did you mean")],
)
def test_unknown_data_set(name, named):
    with pytest.raises(InputError, match=named):
        load_config("smoke", settings={"data.name": name})


@pytest.mark.skipif(
    "SSWP_CIFAR10_FOLDER" not in os.environ, reason="SSWP_CIFAR10_FOLDER, the folder of CIFAR-10's archive, is not set"
)
def test_cifar10():
    found = load(Data(name="cifar10", root=os.environ["SSWP_CIFAR10_FOLDER"]))
    assert found.train.shape == (50_000, 3, 32, 32) and found.test.shape == (10_000, 3, 32, 32)
    torch.testing.assert_close(found.mean.cpu(), torch.tensor([0.4914, 0.4822, 0.4465]), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.std.cpu(), torch.tensor([0.2470, 0.2435, 0.2616]), rtol=0, atol=1e-4)
    assert torch.bincount(found.train_labels).tolist() == [5000] * 10


def test_number_of_classes_of_fixed_sets_needs_no_images(monkeypatch, tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / "train" / name / "1.png")
    assert number_of_classes(Data(name=f"folder:{tmp_path}")) == 3
    monkeypatch.setattr("sswp_lib.learn.data._load", None)
    counts = {name: number_of_classes(Data(name=name)) for name in ("digits", "cifar10", "cifar100")}
    assert counts == {"digits": 10, "cifar10": 10, "cifar100": 100}
    assert number_of_classes(Data(name="cifar10", classes=("cat", "dog"))) == 2


def test_some_classes_only_are_labelled_anew():
    whole = load(Data(name="digits", image_size=8))
    some = load(Data(name="digits", image_size=8, classes=("7", "2")))
    assert some.classes == ("7", "2")
    for images, labels, part, part_labels in (
        (whole.train, whole.train_labels, some.train, some.train_labels),
        (whole.test, whole.test_labels, some.test, some.test_labels),
    ):
        assert torch.equal(part[part_labels == 0], images[labels == 7]) and torch.equal(
            part[part_labels == 1], images[labels == 2]
        )
        assert len(part) == int(((labels == 7) | (labels == 2)).sum())


def test_a_class_that_is_not_there_is_named():
    with pytest.raises(InputError, match="digits has no class 'seven'"):
        load(Data(name="digits", image_size=8, classes=("seven", "2")))
