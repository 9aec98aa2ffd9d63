"""Published accuracies of NAS-Bench-201 are read as they stand, and nothing else passes for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import kendalltau

from sswp_lib.config import InputError
from sswp_lib.paper import stand_alone
from sswp_lib.space.bench201 import BENCH201

ONE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
OTHER = ONE.replace("nor_conv_3x3~0|+|nor", "none~0|+|nor")
USERS = Path(__file__).resolve().parents[2] / "data" / stand_alone.FILE


def written(folder: Path, *rows: str, header: str = "index,arch,cifar10_test_200") -> Path:
    (folder / stand_alone.FILE).write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_accuracies_are_found_by_architecture(tmp_path):
    table = stand_alone.published(written(tmp_path, f"0,{OTHER},90.5", f"1,{ONE},93.66"))
    assert stand_alone.of(table, [BENCH201.read(ONE), BENCH201.read(OTHER)]) == [93.66, 90.5]
    absent = BENCH201.choices(["none"] * 6)
    with pytest.raises(InputError, match=r"has no architecture \|none~0\|.*lacks 1"):
        stand_alone.of(table, [absent])


def test_without_a_copy_there_are_none(tmp_path):
    assert stand_alone.published(tmp_path) is None


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([f"0,{ONE},93"], "index,arch,accuracy", "has no column 'cifar10_test_200'; expected arch"),
        ([f"0,{ONE},93", "1,|conv|,90"], None, "line 3: "),
        ([f"0,{ONE},93", f"1,{ONE},93"], None, "line 3: .* stands there twice"),
        ([f"0,{ONE},193"], None, "line 2: cifar10_test_200 is .*193.*; expected an accuracy in percent"),
        ([f"0,{ONE},good"], None, "line 2: cifar10_test_200 is 'good'"),
        ([f"0,{ONE},"], None, "line 2: cifar10_test_200 is "),
        ([f"0,{ONE},93,4,5,6", "0,1"], None, "cannot be read as a table|line 2"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, rows, header, message):
    folder = written(tmp_path, *rows, **({"header": header} if header else {}))
    with pytest.raises(InputError, match=message) as error:
        stand_alone.published(folder)
    assert "\n" not in str(error.value)


def test_there_are_729_of_convolutions_and_pools_alone():
    every = stand_alone.without_none_and_skip()
    assert len(every) == len(set(every)) == 729


@pytest.mark.skipif(not USERS.is_file(), reason=f"no copy of the published accuracies in data/{stand_alone.FILE}")
def test_ranking_by_short_training_agrees_with_that_by_long():
    """As far as it is known to (Kendall's tau-b 0.70 over all, 0.67 over the 729)."""
    table = stand_alone.published(USERS.parent)
    some = table.loc[[BENCH201.write(c) for c in stand_alone.without_none_and_skip()]]
    for rows, expected in ((table, 0.70), (some, 0.67)):
        assert kendalltau(rows[stand_alone.SHORT], rows[stand_alone.LONG]).statistic == pytest.approx(
            expected, abs=0.006
        )
    assert table[stand_alone.LONG].max() == 94.37
