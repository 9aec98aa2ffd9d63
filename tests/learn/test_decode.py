"""Image files as pixels, and decoded images kept on disk."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageOps
from tiny_runs import images

from sswp_lib.config import Data, InputError
from sswp_lib.learn import data, decode
from sswp_lib.learn.data import load


def quarters(width: int = 16, height: int = 16) -> Image.Image:
    """Four quarters of four colours."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[: height // 2, : width // 2] = (250, 0, 0)
    image[: height // 2, width // 2 :] = (0, 250, 0)
    image[height // 2 :, : width // 2] = (0, 0, 250)
    return Image.fromarray(image)


def pixels(path, size: int = 8) -> np.ndarray:
    """Return (size, size, 3)."""
    return decode.pixels(path, size)[0].transpose(1, 2, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_photographs_are_turned_as_viewers_show_them(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    quarters(32, 16).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    left, top = (upright.width - 16) // 2, (upright.height - 16) // 2
    assert np.array_equal(pixels(path, 16), np.asarray(upright.crop((left, top, left + 16, top + 16))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    """A black disc's surroundings hide black, which is not to be seen."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    if mode == "P":
        image = Image.frombytes("P", (8, 8), bytes([0, 0, 0, 0, 1, 1, 1, 1] * 8))
        image.putpalette([0] * 6)
        image.save(tmp_path / "a.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "a.png")
    shown = pixels(tmp_path / "a.png")
    assert (shown[:, :4] == 0).all() and (shown[:, 4:] == 255).all()


def test_of_a_film_the_first_frame_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert pixels(tmp_path / "a.gif")[0, 0].tolist() == [250, 0, 0]


def test_large_photographs_are_decoded_at_a_part_of_their_size(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((80, 80, 1))).astype(np.uint8)
    Image.fromarray(blocks).save(tmp_path / "a.jpg", quality=95)
    part = pixels(tmp_path / "a.jpg", 64)
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "draft", lambda *args: None)
        patch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *args: None)
        whole = pixels(tmp_path / "a.jpg", 64)
    assert np.abs(part.astype(int) - whole).mean() < 3 and decode.pixels(tmp_path / "a.jpg", 64)[1] == (640, 640)


def test_fractions_are_refused_and_not_shown_black(tmp_path):
    images(tmp_path, {"a": 2, "b": 2})
    Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)).save(tmp_path / "a" / "float.tif")
    with pytest.raises(InputError, match=r"float\.tif.*fractions of unknown range"):
        load(Data(name=f"folder:{tmp_path}", image_size=8))


def test_only_images_are_decoded_whatever_a_file_is_called(tmp_path):
    """PostScript would be given to another program."""
    images(tmp_path, {"": 2})
    quarters().save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png.*no image format that is read"):
        load(Data(name=f"folder:{tmp_path}", image_size=8))


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder of images that is kept decoded, and its configuration."""
    monkeypatch.setattr(data, "KEEP_BYTES", 0)
    images(tmp_path / "D", {"train/a": 3, "train/b": 2, "test/b": 2})
    return Data(name=f"folder:{tmp_path / 'D'}", root=str(tmp_path / "root"), image_size=8)


def decoded_files(config: Data) -> list[str]:
    return sorted(path.suffix for path in (data.Path(config.root) / "decoded").iterdir())


def test_large_sets_are_decoded_once_for_all_processes(kept, monkeypatch):
    first = load(kept)
    data._load.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(decode, "pixels", lambda *args: pytest.fail("decoded again"))
        second = load(kept)
        assert second is not first and second.found == first.found
    monkeypatch.setattr(data, "KEEP_BYTES", 10**9)
    data._load.cache_clear()
    for found in (second, load(kept)):
        assert torch.equal(found.train, first.train) and torch.equal(found.test, first.test)
        assert found.test_labels.tolist() == [1, 1] and torch.equal(found.mean, first.mean)
    assert ".npy" in decoded_files(kept) and ".part" not in decoded_files(kept)


def test_what_is_kept_is_never_changed_through_the_tensor(kept):
    load(kept).train.zero_()
    data._load.cache_clear()
    assert load(kept).train.any()


def test_each_size_and_each_content_is_kept_apart(kept, tmp_path):
    small, large = load(kept), load(kept.model_copy(update={"image_size": 16}))
    images(tmp_path / "D", {"train/a": 1}, seed=7)
    assert (small.train.shape[-1], large.train.shape[-1]) == (8, 16)
    assert not torch.equal(load(kept).train, small.train) and decoded_files(kept).count(".npy") == 3


def test_a_process_waits_for_another_that_decodes(kept, tmp_path, monkeypatch):
    """It then takes what that one has made."""
    whole = load(kept)
    (path,) = (tmp_path / "root" / "decoded").glob("*.npy")
    path.rename(path.with_suffix(".other"))
    data._load.cache_clear()
    monkeypatch.setattr(decode, "pixels", lambda *args: pytest.fail("decoded twice"))
    told, found = threading.Event(), []
    with FileLock(path.with_suffix(".lock")):
        thread = threading.Thread(target=lambda: found.append(load(kept, progress=lambda text: told.set())))
        thread.start()
        assert told.wait(30) and not found
        path.with_suffix(".other").rename(path)
    thread.join(30)
    assert torch.equal(found[0].train, whole.train)


def test_a_sign_of_life_while_decoding(tmp_path):
    images(tmp_path, {"": 3})
    told = []
    load(Data(name=f"folder:{tmp_path}", image_size=8), progress=told.append)
    assert told == [f"decoding image {i} of 3" for i in (1, 2, 3)]


def test_nothing_is_kept_of_images_that_cannot_be_read(kept, tmp_path):
    (tmp_path / "D" / "train" / "a" / "broken.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"broken\.png"):
        load(kept)
    assert decoded_files(kept) in (["contents", ".lock"], [".lock"], [])


def test_no_room_is_said_before_anything_is_written(kept, monkeypatch):
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"no room in '.*decoded'.*data\.root"):
        load(kept)


def test_decoded_images_need_a_byte_a_value(kept, monkeypatch):
    needed = 7 * 3 * 8 * 8
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(InputError, match="no room in"):
        load(kept)
    monkeypatch.setattr(decode.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    load(kept)


@pytest.mark.parametrize("more, there", [(0, True), (1, False)])
def test_sets_are_kept_by_the_bytes_of_their_decoded_images(kept, monkeypatch, more, there):
    monkeypatch.setattr(data, "KEEP_BYTES", 7 * 3 * 16 * 16 + more)  # far more than their files have
    load(kept.model_copy(update={"image_size": 16}))
    assert (data.Path(kept.root) / "decoded").is_dir() == there


def test_a_place_that_cannot_be_written_is_named(kept, tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(InputError, match=r"cannot keep decoded images in '.*root/decoded'.*data\.root"):
        load(kept)


def test_a_damaged_kept_file_is_named(kept, tmp_path):
    load(kept)
    (path,) = (tmp_path / "root" / "decoded").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-100])
    data._load.cache_clear()
    with pytest.raises(InputError, match=r"cannot read the decoded images '.*\.npy'.*remove that file"):
        load(kept)
