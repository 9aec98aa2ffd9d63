"""The figure of a few images of each class."""

from dataclasses import replace

import pytest
import torch
from matplotlib import pyplot as plt

from sswp_lib.show import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def rows(figure) -> list[tuple[str, int]]:
    """Return each row's label, and how many images it has."""
    axes = figure.axes
    width = axes[0].get_subplotspec().get_gridspec().ncols
    lines = [axes[i : i + width] for i in range(0, len(axes), width)]
    return [(line[0].get_ylabel(), sum(len(a.images) for a in line)) for line in lines]


def test_a_row_a_class_with_its_count(digits):
    found = rows(plots.class_images(digits))
    counts = torch.bincount(digits.train_labels).tolist()
    assert found == [(f"{name}\n{count}", 8) for name, count in zip(digits.classes, counts, strict=True)]


def test_the_images_are_those_of_the_class(digits):
    """Made brighter and darker class by class."""
    labels = torch.arange(40) % 2
    data = replace(digits, train=(labels * 200).byte().view(-1, 1, 1, 1).expand(-1, 3, 8, 8), train_labels=labels,
                   classes=("dark", "a name of very many letters"))  # fmt: skip
    figure = plots.class_images(data, per_class=3)
    shown = [float(a.images[0].get_array().mean()) for a in figure.axes]
    assert shown[:3] == [0.0] * 3 and shown[3:] == pytest.approx([200 / 255] * 3)
    assert rows(figure)[1] == ("a name of ver…\n20", 3)


def test_of_many_classes_the_rest_is_said(digits):
    labels = torch.arange(30) % 15
    data = replace(digits, train=digits.train[:30], train_labels=labels, classes=tuple(f"c{i}" for i in range(15)))
    figure = plots.class_images(data)
    assert rows(figure) == [(f"c{i}\n2", 2) for i in range(12)] and figure.get_supxlabel() == "and 3 more classes"


def test_images_without_classes(digits):
    assert rows(plots.class_images(replace(digits, train_labels=None, classes=()))) == [("images\n1347", 8)]
