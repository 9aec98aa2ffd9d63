"""Which loop carries out which method of search: one line a method."""

from __future__ import annotations

from sswp_lib.learn.loop import Loop
from sswp_lib.learn.one_shot_search import OneShotSearch
from sswp_lib.learn.random_search import RandomSearch
from sswp_lib.learn.relaxed import RelaxedSearch
from sswp_lib.learn.search import Search

SEARCHES: dict[str, type[Loop]] = {
    "sswp": Search, "darts": RelaxedSearch, "ssnas": RelaxedSearch, "spos": OneShotSearch, "pi-nas": OneShotSearch,
    "random": RandomSearch,
}  # fmt: skip
"""`search.method` -> its loop, made as `loop(config, data, device)`."""
