"""Augmentation of whole batches against torchvision's, image by image."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.transforms.functional as TF
from torchvision.transforms import InterpolationMode

import sswp_lib.learn.views as views_module
from sswp_lib.config import Views
from sswp_lib.learn.views import (
    _draw_jitter,
    _draw_moves,
    boxes,
    crop,
    draw,
    jitter,
    move,
    normalise,
    random_views,
    several_views,
    training_images,
)
from sswp_lib.processes import Rows

ZERO, ONE = torch.zeros(3), torch.ones(3)
PLAIN = {"flip": False, "jitter_p": 0.0, "grey_p": 0.0, "blur_p": 0.0}
COLOUR = {0: TF.adjust_brightness, 1: TF.adjust_contrast, 2: TF.adjust_saturation, 3: TF.adjust_hue}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_crops(n: int, size: int, config: Views, g: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return what `random_views` draws for square images: boxes, whether they are flipped, how far they are turned."""
    *shares, flipped, angle = draw(n, config, g).crops
    whole = torch.tensor(float(size))
    return boxes(*shares, whole, whole), flipped, angle


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8, generator=seeded(5))


@pytest.mark.parametrize("rows", [None, Rows(10, 34, 50)])
@pytest.mark.parametrize(
    "settings", [{}, {"jitter_p": 0.05, "blur_p": 0.04}, PLAIN, {"rotation": 10.0, "shift": 2, "grey_p": 0.5}]
)
def test_several_views_are_to_the_bit_those_of_as_many_calls(batch, settings, rows):
    config, one, other = Views(**settings), seeded(1), seeded(1)
    expected = [random_views(batch, config, MEAN, STD, one, 12, rows) for _ in range(3)]
    found = several_views(3, batch, config, MEAN, STD, other, 12, rows)
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(expected, found, strict=True))
    assert torch.equal(one.get_state(), other.get_state())
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


def test_normalise(batch):
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    torch.testing.assert_close(
        normalise(batch, mean, std), TF.normalize(batch.float() / 255, mean.tolist(), std.tolist())
    )


@pytest.mark.parametrize("size", [8, 11, 16])
def test_of_larger_images_the_centre_is_taken(batch, size):
    """In training before all else, so that what lies beside it never comes in."""
    edge = (16 - size) // 2
    centre = batch[:, :, edge : edge + size, edge : edge + size]
    assert torch.equal(normalise(batch, MEAN, STD, size), normalise(centre, MEAN, STD))
    one, two = (training_images(x, 2, True, 3, MEAN, STD, seeded(), size) for x in (batch, centre))
    assert one.shape[-2:] == (size, size) and torch.equal(one, two)


@pytest.mark.parametrize("size", [5, 8, 24])
def test_views_of_larger_images_have_the_size_asked_for(size):
    x = torch.rand(12, 3, 16, 16, generator=seeded())
    box, flipped, angle = draw_crops(12, 16, Views(crop_scale=(0.05, 1.0)), seeded(1))
    found = crop(x, box, flipped, angle, size)
    for i, (left, top, width, height) in enumerate(box.int().tolist()):
        cut = x[i, :, top : top + height, left : left + width]
        expected = TF.resize(cut, [size, size], InterpolationMode.BILINEAR, antialias=False)
        expected = TF.hflip(expected) if flipped[i] else expected
        torch.testing.assert_close(found[i], expected, rtol=0, atol=2e-5)
    everything = Views(shift=1, jitter_p=0.5, grey_p=0.5, blur_p=0.5, rotation=20.0)
    images = (x * 255).byte()
    assert random_views(images, everything, ZERO, ONE, seeded(), size).shape == (12, 3, size, size)


@pytest.mark.parametrize("size", [8, 16, 31])
def test_crop_and_flip_equal_torchvisions(size):
    x = torch.rand(40, 3, size, size, generator=seeded())
    box, flipped, angle = draw_crops(40, size, Views(crop_scale=(0.05, 1.0)), seeded(1))
    assert flipped.any() and not flipped.all() and not angle.any()
    found = crop(x, box, flipped, angle)
    for i, (left, top, width, height) in enumerate(box.int().tolist()):
        expected = TF.resized_crop(
            x[i], top, left, height, width, [size, size], InterpolationMode.BILINEAR, antialias=False
        )
        expected = TF.hflip(expected) if flipped[i] else expected
        torch.testing.assert_close(found[i], expected, rtol=0, atol=2e-5)


def test_crops_lie_within_the_image_and_have_the_area_and_aspect_asked_for():
    box, _, _ = draw_crops(5000, 32, Views(crop_scale=(0.2, 0.6)), seeded())
    left, top, width, height = box.unbind(1)
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= 32).all() and (top + height <= 32).all()
    assert (box == box.round()).all()
    area = width * height / 32**2
    assert 0.17 < area.min() < 0.23 and 0.57 < area.max() < 0.63
    aspect = width / height
    assert 0.7 < aspect.min() < 0.8 and 1.25 < aspect.max() < 1.42
    assert len(box.unique(dim=0)) > 1000


def test_the_smallest_crop_is_a_pixel():
    box, _, _ = draw_crops(20, 8, Views(crop_scale=(0.001, 0.001)), seeded())
    assert (box[:, 2:] == 1).all()


def test_moves_go_up_and_to_the_left_before_the_flip():
    image = torch.arange(16.0).reshape(1, 1, 4, 4).expand(2, 3, 4, 4)
    moved = move(image, torch.tensor([1, -2]), torch.tensor([-1, 1]), torch.tensor([False, True]))
    assert moved[0, 0].tolist() == [[0, 4, 5, 6], [0, 8, 9, 10], [0, 12, 13, 14], [0, 0, 0, 0]]
    assert moved[1, 0].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 3, 2, 1], [0, 7, 6, 5]]


def test_rotation_about_the_centre():
    x = torch.rand(3, 3, 9, 9, generator=seeded())
    whole = torch.tensor([[0, 0, 9, 9]] * 3)
    angle = torch.tensor([math.pi / 2, math.pi, 0.0])
    found = crop(x, whole, torch.zeros(3, dtype=torch.bool), angle)
    quarter = [torch.rot90(x[0], k, (1, 2)) for k in (1, -1)]
    assert min(float((found[0] - q).abs().max()) for q in quarter) < 1e-5
    torch.testing.assert_close(found[1], torch.rot90(x[1], 2, (1, 2)), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[2], x[2], rtol=0, atol=1e-5)
    _, _, drawn = draw_crops(1000, 9, Views(rotation=15.0), seeded())
    assert drawn.abs().max() <= math.radians(15) and drawn.min() < -0.2 and drawn.max() > 0.2


@pytest.mark.parametrize("kind", range(4))
def test_each_colour_change_equals_torchvisions(kind):
    """Brightness, contrast and saturation multiply by the factor; hue turns by it."""
    x = torch.rand(16, 3, 8, 8, generator=seeded())
    factors = torch.ones(16, 4)
    factors[:, kind] = torch.linspace(-0.2, 0.2, 16) if kind == 3 else torch.linspace(0.2, 1.8, 16)
    found = jitter(x, factors, torch.full((16, 1), kind))  # an order of this change alone
    for i in range(16):
        torch.testing.assert_close(found[i], COLOUR[kind](x[i], float(factors[i, kind])), rtol=0, atol=2e-3)


def test_jitter_equals_torchvisions_in_each_images_own_order():
    x = torch.rand(48, 3, 8, 8, generator=seeded())
    order = torch.rand(48, 4, generator=seeded(1)).argsort(1)
    assert len(order.unique(dim=0)) > 12
    low, high = torch.tensor([0.2, 0.2, 0.2, -0.2]), torch.tensor([1.8, 1.8, 1.8, 0.2])
    factors = low + (high - low) * torch.rand(48, 4, generator=seeded(2))
    before, found = x.clone(), jitter(x, factors, order)
    assert torch.equal(x, before)
    for i in range(48):
        expected = x[i]
        for kind in order[i].tolist():
            expected = COLOUR[kind](expected, float(factors[i, kind]))
        torch.testing.assert_close(found[i], expected, rtol=0, atol=2e-3)  # weights of grey: 0.299 here, 0.2989 there


@pytest.mark.parametrize("strength", [(0.8, 0.4, 0.2, 0.1), (1.5, 0.0, 0.8, 0.5)])
def test_colours_are_drawn_evenly_within_their_strength(strength):
    """Factors from 1 - strength (at the least 0) to 1 + strength, the turn of the hue either way; orders all alike."""
    factors, order = _draw_jitter(20_000, strength, seeded())
    for kind, s in enumerate(strength):
        low, high = (-s, s) if kind == 3 else (max(1 - s, 0), 1 + s)
        drawn = factors[:, kind]
        assert low <= drawn.min() and drawn.max() <= high + 1e-6
        assert float(drawn.mean()) == pytest.approx((low + high) / 2, abs=0.02)
        assert float(drawn.std()) == pytest.approx((high - low) / 12**0.5, abs=0.02)
    assert torch.equal(order.sort(dim=1).values, torch.arange(4).expand(20_000, 4))
    assert (torch.bincount(order @ torch.tensor([64, 16, 4, 1])).nonzero().numel()) == 24


def test_moves_are_drawn_evenly_within_the_shift():
    top, left, flipped = _draw_moves(20_000, 2, True, seeded())
    for drawn in (top, left):
        assert drawn.unique().tolist() == [-2, -1, 0, 1, 2]
        assert (torch.bincount(drawn + 2) / 20_000 - 0.2).abs().max() < 0.02
    assert not torch.equal(top, left) and abs(float(flipped.float().mean()) - 0.5) < 0.02
    assert not _draw_moves(20_000, 2, False, seeded())[2].any()


def test_blurs_are_drawn_evenly_between_the_deviations(batch, monkeypatch):
    drawn, original = [], views_module.blur
    monkeypatch.setattr(views_module, "blur", lambda x, sigma: drawn.append(sigma) or original(x, sigma))
    for seed in range(40):
        random_views(batch, Views(**PLAIN | {"blur_p": 0.5, "blur_sigma": (0.5, 3.0)}), ZERO, ONE, seeded(seed))
    sigma = torch.cat(drawn)
    assert sigma.min() >= 0.5 and sigma.max() <= 3 and float(sigma.mean()) == pytest.approx(1.75, abs=0.15)
    assert len(sigma) == pytest.approx(40 * 24 * 0.5, abs=60)


@pytest.mark.parametrize("shift", [1, 3])
def test_views_are_moved_beside_their_crop(batch, shift):
    """Whole crops, moved: each view is the image after padding with black, cut at one of (2 shift + 1)^2 places."""
    whole = {**PLAIN, "crop_scale": (1.0, 1.0)}
    found = random_views(batch, Views(**whole, shift=shift), MEAN, STD, seeded())
    padded = normalise(torch.nn.functional.pad(batch, (shift,) * 4), MEAN, STD)
    places, still = [], random_views(batch, Views(**whole), MEAN, STD, seeded())
    for view, image, plain in zip(found, padded, still, strict=True):
        if not torch.allclose(plain, image[:, shift:-shift, shift:-shift], atol=1e-4):
            continue  # its crop is narrower than the image
        at = [
            (top, left)
            for top in range(2 * shift + 1)
            for left in range(2 * shift + 1)
            if torch.allclose(view, image[:, top : top + 16, left : left + 16], atol=1e-4)
        ]
        assert len(at) == 1
        places += at
    assert len(places) > 3 and len(set(places)) > 2


def test_grey_equals_torchvisions(batch):
    plain = random_views(batch, Views(**PLAIN), ZERO, ONE, seeded())
    grey = random_views(batch, Views(**PLAIN | {"grey_p": 1.0}), ZERO, ONE, seeded())
    torch.testing.assert_close(grey, TF.rgb_to_grayscale(plain, 3), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sigma", [1.0, 1.7])
def test_blur_equals_torchvisions(batch, sigma):
    plain = random_views(batch, Views(**PLAIN), ZERO, ONE, seeded())
    blurred = random_views(batch, Views(**PLAIN | {"blur_p": 1.0, "blur_sigma": (sigma, sigma)}), ZERO, ONE, seeded())
    torch.testing.assert_close(blurred, TF.gaussian_blur(plain, [3, 3], [sigma, sigma]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"jitter_p": 1.0}, {"blur_p": 1.0}, {"rotation": 30.0}])
def test_each_image_of_a_batch_draws_its_own_view(batch, settings):
    same = batch[:1].expand(8, -1, -1, -1)
    views = random_views(same, Views(**PLAIN | settings), ZERO, ONE, seeded())
    assert len(views.flatten(1).unique(dim=0)) == 8


def test_each_image_draws_its_own_colours_and_chance():
    """On plain colours a crop changes nothing, so what differs is colour; with p = 0.5 about half of the images
    stay.
    """
    same = torch.tensor([120, 90, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(400, 3, 8, 8)
    views = random_views(same, Views(**PLAIN | {"jitter_p": 1.0}), ZERO, ONE, seeded())[:, :, 0, 0]
    assert len((views * 1e4).round().unique(dim=0)) > 390
    for setting in ("jitter_p", "grey_p"):
        views = random_views(same, Views(**PLAIN | {setting: 0.5}), ZERO, ONE, seeded())
        stayed = (views - same / 255).abs().amax((1, 2, 3)) < 1e-4
        assert abs(float(stayed.float().mean()) - 0.5) < 0.1


def test_same_seed_same_views(batch):
    one, two, other = (random_views(batch, Views(), ZERO, ONE, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
    g = seeded(1)
    assert not torch.equal(random_views(batch, Views(), ZERO, ONE, g), random_views(batch, Views(), ZERO, ONE, g))


def test_views_are_normalised_and_leave_the_images_alone(batch):
    before, mean, std = batch.clone(), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    raw = random_views(batch, Views(), ZERO, ONE, seeded())
    assert raw.shape == batch.shape and raw.min() >= 0 and raw.max() <= 1
    torch.testing.assert_close(
        random_views(batch, Views(), mean, std, seeded()), TF.normalize(raw, mean.tolist(), std.tolist())
    )
    assert torch.equal(batch, before)


MEAN, STD = torch.tensor([0.3, 0.4, 0.5]), torch.tensor([0.2, 0.3, 0.4])


def test_training_images_without_changes_are_the_images(batch):
    assert torch.equal(training_images(batch, 0, False, 0, MEAN, STD, seeded()), normalise(batch, MEAN, STD))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_training_images_are_shifted_crops_of_the_padded_image(batch, shift, flip):
    """Each equals one of the (2 shift + 1)^2 crops after padding with black, perhaps flipped; not all the same one."""
    found = training_images(batch, shift, flip, 0, MEAN, STD, seeded())
    padded = normalise(torch.nn.functional.pad(batch, (shift,) * 4), MEAN, STD)
    which = []
    for i, view in enumerate(found):
        for mirrored in (False, True):
            image = padded[i]
            for top in range(2 * shift + 1):
                for left in range(2 * shift + 1):
                    part = image[:, top : top + 16, left : left + 16]
                    part = part.flip(2) if mirrored else part
                    if torch.allclose(view, part, atol=1e-5):
                        which.append((i, top, left, mirrored))
    assert [i for i, *_ in which] == list(range(24))
    assert {mirrored for *_, mirrored in which} == ({False, True} if flip else {False})
    assert len({(top, left) for _, top, left, _ in which}) >= (1 if shift == 0 else 8)


@pytest.mark.parametrize("cutout", [2, 5, 8, 16])
def test_cutout_removes_one_square_of_the_given_size(cutout):
    images = torch.full((300, 3, 16, 16), 255, dtype=torch.uint8)
    hole = training_images(images, 0, False, cutout, MEAN, STD, seeded()) == 0
    assert torch.equal(hole[:, 0], hole[:, 1]) and torch.equal(hole[:, 0], hole[:, 2])
    hole = hole[:, 0]
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])  # a rectangle
    for side in (rows, columns):
        lengths = side.sum(1)
        assert lengths.max() == cutout and lengths.min() >= cutout // 2  # its centre is a pixel of the image
        assert (side.int().diff(dim=1).abs().sum(1) <= 2).all()  # in one piece
        inside = ~side[:, 0] & ~side[:, -1]
        assert (lengths[inside] == cutout).all()  # cut short at the border only
    assert len(hole.flatten(1).unique(dim=0)) > 100
