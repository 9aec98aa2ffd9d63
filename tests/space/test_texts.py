"""Architectures are read in the forms that people have them in, and written in all that can say them."""

from __future__ import annotations

import json

import pytest

from sswp_lib.config import InputError
from sswp_lib.space import CellSpace, Choices, Genotype
from sswp_lib.space.texts import SPACES, read, read_file, texts

BENCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


@pytest.mark.parametrize("name", ["DARTS_V2", "PC_DARTS_IMAGENET"])
@pytest.mark.parametrize("num_cells", [3, 20])
def test_a_stacked_pair_of_cells_is_written_and_read_back(name, num_cells):
    genotype = Genotype.published(name, num_cells)
    found = texts(genotype)
    assert set(found) == {"json", "darts"}
    assert read(found["darts"], num_cells) == read(found["json"]) == genotype
    assert found["darts"].startswith("Genotype(normal=[('")


def test_cells_of_their_own_have_no_text_of_darts(g):
    genotype = CellSpace(6).draw(g)
    assert set(texts(genotype)) == {"json"}
    one = Genotype.published("DARTS_V2", 2)  # reductions alone
    assert one.to_text() is None


@pytest.mark.parametrize("space", SPACES.values(), ids=list(SPACES))
def test_choices_are_written_and_read_back(space, g):
    choices = space.draw(g)
    for form, text in texts(choices).items():
        assert (read(text) if form in ("json", "nasbench201") else space.read(text)) == choices
    assert set(texts(choices)) == {"json", space.name}


def test_files_are_read_in_any_form(tmp_path):
    expected = Choices("nasbench201", ("nor_conv_3x3", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "nor_conv_3x3", "skip_connect"))  # fmt: skip # noqa: E501
    for text in (BENCH + "\n", expected.to_json()):
        path = tmp_path / "architecture"
        path.write_text(text)
        assert read_file(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"space": "nasbench", "operations": []}', "unknown space 'nasbench'; did you mean 'nasbench201'"),
        ('{"space": "nasbench201", "operations": ["none"]}', "expected 6, one an edge"),
        (BENCH.replace("nor_conv_3x3~0|+|nor", "conv~0|+|nor"), "conv"),
        ('{"cells": []}', "at least one cell"),
        ("__import__('os')", "not a genotype"),
    ],
)
def test_anything_else_is_refused_in_a_line(text, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        read(text)
    assert "\n" not in str(error.value)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        read_file(path)


def test_the_command_shows_all_forms(call):
    for source, forms in ((BENCH, {"json", "nasbench201"}), ("PDARTS", {"json", "darts"})):
        status, out, _ = call("show", source)
        assert status == 0 and set(json.loads(out)["texts"]) == forms
