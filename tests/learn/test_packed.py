"""Photographs in one mapped file: crops of them, and the file when all is not well with it."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from sswp_lib.config import Data, InputError, Views
from sswp_lib.learn import data, packed, packing, views
from sswp_lib.learn.data import generator, load, shown, take
from sswp_lib.learn.packed import Packed, resample
from sswp_lib.learn.views import TRIES, changed, draw, fitting_boxes, normalise, random_views, training_images
from sswp_lib.presets import load_config

PLAIN = Views(flip=False, jitter_p=0.0, grey_p=0.0, blur_p=0.0)
SHAPES = {"a": [(90, 60), (40, 200), (64, 64)], "b": [(30, 30), (150, 149)]}  # heights and widths, by class
TEST = {"a": [(70, 80)], "b": [(33, 100)]}


def scene(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth image of random colours."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(rough).resize(shape[::-1], Image.Resampling.BICUBIC))


def write(folder: Path, parts: dict[str, dict[str, list[tuple[int, int]]]], suffix: str = "png") -> Path:
    for part, classes in parts.items():
        for name, shapes in classes.items():
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i, shape in enumerate(shapes):
                path = folder / part / name / f"{i:03d}.{suffix}"
                Image.fromarray(scene(shape, sum(map(ord, part + name)) + i)).save(path)
    return folder


@pytest.fixture
def photographs(tmp_path):
    """A configuration of photographs of some shapes, kept at 64 pixels and shown at 48."""
    folder = write(tmp_path / "D", {"train": SHAPES, "test": TEST})
    return Data(name=f"folder:{folder}", root=str(tmp_path / "root"), image_size=48, decode_size=64, kept="photographs")


def cache(config: Data) -> Path:
    return Path(config.root) / "cache"


def pack(config: Data) -> Path:
    (path,) = cache(config).glob("*.pack")
    return path


def again(config: Data):
    data._load.cache_clear()
    return load(config)


def image(images: Packed, i: int) -> torch.Tensor:
    """Return the whole of one image, uint8 (3, H, W)."""
    row = images.index[i]
    count = 3 * int(row["height"]) * int(row["width"])
    start = int(row["offset"])
    return images.pixels[start : start + count].view(row["height"], row["width"], 3).permute(2, 0, 1)


def test_small_images_stay_and_large_ones_are_reduced_to_their_shorter_side(photographs):
    found = load(photographs)
    assert (
        isinstance(found.train, Packed)
        and found.classes == ("a", "b")
        and found.train_labels.tolist() == [0] * 3 + [1] * 2
    )
    shapes = [tuple(image(found.train, i).shape[1:]) for i in range(5)]
    assert shapes == [(90, 60), (40, 200), (64, 64), (30, 30), (64, 64)] and found.test_labels.tolist() == [0, 1]
    for i, name in enumerate(("a/000", "a/001", "a/002", "b/000")):
        with Image.open(Path(photographs.name.removeprefix("folder:")) / f"train/{name}.png") as file:
            assert np.array_equal(image(found.train, i).permute(1, 2, 0), np.asarray(file))
    with Image.open(Path(photographs.name.removeprefix("folder:")) / "train/b/001.png") as file:
        reduced = TF.resize(TF.pil_to_tensor(file), 64, antialias=True)
    torch.testing.assert_close(image(found.train, 4), reduced, rtol=0, atol=1)


@pytest.mark.parametrize("box", [(0, 0, 60, 90), (10, 20, 30, 40), (59, 89, 1, 1), (3, 0, 48, 48)])
def test_a_crop_is_torchvisions_of_the_photograph(photographs, box):
    images = load(photographs).train[torch.tensor([0])]
    left, top, width, height = box
    found = images.crops(torch.tensor([box]), 48)
    expected = TF.resized_crop(image(images, 0), top, left, height, width, [48, 48], antialias=True)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1)
    part = TF.to_pil_image(image(images, 0)).crop((left, top, left + width, top + height))
    by_pillow = TF.pil_to_tensor(part.resize((48, 48), Image.Resampling.BILINEAR))
    torch.testing.assert_close(found[0], by_pillow, rtol=0, atol=1)
    mirrored = images.crops(torch.tensor([box]), 48, torch.tensor([True]))
    assert torch.equal(mirrored.flip(3), found)


def test_a_crop_shows_more_of_a_photograph_than_of_a_square_made_small(tmp_path):
    """A fine grating, in a tenth of the area of a large photograph: the square of 32 pixels has lost it."""
    grating = np.tile(np.array([0, 0, 255, 255], dtype=np.uint8), 64)
    (tmp_path / "D").mkdir()
    Image.fromarray(np.repeat(np.broadcast_to(grating, (256, 256))[..., None], 3, axis=2)).save(
        tmp_path / "D" / "a.png"
    )
    common = {"name": f"folder:{tmp_path / 'D'}", "root": str(tmp_path / "root"), "image_size": 32}
    whole = load(Data(**common, decode_size=256, kept="photographs")).train
    square = load(Data(**common)).train
    assert whole.crops(torch.tensor([[100, 100, 32, 32]]), 32).float().std() > 100 > 30 > square.float().std()


def test_boxes_lie_in_each_photograph_and_have_the_area_that_is_asked_for(photographs):
    images = load(photographs).train[torch.arange(5).repeat(400)]
    *shares, _, _ = draw(len(images), Views(crop_scale=(0.2, 0.6)), generator(0, "boxes"), TRIES).crops
    left, top, width, height = fitting_boxes(*shares, *images.shapes).unbind(1)
    tall, wide = images.shapes
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= wide).all() and (top + height <= tall).all()
    whole = (wide < 2 * tall) & (tall < 2 * wide)  # of others some sides are cut to the image
    area = (width * height / (wide * tall))[whole]
    assert area.min() > 0.15 and area.max() < 0.65 and abs(float(area.mean()) - 0.4) < 0.02
    for i in range(5):
        assert len({*map(tuple, torch.stack([left, top], 1)[i::5].tolist())}) > 30, "of its own in every draw"


def test_views_are_the_crops_that_were_drawn_and_then_changed_as_those_of_squares(photographs):
    found, config = load(photographs), Views(jitter_p=0.5, grey_p=0.5, blur_p=0.5, shift=2)
    index = torch.tensor([4, 0, 1, 1, 3, 2] * 5)
    images = take(found.train, index, "cpu")
    views = random_views(images, config, found.mean, found.std, generator(3, "views"), 48)
    drawn = draw(len(index), config, generator(3, "views"), TRIES)
    *shares, flipped, _ = drawn.crops
    crops = images.crops(fitting_boxes(*shares, *images.shapes), 48, flipped)
    expected = changed(crops.float() / 255, drawn)
    expected = (expected - found.mean.view(3, 1, 1)) / found.std.view(3, 1, 1)
    torch.testing.assert_close(views, expected, rtol=0, atol=1e-5)
    assert views.is_contiguous(memory_format=torch.channels_last) and flipped.any() and not flipped.all()


@pytest.mark.parametrize("threads, part", [(1, 8), (3, 8), (1, 1), (2, 100)])
def test_views_are_the_same_however_they_are_divided(photographs, threads, part, monkeypatch):
    found, index = load(photographs), torch.arange(5).repeat(5)

    def view() -> torch.Tensor:
        images = take(found.train, index, "cpu")
        return random_views(images, Views(shift=1), found.mean, found.std, generator(0, "v"), 48)

    expected = view()
    monkeypatch.setattr("sswp_lib.learn.views.PART", part)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(view(), expected)
    finally:
        torch.set_num_threads(before)


def test_some_rows_of_a_batch_are_drawn_as_in_the_whole():
    config = Views(jitter_p=0.5, grey_p=0.3, blur_p=0.4, shift=1, rotation=5.0)
    whole = draw(20, config, generator(0, "rows"), TRIES)
    parts = [whole.rows(start, start + 5) for start in range(0, 20, 5)]
    for name in ("crops", "moves"):
        for k, values in enumerate(getattr(whole, name)):
            assert torch.equal(torch.cat([getattr(part, name)[k] for part in parts]), values)
    for name in ("jitter", "grey", "blur"):
        places = torch.cat([getattr(part, name)[0] + 5 * i for i, part in enumerate(parts)])
        assert torch.equal(places, getattr(whole, name)[0]) and 0 < len(places) < 20
        for k, values in enumerate(getattr(whole, name)[1:], 1):
            assert torch.equal(torch.cat([getattr(part, name)[k] for part in parts]), values)


def test_the_centre_is_torchvisions_where_the_shorter_side_is_whole(photographs):
    found = load(photographs)
    images = found.train[[2, 4]]
    for i in range(2):
        assert torch.equal(images.squares(48)[i], TF.center_crop(image(images, i), [48, 48]))
    plain = normalise(found.train, found.mean, found.std, 48)
    assert plain.shape == (5, 3, 48, 48)
    assert torch.equal(training_images(found.train, 0, False, 0, found.mean, found.std, generator(0, "t"), 48), plain)
    small = image(found.train, 3)[:, 4:26, 4:26]  # 48 / 64 of 30 pixels, its edges rounded
    torch.testing.assert_close(found.train.squares(48)[3], TF.resize(small, [48, 48]), rtol=0, atol=1)
    assert shown(found.train, [0, 3]).shape == (2, 3, 64, 64)


def test_what_an_accelerator_does_with_bytes_is_the_same(photographs, monkeypatch):
    """It has no bytes to resize, but numbers: taken here by hand. Pixels that lie there are those of the file."""
    images = load(photographs).train
    moved = images[[4, 1]].onto("meta")
    assert moved.nbytes == images[[4, 1]].nbytes == moved.pixels.numel() and moved.index["offset"].tolist() == [
        0,
        12288,
    ]
    expected = images.squares(48)

    def resize(part: torch.Tensor, out: torch.Tensor) -> None:
        bytes_of = SimpleNamespace(device=torch.device("meta"), float=part.float)
        resample(bytes_of, out)

    monkeypatch.setattr(packed, "resample", resize)
    torch.testing.assert_close(images.squares(48), expected, rtol=0, atol=1)


def test_mean_and_deviation_are_those_of_the_photographs_each_counted_alike(photographs):
    found = load(photographs)
    each = [image(found.train, i).double().flatten(1) / 255 for i in range(5)]
    mean = torch.stack([values.mean(1) for values in each]).mean(0)
    squares = torch.stack([values.square().mean(1) for values in each]).mean(0)
    torch.testing.assert_close(found.mean.double(), mean, rtol=0, atol=2e-3)  # of every second pixel, of some
    torch.testing.assert_close(found.std.double(), (squares - mean**2).sqrt(), rtol=0, atol=2e-3)
    by_pixels = torch.cat(each, dim=1)
    assert (by_pixels.mean(1) - mean).abs().max() > 0.004, "as it would be if large images counted more"
    some = load(photographs.model_copy(update={"per_class": 2}))
    assert some.train_labels.tolist() == [0, 0, 1, 1] and not torch.equal(some.mean, found.mean)
    assert torch.equal(image(some.train, 3), image(found.train, 4))


def test_the_disk_is_told_which_images_come_next(photographs, monkeypatch):
    """Before the first is cropped; from the page on in which each begins."""
    images, asked = load(photographs).train[[4, 1]], []
    monkeypatch.setattr(packed.mmap, "PAGESIZE", 1000)
    images.mapped = SimpleNamespace(madvise=lambda advice, start, length: asked.append((advice, start, length)))
    crop = images._crop
    monkeypatch.setattr(images, "_crop", lambda *args: asked.append("crop") or crop(*args))
    images.squares(48)
    starts, lengths = images.index["offset"], [3 * 64 * 64, 3 * 40 * 200]
    told = [(packed.mmap.MADV_WILLNEED, s - s % 1000, s % 1000 + n) for s, n in zip(starts, lengths, strict=True)]
    assert asked == [*told, "crop", "crop"]
    found = load(photographs)
    asked.clear()
    monkeypatch.setattr(Packed, "read_ahead", lambda images: asked.append(len(images)))
    random_views(found.train, PLAIN, found.mean, found.std, generator(0, "v"), 48)
    assert asked == [5]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_files_are_decoded_as_pillow_does_it(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for mode in ("RGB", "L", "CMYK"):
        path = tmp_path / f"{mode}.jpg"
        Image.fromarray(scene((40, 60))).convert(mode).save(path, exif=exif, quality=90)
        with Image.open(path) as file:
            expected = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
        assert np.abs(packing.photograph(path, 64).astype(int) - expected).max() <= 1
        content = np.fromfile(path, np.uint8)
        assert np.array_equal(packing._by_torchvision(content, 64), packing._by_pillow(content, 64))


def test_very_large_jpeg_files_are_decoded_at_a_part_of_their_size(tmp_path, monkeypatch):
    Image.fromarray(scene((600, 800))).save(tmp_path / "a.jpg", quality=95)
    whole = packing.photograph(tmp_path / "a.jpg", 200)
    monkeypatch.setattr("torchvision.io.decode_jpeg", lambda *args, **given: pytest.fail("all of it was decoded"))
    reduced = packing.photograph(tmp_path / "a.jpg", 100)
    assert whole.shape == (200, 266, 3) and reduced.shape == (100, 133, 3)
    beside = np.asarray(Image.fromarray(whole).resize((133, 100), Image.Resampling.BILINEAR))
    assert np.abs(reduced.astype(int) - beside).mean() < 2


def test_a_set_is_prepared_once_and_opened_by_all(photographs, monkeypatch):
    first, stamp = load(photographs), pack(photographs).stat().st_mtime_ns
    monkeypatch.setattr(packing, "photograph", lambda *args: pytest.fail("decoded again"))
    second = again(photographs)
    assert second is not first and second.found == first.found and torch.equal(second.mean, first.mean)
    assert torch.equal(second.train.pixels, first.train.pixels) and pack(photographs).stat().st_mtime_ns == stamp
    assert sorted(p.suffix for p in cache(photographs).iterdir()) == [".lock", ".pack"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_the_pixels(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-packed.TRAILER.size - 3] ^= 1
    path.write_bytes(bytes(content))


def shift(path: Path) -> None:
    """The index is that of the file, but a part of the pixels is gone."""
    content = path.read_bytes()
    path.write_bytes(content[50:])


@pytest.mark.parametrize("damage", [cut, cut_in_the_pixels, emptied, change, shift], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_refused_said_and_made_anew(photographs, damage):
    load(photographs)
    whole, path = pack(photographs).read_bytes(), pack(photographs)
    data._load.cache_clear()
    damage(path)
    found = again(photographs)
    assert path.read_bytes() == whole and len(found.train) == 5
    (said,) = (text for text in found.found.warnings() if path.name in text)
    assert "could not be used" in said and "made anew" in said
    assert not [text for text in again(photographs).found.warnings() if path.name in text], "said once"


def test_a_file_of_another_data_set_is_refused_and_made_anew(photographs, tmp_path):
    load(photographs)
    other = write(tmp_path / "other", {"train": {"a": [(20, 20)] * 2, "b": [(20, 30)] * 3}, "test": TEST})
    theirs = photographs.model_copy(update={"name": f"folder:{other}", "root": str(tmp_path / "other root")})
    load(theirs)
    whole = pack(photographs).read_bytes()
    pack(photographs).write_bytes(pack(theirs).read_bytes())
    found = again(photographs)
    assert image(found.train, 0).shape == (3, 90, 60) and pack(photographs).read_bytes() == whole
    assert any("it is of other images" in text for text in found.found.warnings())


def test_who_has_a_file_mapped_keeps_it_while_it_is_made_anew(photographs):
    first = load(photographs)
    before = first.train.pixels.clone()
    path = pack(photographs)
    path.rename(path.with_suffix(".moved"))
    again(photographs)
    assert torch.equal(first.train.pixels, before) and path.is_file()


class FullDisk(io.BytesIO):
    """A file on a disk that takes so many bytes and no more."""

    def __init__(self, path: Path, room: int):
        super().__init__()
        self.path, self.room = path, room
        path.touch()

    def write(self, content) -> int:
        self.room -= len(memoryview(content).cast("B"))
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def test_a_full_disk_is_said_and_nothing_is_left_or_harmed(photographs, monkeypatch):
    cache(photographs).mkdir(parents=True)
    (cache(photographs) / "another.pack").write_bytes(b"of another set")
    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "open",
            lambda path, mode="r", *args: FullDisk(path, 20_000) if mode == "wb" else opened(path, mode, *args),
        )
        with pytest.raises(InputError, match=r"No space left on device.*data\.root"):
            load(photographs)
    assert sorted(p.suffix for p in cache(photographs).iterdir()) == [".lock", ".pack"]
    assert (cache(photographs) / "another.pack").read_bytes() == b"of another set"
    assert len(load(photographs).train) == 5


def test_what_the_disk_says_of_an_earlier_part_is_not_lost(photographs, monkeypatch):
    """It says so once: of a later part it may say that all is well."""
    said, fsync = [errno.EIO], packing.os.fsync

    def once(file: int) -> None:
        if said:
            raise OSError(said.pop(), "Input/output error")
        fsync(file)

    monkeypatch.setattr(packing, "FLUSHED", 1)
    monkeypatch.setattr(packing.os, "fsync", once)
    with pytest.raises(InputError, match="Input/output error"):
        load(photographs)
    assert [p.suffix for p in cache(photographs).iterdir()] == [".lock"]
    assert len(load(photographs).train) == 5


def test_a_file_that_may_not_be_read_is_named(photographs, monkeypatch):
    load(photographs)
    refused = lambda *args: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))  # noqa: E731
    monkeypatch.setattr(packing, "open_file", refused)
    with pytest.raises(InputError, match=r"cannot read '.*\.pack' \(Permission denied\)"):
        again(photographs)


def test_a_disk_is_not_filled_to_its_last_byte(photographs, monkeypatch):
    monkeypatch.setattr(packing, "SIGN", 1)
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(InputError, match=r"no room in '.*cache' for about .* GiB more.*data\.decode_size"):
        load(photographs)
    assert [p.suffix for p in cache(photographs).iterdir()] == [".lock"]


def test_images_that_cannot_be_read_are_left_out_and_said_if_they_are_few(tmp_path, monkeypatch):
    folder = write(tmp_path / "D", {"train": {"a": [(20, 20)] * 60, "b": [(20, 30)] * 60}, "test": TEST}, "jpg")
    config = Data(name=f"folder:{folder}", root=str(tmp_path / "root"), image_size=16, kept="photographs")
    (folder / "train" / "b" / "003.jpg").write_bytes((folder / "train" / "b" / "004.jpg").read_bytes()[:300])
    found = load(config)
    (said,) = (text for text in found.found.warnings() if "left out" in text)
    assert "left out: 1, 'train/b/003.jpg' (" in said and "Truncated" in said
    assert len(found.train) == 119 and torch.bincount(found.train_labels).tolist() == [60, 59]
    with Image.open(folder / "train" / "b" / "004.jpg") as file:
        assert np.array_equal(image(found.train, 63).permute(1, 2, 0), packing.photograph(Path(file.filename), 16))
    (folder / "train" / "a" / "001.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(InputError, match=r"cannot read image '.*a/001\.jpg'.* and 1 more"):
        load(config)
    monkeypatch.setattr(packing, "BROKEN", 1.0)
    assert len(load(config).train) == 118
    for path in (folder / "train" / "b").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="no training image of class 'b' is left"):
        load(config)


def _prepare(config: dict, results) -> None:
    made = []
    read = packing.photograph
    packing.photograph = lambda *args: made.append(1) or read(*args)
    found = load(Data(**config))
    results.put((len(made), found.train.pixels.sum().item()))


def test_two_processes_that_begin_at_once_prepare_a_set_once(photographs):
    new = multiprocessing.get_context("spawn")
    results = new.Queue()
    started = [new.Process(target=_prepare, args=(photographs.model_dump(), results)) for _ in range(2)]
    for process in started:
        process.start()
    found = [results.get(timeout=120) for _ in started]
    for process in started:
        process.join()
    assert sorted(count for count, _ in found) == [0, 7] and found[0][1] == found[1][1]


HOLDS = """
import json, sys, psutil, torch
from sswp_lib.config import Data
from sswp_lib.learn.data import load
held = lambda: psutil.Process().memory_info()
before = held()
images = load(Data(**json.loads(sys.argv[1]))).train
images.pixels[::4096].sum()
after = held()
own = (after.rss - after.shared) - (before.rss - before.shared)
grown = {"own": own, "resident": after.rss - before.rss}
print(json.dumps({"bytes": images.nbytes, **grown}), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is shared")
def test_pages_are_shared_and_not_held_by_each_process(tmp_path):
    """Of 24 MB of photographs each of two processes holds next to nothing for itself."""
    write(tmp_path / "D", {"train": {"a": [(1000, 1000)] * 4, "b": [(1000, 1000)] * 4}}, "jpg")
    config = Data(
        name=f"folder:{tmp_path / 'D'}",
        root=str(tmp_path / "root"),
        image_size=32,
        decode_size=1000,
        kept="photographs",
    )
    load(config)
    command = [sys.executable, "-c", HOLDS, json.dumps(config.model_dump())]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [json.loads(process.stdout.readline()) for process in both]
    assert all(each["bytes"] == 24_000_000 and each["resident"] > 20e6 for each in found)
    maps = [m for p in both for m in psutil.Process(p.pid).memory_maps(grouped=False) if m.path.endswith(".pack")]
    for process in both:
        process.communicate("")
    assert len(maps) == 2 and all(m.perms == "r--s" and m.shared_clean > 20e6 for m in maps)
    assert max(each["own"] for each in found) < 12e6


def test_settings_that_photographs_cannot_have_are_refused():
    with pytest.raises(InputError, match="kept 'photographs' is for image files of any shape; those of digits"):
        load_config("smoke", settings={"data.kept": "photographs"})
    with pytest.raises(InputError, match="rotation 5 turns squares"):
        load_config("paper", "imagenet", settings={"data.views.rotation": 5.0})
    assert load_config("paper", "imagenet").data.kept == "photographs"
    assert load_config("paper", "tiny-imagenet").data.kept == load_config("paper").data.kept == "squares"


@pytest.mark.parametrize("shape", [(90, 60), (40, 200), (300, 40), (64, 64)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.6, 1.0)])
def test_boxes_are_distributed_as_torchvisions(shape, scale):
    """Widths, heights and places of 4,000 crops of each, by quantiles; long images often get their middle."""
    count, (height, width) = 4000, shape
    *shares, _, _ = draw(count, Views(crop_scale=scale), generator(0, "boxes"), TRIES).crops
    every = torch.full((count,), float(height)), torch.full((count,), float(width))
    left, top, wide, high = fitting_boxes(*shares, *every).unbind(1)
    torch.manual_seed(0)
    theirs = v2.RandomResizedCrop(12, scale)
    image = torch.zeros(3, height, width)
    drawn = [theirs.make_params([image]) for _ in range(count)]
    for ours, name, side in (
        (left, "left", width),
        (top, "top", height),
        (wide, "width", width),
        (high, "height", height),
    ):
        beside = torch.tensor([float(params[name]) for params in drawn])
        at = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
        assert (ours.quantile(at) - beside.quantile(at)).abs().max() <= max(0.05 * side, 1), name
    middle = (wide == width) & (top == (height - high).div(2).floor()) if height > width else torch.zeros(1)
    assert height < 300 or middle.float().mean() > 0.3


def test_the_threads_that_crop_standardise_as_torch_does(photographs, monkeypatch):
    """To the bit, flipped or not; torch's own threads would go on waiting for work on the processors that these use."""
    loaded, config = load(photographs), Views(jitter_p=0.0, grey_p=0.0, blur_p=0.0)
    images, n = loaded.train, len(loaded.train)
    found = random_views(images, config, loaded.mean, loaded.std, generator(0, "views"), 224)
    *shares, flipped, _ = draw(n, config, generator(0, "views"), TRIES).crops
    pixels = images.crops(fitting_boxes(*shares, *images.shapes), 224).float().mul_(1 / 255)
    mean, inverse = loaded.mean.view(1, 3, 1, 1), (1 / loaded.std).view(1, 3, 1, 1)
    expected = torch.where(flipped.view(-1, 1, 1, 1), pixels.flip(3), pixels).sub_(mean).mul_(inverse)
    assert 0 < flipped.sum() < n and torch.equal(found, expected)
    monkeypatch.setattr(views, "changed", lambda *given: pytest.fail("nothing is to be changed"))
    assert torch.equal(random_views(images, config, loaded.mean, loaded.std, generator(0, "views"), 224), expected)
