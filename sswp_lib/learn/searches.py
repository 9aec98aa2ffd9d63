"""Which loop carries out which method of search: one line a method."""

from __future__ import annotations

from sswp_lib.learn.halves import Halves
from sswp_lib.learn.relaxed import RelaxedSearch
from sswp_lib.learn.search import Search

SEARCHES: dict[str, type[Halves]] = {"sswp": Search, "darts": RelaxedSearch, "ssnas": RelaxedSearch}
"""`search.method` -> its loop, made as `loop(config, data, device)`."""
