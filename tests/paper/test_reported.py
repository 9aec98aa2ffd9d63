"""The papers' numbers lie in the package, and are asked for by table."""

import pytest

from sswp_lib.config import InputError
from sswp_lib.paper import reported
from sswp_lib.presets import load_config


def test_every_table_of_the_paper_is_there():
    assert {f"table{n}" for n in ("1", "2", "3a", "3b", "3c", "3d", "4a", "4b", "5", "6")} <= set(
        reported.papers()["sswp_nas"]
    )
    assert set(reported.papers()) == {"sswp_nas", "ssnas", "pi_nas"}


def test_a_table_keeps_its_caption_and_values():
    table = reported.table("table3a")
    assert "CIFAR-10" in table.attrs["caption"] and reported.values("table3a", "name", "error")["SSL+FPP"] == 2.56
    assert reported.values("table1", "architecture", "error", "ssnas")["Random sampling"] == 3.29


def test_wrong_names_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'table3a'"):
        reported.table("tabel3a")
    with pytest.raises(InputError, match="no paper 'darts'"):
        reported.table("table1", "darts")
    with pytest.raises(InputError, match="picture only"):
        reported.table("fig5")


def value(config: dict, dotted: str):
    for part in dotted.split("."):
        config = config[part]
    return config


ENTRIES = {  # Table 5's rows: the settings that hold them, in the search and in training
    "batch size": ("search.batch_size", "train.batch_size"), "learning rate (w)": ("search.lr", "train.lr"),
    "minimum learning rate (w)": ("search.min_lr", "train.min_lr"),
    "momentum (w)": ("search.momentum", "train.momentum"),
    "weight decay (w)": ("search.weight_decay", "train.weight_decay"),
    "learning rate (alpha)": ("search.alpha_lr", None),
    "adam beta2": ("search.alpha_beta2", None), "auxiliary weight": (None, "train.auxiliary"),
    "cutout length": (None, "train.cutout"), "drop-path rate": (None, "train.drop_path"),
}  # fmt: skip
IN_CODE = {
    "optimizer (w)": "sgd",
    "scheduler (w)": "cosine",
    "optimizer (alpha)": "adam",
    "adam beta1": 0,
}  # not settings: tests of search and training hold them


CIFAR, IMAGENET = ("cifar_search", "cifar_train"), ("imagenet_search", "imagenet_train")


@pytest.mark.parametrize(
    "preset, data, columns",
    [("paper", "cifar10", CIFAR), ("paper", "imagenet", IMAGENET), ("imagenet", None, IMAGENET),
     ("imagenet", "tiny-imagenet", CIFAR)],
)  # fmt: skip
def test_paper_preset_is_table_5(preset, data, columns):
    config = load_config(preset, data).model_dump()
    table = reported.table("table5").set_index("name")
    assert set(table.index) == set(ENTRIES) | set(IN_CODE)
    for name, settings in ENTRIES.items():
        for setting, column in zip(settings, columns, strict=True):
            entry = table.loc[name, column]
            if setting is not None and entry == entry and entry is not None:
                assert value(config, setting) == entry, (name, column)
    for name, word in IN_CODE.items():
        assert table.loc[name, "cifar_search"] == word
