"""Folders of images as people have them: which files are images, of which class, and what is said of the rest."""

from __future__ import annotations

import os
import shutil
import unicodedata

import pytest
from PIL import Image
from tiny_runs import images

from sswp_lib.config import Data, InputError
from sswp_lib.learn import contents, data, folders
from sswp_lib.learn.data import fingerprint, load, without_test
from sswp_lib.learn.decode import IMAGE_SUFFIXES
from sswp_lib.learn.found import counted, named

PARTS = {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2}


def of(path, **settings) -> Data:
    return Data(name=f"folder:{path}", image_size=8, **settings)


def passed(path) -> dict[str, int]:
    return dict(load(of(path)).found.passed)


def warnings(path) -> str:
    return "\n".join(load(of(path)).found.warnings())


@pytest.fixture
def folder(tmp_path):
    """Two classes of four training and two test images."""
    return images(tmp_path / "D", PARTS)


def as_before(folder) -> bool:
    found = load(of(folder))
    return found.classes == ("a", "b") and len(found.train) == 8 and len(found.test) == 4


@pytest.mark.parametrize(
    "name, kind",
    [
        (".ipynb_checkpoints", "hidden"), (".Trash-1000", "hidden"), (".@__thumb", "hidden"),
        (".picasaoriginals", "hidden"), ("__MACOSX", "system folders"), ("@eaDir", "system folders"),
        ("#recycle", "system folders"), ("$RECYCLE.BIN", "system folders"), ("lost+found", "system folders"),
        ("System Volume Information", "system folders"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["train", "train/a", "test", "."])
def test_hidden_and_system_folders_are_no_classes(folder, name, kind, place):
    images(folder / place / name, {"": 3, "inner": 2})
    assert as_before(folder) and passed(folder) == {kind: 1}


@pytest.mark.parametrize(
    "name, kind",
    [
        ("._001.png", "hidden"), (".DS_Store", "hidden"), (".nfs0001.jpg", "hidden"), (".fuse_hidden01.png", "hidden"),
        ("Thumbs.db", ".db"), ("desktop.ini", ".ini"), ("IMG_1.AAE", ".aae"), ("IMG_1.xmp", ".xmp"),
        ("IMG_1.MOV", ".mov"), ("labels.csv", ".csv"), ("README", "files without a suffix"), ("set.h5", ".h5"),
        ("wind.grib", ".grib"), ("page.pdf", ".pdf"), ("logo.wmf", ".wmf"), ("clip.mpg", ".mpg"), ("old.eps", ".eps"),
        ("Folder.ico", ".ico"), ("001.png~", ".png~"), ("001.png.part", ".part"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_passed_over_and_counted(folder, name, kind):
    (folder / "train" / "a" / name).write_bytes(bytes(4096))
    assert as_before(folder) and passed(folder) == {kind: 1}
    assert f"passed over: {kind} (1)" in load(of(folder)).found.table()


def test_what_is_passed_over_does_not_change_the_fingerprint(folder):
    before = fingerprint(of(folder))
    (folder / "train" / "a" / "._001.png").write_bytes(bytes(4096))
    images(folder, {"train/.ipynb_checkpoints": 1})
    assert fingerprint(of(folder)) == before


def test_suffixes_of_photographs_in_capital_letters_too(folder):
    assert {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".tga", ".jp2"} <= IMAGE_SUFFIXES
    (folder / "train" / "a" / "000.png").rename(folder / "train" / "a" / "000.PNG")
    assert as_before(folder)


def test_photographs_that_are_not_read_are_said(folder):
    for name in ("1.HEIC", "2.heic", "3.nef"):
        (folder / "train" / "a" / name).write_bytes(b"photograph")
    (folder / "train" / "a" / ".IMG_5.jpg.icloud").write_bytes(b"placeholder")
    assert "formats that are not read (.heic, .nef): 3; convert" in warnings(folder)
    assert "in the cloud only: 1" in warnings(folder)
    shutil.rmtree(folder / "train" / "b")
    for image in folder.rglob("*.png"):
        image.unlink()
    with pytest.raises(InputError, match=r"no images in .*passed over: .*\.heic \(2\)"):
        load(of(folder))


def test_links_are_followed_but_not_in_a_circle(folder, tmp_path):
    images(tmp_path / "elsewhere", {"": 3}, seed=1)
    (folder / "train" / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "a" / "up").symlink_to("..")
    (folder / "train" / "a" / "far up").symlink_to(tmp_path)
    (folder / "train" / "round").symlink_to("round")
    found = load(of(folder))
    assert found.classes == ("a", "b", "c") and len(found.train) == 11
    assert dict(found.found.passed) == {"links that lead back": 2, folders.DEAD: 1}
    assert f"{folders.DEAD}: 1" in warnings(folder)


def test_a_dead_link_to_an_image_is_refused_by_name(folder):
    (folder / "train" / "a" / "gone.png").symlink_to("/no/such/image.png")
    with pytest.raises(InputError, match=r"cannot read image '.*gone\.png' \(No such file"):
        load(of(folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_never_opened(folder):
    os.mkfifo(folder / "train" / "a" / "pipe.png")
    assert as_before(folder) and passed(folder) == {"pipes and devices": 1}


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("train/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refusing)
    with pytest.raises(InputError, match=r"cannot read the folder '.*/train/b' \(Permission denied\)"):
        load(of(folder))


@pytest.mark.parametrize(
    "train, test", [("Train", "Test"), ("TRAIN", "val"), ("training", "testing"), ("train", "Validation")]
)
def test_parts_by_any_of_their_names(tmp_path, train, test):
    folder = images(tmp_path, {f"{train}/a": 4, f"{train}/b": 4, f"{test}/a": 2, f"{test}/b": 2})
    assert as_before(folder)


@pytest.mark.parametrize("one, two", [("train", "Train"), ("val", "valid")])
def test_two_folders_of_one_meaning_are_refused(folder, one, two):
    images(folder, {f"{one}/a": 1, f"{two}/a": 1})
    with pytest.raises(InputError, match="which mean the same"):
        load(of(folder))


def test_class_names_in_two_normal_forms_are_one_class(tmp_path):
    one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    images(tmp_path / "x", {f"train/{one}": 4, "train/b": 4, f"test/{two}": 2, "test/b": 2})
    found = load(of(tmp_path / "x"))
    assert found.classes == ("b", one) and found.test_labels.tolist() == [0, 0, 1, 1]
    assert load(of(tmp_path / "x", classes=("b", two))).classes == ("b", one)
    images(tmp_path / "y", {f"train/{two}": 4, "train/b": 4, f"test/{one}": 2, "test/b": 2})
    assert fingerprint(of(tmp_path / "x")) == fingerprint(of(tmp_path / "y"))


def test_images_beside_class_folders_are_not_used_and_said(folder):
    images(folder, {"train": 3}, seed=1)
    (folder / "train" / "empty").mkdir()
    images(folder, {"extra": 2})
    assert as_before(folder)
    assert passed(folder) == {"images in 'train' itself, of no class": 3, "folder 'extra' beside 'train'": 1}
    assert "images in 'train' itself, which have no class and are not used: 3" in warnings(folder)
    assert "no images in the class folders 'empty' of 'train'" in warnings(folder)


def test_of_test_and_val_the_one_with_the_classes_is_taken(folder):
    images(folder, {"val/a": 3, "val/b": 3}, seed=1)
    assert as_before(folder) and passed(folder) == {"images in 'val', as 'test' is taken": 6}
    shutil.rmtree(folder / "test")
    images(folder, {"test": 5})  # as ImageNet has them
    found = load(of(folder))
    assert len(found.test) == 6 and dict(found.found.passed) == {"images in 'test', as 'val' is taken": 5}


@pytest.mark.parametrize("parts", [{"inner/train/a": 2, "inner/test/a": 2}, {"cat/train": 2, "cat/test": 2, "dog": 2}])
def test_test_images_in_the_depth_are_not_taken_for_training_images(tmp_path, parts):
    images(tmp_path, parts)
    with pytest.raises(InputError, match=r"no folder 'train', but '.*/(inner|cat)' has"):
        load(of(tmp_path))


def test_a_test_class_that_is_spelt_otherwise_is_refused(folder):
    (folder / "test" / "a").rename(folder / "test" / "aa")
    with pytest.raises(InputError, match=r"class 'aa' is in 'test'.*not among the training images.*'a'"):
        load(of(folder))


def test_images_that_are_there_twice_are_counted(folder):
    shutil.copy(folder / "train/a/000.png", folder / "test/a/leak.png")
    shutil.copy(folder / "train/a/001.png", folder / "train/b/copy.png")
    found = warnings(folder)
    assert "test images that are training images as well, so that the test accuracy is too good: 1" in found
    assert "training images that are copies of others: 1" in found and "lie in several classes: 1" in found


def test_classes_without_test_images_are_named(folder):
    assert without_test(load(of(folder))) == []
    shutil.rmtree(folder / "test" / "b")
    assert without_test(load(of(folder))) == ["b"] and "no test images of 'b'" in warnings(folder)
    (folder / "test" / "b").mkdir()
    assert without_test(load(of(folder))) == ["b"]
    shutil.rmtree(folder / "test")
    assert without_test(load(of(folder))) == [] and "no test images: training needs" in warnings(folder)


def test_chosen_classes_without_any_test_image_are_refused(folder):
    images(folder, {"train/c": 2, "train/d": 2}, seed=1)
    with pytest.raises(InputError, match="no labelled test images"):
        load(of(folder, classes=("c", "d"))).test_set()


def test_one_class_is_enough_for_no_training(tmp_path):
    folder = images(tmp_path, {"train/a": 4, "test/a": 2})
    with pytest.raises(InputError, match=r"the training needs two classes or more, .* has one: 'a', 4 images"):
        load(of(folder)).labels("the training")
    assert "one class, 'a': a search without labels can run" in warnings(folder)


def test_uneven_classes_and_single_images_are_said(tmp_path):
    folder = images(tmp_path, {"train/a": 30, "train/b": 1, "test/a": 1, "test/b": 1})
    assert "uneven classes: 30 training images of 'a', 1 of 'b'" in warnings(folder)
    assert "one training image of 'b': none can be held out" in warnings(folder)


@pytest.mark.parametrize("many, said", [(10, True), (9, False)])
def test_ten_times_as_many_images_are_uneven(tmp_path, many, said):
    folder = images(tmp_path, {"train/a": many, "train/b": 1, "test/a": 1, "test/b": 1})
    assert ("uneven classes" in warnings(folder)) == said


@pytest.mark.parametrize("place", ["", "train/"])
def test_empty_class_folders_are_said(tmp_path, place):
    folder = images(tmp_path, {f"{place}a": 2, f"{place}c": 2})
    (folder / place / "b").mkdir()
    assert "no images in the class folders 'b' of" in warnings(folder)


def test_kinds_are_named_by_their_number_and_few_names_whole():
    assert counted([("hidden", 1), (".txt", 4)]) == ".txt (4), hidden (1)"
    assert named("abcde") == "'a', 'b', 'c', 'd', 'e'" and named("abcdef").endswith("'e' and 1 more")


def test_images_of_odd_sizes_are_counted(folder):
    Image.new("RGB", (40, 10)).save(folder / "train/a/wide.png")
    Image.new("RGB", (9, 5)).save(folder / "train/a/small.png")
    Image.new("RGB", (16, 8)).save(folder / "train/a/neither.png")
    assert "images more than twice as long as wide, of which the middle is taken: 1" in warnings(folder)
    assert "images of less than 8 pixels, which are enlarged: 1" in warnings(folder)


def test_nothing_is_said_of_a_folder_in_order(folder):
    assert warnings(folder) == "" and passed(folder) == {}
    assert load(of(folder)).found.lines() == [f"{folder}: 8 training images of 2 classes (4 each), 4 test images"]


def test_every_spelling_of_a_path_is_the_same_data(folder, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    whole = load(of(folder))
    for spelling in ("D", "./D/", "~/D", f"{folder}/", "link", f"{tmp_path}/nowhere/../D"):
        assert load(of(spelling)) is whole


def test_a_relative_folder_is_sought_in_the_project_as_well(folder, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr(data, "home", lambda: tmp_path)
    assert len(load(of("D")).train) == 8
    with pytest.raises(
        InputError, match=f"no folder 'E': sought '{tmp_path}/notebooks/E' and '{tmp_path}/E'; expected"
    ):
        load(of("E"))
    (tmp_path / "D.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="where a file is; an archive must be unpacked"):
        load(of("D.zip"))


def test_errors_fit_a_notebook_as_well(tmp_path, monkeypatch):
    class Offline:
        filename = "cifar.tar.gz"

        def __init__(self, *args, **kwargs):
            raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Offline)
    with pytest.raises(InputError, match=r"no network.*folder:PATH") as error:
        load(Data(name="cifar10", root=str(tmp_path)))
    assert "--" not in str(error.value)


def older(folder) -> None:
    for path in folder.rglob("*.png"):
        os.utime(path, (1e9, 1e9))


def test_large_folders_are_read_once(folder, tmp_path, monkeypatch):
    """Other processes take the fingerprint from a note, until a file changes."""
    monkeypatch.setattr(contents, "NOTE_BYTES", 0)
    older(folder)
    wanted = of(folder, root=str(tmp_path / "root"))
    before = fingerprint(wanted)
    contents.contents.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(contents, "_hashes", lambda paths: pytest.fail("read again"))
        assert fingerprint(wanted) == before
    images(folder, {"train/a": 1}, seed=5)
    assert fingerprint(wanted) != before


def test_a_damaged_note_is_made_anew(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "NOTE_BYTES", 0)
    older(folder)
    wanted = of(folder, root=str(tmp_path / "root"))
    before = fingerprint(wanted)
    (note,) = (tmp_path / "root").rglob("*.json")
    whole = note.read_text()
    note.write_text(whole[:10])
    contents.contents.cache_clear()
    assert fingerprint(wanted) == before and note.read_text() == whole


def test_files_that_may_change_again_unseen_are_not_noted(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "NOTE_BYTES", 0)
    fingerprint(of(folder, root=str(tmp_path / "root")))
    assert not list((tmp_path / "root").rglob("*.json"))


def test_small_folders_leave_no_note(folder, tmp_path):
    older(folder)
    load(of(folder, root=str(tmp_path / "root")))
    assert not (tmp_path / "root").exists()


def test_sets_of_any_size_have_a_fingerprint(folder, monkeypatch):
    monkeypatch.setattr(contents, "READ_BYTES", 0)
    monkeypatch.setattr(contents, "_hashes", lambda paths: pytest.fail("read"))
    before = fingerprint(of(folder))
    images(folder, {"train/a": 5})
    assert fingerprint(of(folder)) != before


def test_a_very_large_folder_is_walked_once_a_process(folder, monkeypatch):
    monkeypatch.setattr(folders, "MANY", 0)
    listing = folders.listed(folder)
    with monkeypatch.context() as patch:
        patch.setattr(folders._Walk, "listing", lambda self: pytest.fail("walked again"))
        assert folders.listed(folder) is listing
    images(folder, {"train/a": 5})
    assert len(folders.listed(folder).train.files) == 9
