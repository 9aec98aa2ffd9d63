"""A control redraws its picture; pictures have words, controls names; phases reach every ratio."""

import re

import ipywidgets
import pytest
from tiny_runs import genotype_file, tiny

from sswp_lib.config import InputError
from sswp_lib.presets import load_config
from sswp_lib.runs import following, records, runs
from sswp_lib.runs.records import Done
from sswp_lib.show import widgets
from sswp_lib.show.controls import Pictured
from sswp_lib.space import Genotype

NAMED = (
    ipywidgets.BoundedIntText, ipywidgets.BoundedFloatText, ipywidgets.Dropdown, ipywidgets.SelectMultiple,
    ipywidgets.Checkbox,
)  # fmt: skip


def png_of(widget: Pictured, place: int = 0) -> bytes:
    return widget.pictures[place].png


def all_of(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    return [widget, *(inner for child in getattr(widget, "children", ()) for inner in all_of(child))]


def test_a_number_redraws_the_picture():
    widget = widgets.cells(Genotype.published("DARTS_V2", 3))
    (cell,), first = widget.controls, png_of(widget)
    assert first.startswith(b"\x89PNG")
    cell.slider.value = 1
    assert png_of(widget).startswith(b"\x89PNG") and png_of(widget) != first
    assert cell.field.value == 1 and "cell 1 (reduction)" in widget.words
    cell.field.value = 0
    assert png_of(widget) == first and cell.slider.value == 0


def test_the_words_of_a_cell_are_its_operations():
    genotype = Genotype.published("DARTS_V2", 3)
    words = widgets.cells(genotype).words
    assert all(words.count(name) == sum(name == op for op, _ in genotype.cells[0]) for name, _ in genotype.cells[0])


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_phases_start_where_the_configuration_has_them(preset):
    config = load_config(preset)
    (ends,) = widgets.phases(config).controls
    assert [field.value for field in ends.fields] == list(config.search.ratios[:2])


def test_phases_reach_every_ratio():
    widget = widgets.phases(load_config("paper"))
    (ends,), seen = widget.controls, {png_of(widget)}
    warm_up, bi_level = ends.fields
    warm_up.value = 0.2
    bi_level.value = 0.6
    assert "warm-up 0.2, bi-level 0.6, pruning 0.2" in widget.said.value
    seen.add(png_of(widget))
    ends.slider.value = (0.0, 1.0)
    assert "warm-up 0, bi-level 1, pruning 0" in widget.said.value and (warm_up.value, bi_level.value) == (0, 1)
    seen.add(png_of(widget))
    warm_up.value = 0.7  # there is no more than 0.3 left
    assert ends.value == ends.slider.value == (0.7, 1.0) and bi_level.value == 0.3
    seen.add(png_of(widget))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"search.prune": "none", "search.ratios": (0.2, 0.8)}, "warm-up 0.2, bi-level 0.8, pruning 0"),
        ({"search.ratios": (0.1, 0.3, 0.4, 0.2)}, "warm-up 0.1, bi-level 0.3, pruning 0.4, fixed 0.2"),
    ],
)
def test_phases_of_other_kinds(settings, said):
    assert f">{said}<" in widgets.phases(load_config("paper", settings=settings)).said.value


def test_scrub_shows_the_genotype_of_each_epoch(finished):
    widget = widgets.scrub(finished)
    epoch, cell = widget.controls
    seen = set()
    for after in (3, 2, 1):
        epoch.field.value = after
        kept = following.stand(runs.root() / finished.name).alphas[after - 1]["genotype"]
        expected = widgets.cells(Genotype.model_validate(kept))
        for number in (0, 1):
            cell.field.value = expected.controls[0].value = number
            assert widget.pictures[1] == expected.pictures[0]
        assert f"After epoch {after} of 3: loss {finished.history[after - 1]['loss']:.3f}" in widget.said.value
        assert all(f"{value:.3f}" in widget.words for value in finished.history[after - 1]["entropy"])
        seen.add(png_of(widget))
    assert len(seen) == 3


def test_the_last_genotype_of_scrub_is_that_found(finished):
    widget = widgets.scrub(finished)
    expected = widgets.cells(finished.genotype)
    for number in range(finished.genotype.num_cells):
        widget.controls[1].field.value = expected.controls[0].value = number
        assert widget.pictures[1] == expected.pictures[0]


def test_scrub_says_where_alpha_was_not_kept(finished):
    (runs.root() / finished.name / following.ALPHA).unlink()
    widget = widgets.scrub(finished)
    assert len(widget.pictures) == 2 and "not kept" not in widget.said.value  # after the last it is what was found
    widget.controls[0].field.value = 1
    assert len(widget.pictures) == 1 and "alpha of that epoch was not kept" in widget.said.value


def test_nothing_to_go_through(finished):
    training = runs.train(tiny(train__epochs=1), finished, device="cpu", quiet=True)
    for nothing, why in ((tiny(seed=9), "has not begun"), (training, "is done in")):
        with pytest.raises(InputError, match=f"{why}.*; expected a search with an epoch that is done"):
            widgets.scrub(nothing)


def test_a_search_without_alpha(finished, runs_folder):
    """Of one by lot, what it found is known at its end."""
    history = [{"epoch": epoch, "loss": 3.0 - epoch} for epoch in range(3)]
    records.write(runs_folder / finished.name, finished.model_copy(update={"history": history}))
    (runs_folder / finished.name / following.ALPHA).unlink()
    widget = widgets.scrub(finished.name)
    assert len(widget.pictures) == 2
    widget.controls[0].field.value = 2
    assert len(widget.pictures) == 1 and "this search has no alpha" in widget.said.value


def test_compare_draws_what_is_chosen(finished):
    other = runs.search(tiny(seed=1), device="cpu", quiet=True)
    widget = widgets.compare({"first": finished, "second": Done({"seed": 1}, other)})
    drawn, chosen = widget.controls
    seen = {png_of(widget)}
    assert drawn.options == (
        "loss", "loss of architecture steps", "accuracy (%)", "entropy of alpha / log M", "learning rate",
    )  # fmt: skip
    for name, record in (("first", finished), ("second", other)):
        assert f"{name}: from {record.history[0]['loss']:.4g} to {record.history[-1]['loss']:.4g}" in widget.words
    drawn.value = "learning rate"
    seen.add(png_of(widget))
    chosen.value = ["second"]
    seen.add(png_of(widget))
    assert len(seen) == 3 and "first" not in widget.words and widget.words.startswith("learning rate. second: ")
    chosen.value = []
    assert "no run is chosen" in widget.said.value
    assert widgets.compare([Done({"seed": 1}, other)]).words.startswith("loss. seed 1: ")


def test_genotypes_side_by_side(finished, tmp_path):
    text = tmp_path / "mine.txt"
    text.write_text(Genotype.published("PDARTS", 4).to_text())
    widget = widgets.genotypes(finished, "DARTS_V2", genotype_file(tmp_path), {"mine": text}, finished.name[:9])
    names = [picture.words.partition(",")[0] for picture in widget.pictures]
    assert names == [finished.name, "DARTS_V2", "genotype.json", "mine", finished.name[:9]]
    as_found = [picture.words.partition(",")[2] for picture in widget.pictures]
    assert as_found[0] == as_found[4] and as_found[1] == as_found[2] and as_found[0] != as_found[1] != as_found[3]
    assert all(0 < picture.share <= 0.49 for picture in widget.pictures)


def test_genotypes_of_other_depths_say_so():
    deep, flat = Genotype.published("DARTS_V2", 4), Genotype.published("DARTS_V1", 2)
    widget = widgets.genotypes({"deep": deep, "flat": flat})
    assert len(widget.pictures) == 2
    widget.controls[0].field.value = 3
    assert [picture.words.partition(",")[0] for picture in widget.pictures] == ["deep"]
    assert ">flat has 2 cells<" in widget.said.value


def test_genotypes_need_one():
    with pytest.raises(InputError, match="expected one or more"):
        widgets.genotypes()


def test_every_control_has_a_name_and_every_picture_words(finished):
    made = [
        widgets.cells(finished.genotype), widgets.phases(tiny()), widgets.watch(finished), widgets.scrub(finished),
        widgets.compare([finished]), widgets.genotypes(finished),
    ]  # fmt: skip
    for widget in made:
        inside = all_of(widget)
        named = [one for one in inside if isinstance(one, NAMED)]
        assert named and all(one.description for one in named)
        for one in inside:  # sliders, which have no name, stand beside a field
            if isinstance(one, ipywidgets.IntSlider | ipywidgets.FloatRangeSlider):
                assert any(one in getattr(row, "children", ()) and isinstance(row.children[0], NAMED) for row in inside)
        images = re.findall(r'<img alt="([^"]*)"', widget.shown.value)
        assert len(images) == len(widget.pictures) > 0 and all(len(words) > 20 for words in images)
        widget.close()


def test_a_still_picture_stands_for_what_no_figure_precedes(finished):
    data, metadata = widgets.watch(finished)._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] and finished.name in data["text/plain"]
    assert "image/png" in data and "application/vnd.jupyter.widget-view+json" in data
    assert "image/png" not in widgets.cells(finished.genotype)._repr_mimebundle_()


def test_without_graphviz_cells_are_drawn_too(finished, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    (picture,) = widgets.genotypes(finished).pictures
    assert picture.png.startswith(b"\x89PNG")
