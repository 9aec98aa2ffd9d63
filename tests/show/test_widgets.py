"""A control redraws its picture."""

from sswp_lib.presets import load_config
from sswp_lib.show import widgets
from sswp_lib.space import Genotype


def test_a_slider_redraws_the_picture():
    slider, picture = widgets.cells(Genotype.published("DARTS_V2", 3)).children
    first = bytes(picture.value)
    assert first.startswith(b"\x89PNG")
    slider.value = 1
    assert bytes(picture.value).startswith(b"\x89PNG") and bytes(picture.value) != first
    slider.value = 0
    assert bytes(picture.value) == first


def test_phases_follow_both_controls():
    warm_up, bi_level, picture = widgets.phases(load_config("quick")).children
    seen = {bytes(picture.value)}
    warm_up.value = 0.0
    seen.add(bytes(picture.value))
    bi_level.value = 0.1
    seen.add(bytes(picture.value))
    assert len(seen) == 3
