"""Nearest neighbours by cosine similarity, against what one can see by eye; features of a network and of a supernet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sswp_lib.config import InputError
from sswp_lib.learn import neighbours
from sswp_lib.learn.search import Search
from sswp_lib.learn.views import normalise
from sswp_lib.space import calibrate

ON_A_CIRCLE = torch.tensor([[10.0, 0.0], [0.9, 0.1], [0.0, 3.0], [0.2, 0.8], [-1.0, 0.0]])  # 0, 6, 90, 76, 180 degrees


def test_the_nearest_are_those_at_the_smallest_angle_whatever_their_length_and_never_oneself():
    assert neighbours.nearest(ON_A_CIRCLE, 4).tolist() == [
        [1, 3, 2, 4],
        [0, 3, 2, 4],
        [3, 1, 0, 4],
        [2, 1, 0, 4],
        [2, 3, 1, 0],
    ]


def test_of_equal_ones_the_earlier_comes_first():
    same = torch.tensor([[1.0, 2.0], [3.0, 1.0], [0.1, 0.2], [7.0, 14.0], [1.0, 2.0]])  # 0, 2, 3 and 4 in one direction
    assert neighbours.nearest(same, 3).tolist() == [[2, 3, 4], [0, 2, 3], [0, 3, 4], [0, 2, 4], [0, 2, 3]]
    zero = torch.cat([torch.zeros(1, 2), same])  # no direction: alike to none
    assert neighbours.nearest(zero, 5)[0].tolist() == [1, 2, 3, 4, 5]


def test_neighbours_among_others_may_be_what_equals_oneself():
    queries = torch.tensor([[0.0, 1.0], [5.0, 0.0]])
    assert neighbours.nearest(queries, 2, ON_A_CIRCLE).tolist() == [[2, 3], [0, 1]]


def test_what_stands_in_the_same_place_may_be_left_out():
    turned = ON_A_CIRCLE @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # by 90 degrees: 90, 96, 180, 166, 270
    assert neighbours.nearest(turned, 1, ON_A_CIRCLE).tolist() == [[2], [2], [4], [4], [0]]
    assert neighbours.nearest(ON_A_CIRCLE, 2, 3 * ON_A_CIRCLE, others=True).tolist() == [
        row[:2] for row in neighbours.nearest(ON_A_CIRCLE, 4).tolist()
    ]


def test_images_move_to_the_left():
    images = torch.arange(1, 28).view(1, 3, 3, 3).to(torch.uint8)
    moved = neighbours.to_the_left(images, 1)
    assert torch.equal(moved[..., :2], images[..., 1:]) and not moved[..., 2].any() and moved.dtype == torch.uint8
    assert torch.equal(neighbours.to_the_left(images, 0), images)


@pytest.mark.parametrize("k, among", [(5, None), (0, None), (6, ON_A_CIRCLE)])
def test_more_neighbours_than_there_are_images_are_refused(k, among):
    with pytest.raises(InputError, match=f"k is {k}, expected 1 to {4 if among is None else 5}"):
        neighbours.nearest(ON_A_CIRCLE, k, among)


def test_share_of_the_same_class():
    found, labels = torch.tensor([[1, 2], [0, 3], [3, 0], [2, 1]]), torch.tensor([0, 0, 1, 1])
    assert neighbours.same_class(found, labels) == 100 * 4 / 8  # 1 of 0; 0 of 1; 3 of 2; 2 of 3
    assert neighbours.same_class(torch.tensor([[0], [1]]), torch.tensor([1, 1]), torch.tensor([1, 0])) == 50


def test_pixels_are_those_of_the_centre():
    images = torch.arange(2 * 3 * 6 * 6).view(2, 3, 6, 6).to(torch.uint8)
    assert torch.equal(neighbours.pixels(images, 4), (images[:, :, 1:5, 1:5].float() / 255).flatten(1))


@pytest.fixture
def searched(config, data):
    search = Search(config, data)
    for _ in search.advance():
        pass
    _, weights = search.finish()
    return search, search.export().genotype, weights


def test_features_of_the_network_are_those_of_the_supernet_along_its_paths(config, data, searched):
    """With the same statistics, for the weights are the same."""
    search, genotype, weights = searched
    network = neighbours.network_with(weights, config, genotype, data)
    found = neighbours.features(network.features, data.test, data, 8)
    paths, supernet = search.supernet.kept_paths(), search.supernet
    whole = normalise(data.train, data.mean, data.std)
    calibrate(supernet, whole.split(neighbours.BATCH), lambda x: supernet(x, paths))
    supernet.eval()
    beside = neighbours.features(lambda x: supernet.features(x, paths), data.test, data, 8)
    assert found.shape == (50, network.num_features) and torch.allclose(found, beside, atol=1e-5)


def test_compared_are_the_weights_before_the_first_step_and_those_left(config, data, searched):
    _, genotype, weights = searched
    found = neighbours.compared(config, genotype, weights, data)
    assert (found["part"], found["images"], found["k"]) == ("test", list(range(50)), 5)
    assert set(found["neighbours"]) == {"before", "after", "pixels"}
    labels = data.test_labels
    for name, rows in found["neighbours"].items():
        counted = [labels[other] == labels[one] for one, row in enumerate(rows) for other in row]
        assert found["same class"][name] == pytest.approx(100 * sum(map(int, counted)) / 250)
        assert all(one not in row and len(set(row)) == 5 for one, row in enumerate(rows))
    start = Search(config, data).supernet.state_dict()
    again = neighbours.compared(config, genotype, start, data)  # as if the search had done no step
    assert again["neighbours"]["after"] == found["neighbours"]["before"] != found["neighbours"]["after"]
    still = F.normalize(data.test.flatten(1).double())
    beside = F.normalize(neighbours.to_the_left(data.test, 1).flatten(1).double()) @ still.T
    rows = [row.argsort(descending=True) for row in beside]
    same = [labels[o] == labels[i] for i, row in enumerate(rows) for o in row[row != i][:5]]
    assert found["moved by"] == 1 and found["moved"]["pixels"] == pytest.approx(100 * sum(map(int, same)) / 250)
    assert found["moved"]["before"] != found["same class"]["before"]
    flat = still
    assert found["neighbours"]["pixels"][7] == (flat @ flat[7]).argsort(descending=True)[1:6].tolist()


def test_without_test_images_training_images_are_compared_and_without_labels_no_class(config, data, searched):
    _, genotype, weights = searched
    bare = replace(data, test=None, test_labels=None, train_labels=None)
    found = neighbours.compared(config, genotype, weights, bare)
    assert found["part"] == "train" and len(found["images"]) == 160
    assert not {"labels", "same class", "moved"} & set(found)


def test_of_many_images_some_that_are_spread_over_all_are_compared(config, data, searched, monkeypatch):
    monkeypatch.setattr(neighbours, "MOST", 20)
    _, genotype, weights = searched
    found = neighbours.compared(config, genotype, weights, data)
    assert found["images"] == [int(2.5 * i) for i in range(20)]
    assert found["labels"] == data.test_labels[found["images"]].tolist()


def test_searches_by_other_methods_are_refused(config, data, searched):
    _, genotype, weights = searched
    other = config.model_copy(update={"search": config.search.model_copy(update={"method": "darts"})})
    with pytest.raises(InputError, match=r"search\.method is 'darts'"):
        neighbours.compared(other, genotype, weights, data)
