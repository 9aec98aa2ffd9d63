"""What is asked of all methods on one bench: does a search find more than random search with the same compute?"""

from __future__ import annotations

from sswp_lib.paper.claim import CONTROL, SCRATCH, Claim

SSWP, SSNAS, PI_NAS, SPOS = "SSWP-NAS", "SSNAS", "Pi-NAS", "SPOS"
FIRST, SECOND = "DARTS (first order)", "DARTS (second order)"
RANDOM_SEARCH, RANDOM_LABELS, DRAWN = "random search", "random search, labels", "one draw, no search"
_RIVALS = {
    **dict.fromkeys((SSWP, SSNAS, PI_NAS), RANDOM_SEARCH), **dict.fromkeys((FIRST, SECOND, SPOS), RANDOM_LABELS),
}  # fmt: skip
_KEYS = {
    SSWP: "sswp", SSNAS: "ssnas", PI_NAS: "pi_nas", FIRST: "darts1", SECOND: "darts2", SPOS: "spos",
}  # fmt: skip


def rival(arm: str) -> str | None:
    """Return the random search that an arm is set against: that with the same kind of images; None of a random one."""
    return _RIVALS.get(arm)


def ours(arm: str) -> str:
    """Return the key of the claim that an arm beats random search."""
    return f"bench_{_KEYS[arm]}"


BENCH_CLAIMS = {
    **{
        ours(arm): Claim(
            f"{arm} finds better architectures than random search with the same compute",
            CONTROL,
            "not compared",
            f"{arm} minus {rival(arm)}, {SCRATCH}",
            architectures=True,
        )
        for arm in _KEYS
    },
    "bench_random_beats_draw": Claim(
        "Random search with labels finds better architectures than one draw",
        CONTROL,
        "not compared",
        f"{RANDOM_LABELS} minus {DRAWN}, {SCRATCH}",
    ),
}
