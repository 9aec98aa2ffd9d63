"""What SSNAS (Kaplan & Giryes 2020) claims: effects in points, above 0 where they speak for it.

Its numbers are single runs without a spread, and two of its baselines are means of DARTS's own several runs, one a best
(3.29 and 3.00, 2.62 % error): differences of a few tenths say little there. Table 2 (transfer to ImageNet) is not
tested here.
"""

from __future__ import annotations

from sswp_lib.paper.claim import MARGIN, NOT_WORSE, SCRATCH, Claim

_BATCHES = "mean over two contrastive batches"
SSNAS_CLAIMS = {
    "ss_beats_random": Claim(
        "Cells searched by contrast (SSNAS) beat random cells",
        "SSNAS 4.2, Table 1",
        "+0.68",
        f"SSNAS minus random cells, {SCRATCH}",
        architectures=True,
    ),
    "ss_beats_first": Claim(
        "They beat those of DARTS, first order, which sees all labels",
        "SSNAS 4.2, Table 1",
        "+0.39",
        f"SSNAS minus DARTS (first order), {SCRATCH}",
        architectures=True,
    ),
    "ss_matches_second": Claim(
        "They match those of DARTS, second order, which sees all labels and takes longer",
        "SSNAS 4.2, Table 1",
        "+0.01",
        f"SSNAS minus DARTS (second order), {SCRATCH}; {NOT_WORSE}",
        margin=MARGIN,
        architectures=True,
    ),
    "ss_few_labels": Claim(
        "Where a class has few labels, searching without them is better than by them",
        "SSNAS 4.2, Table 3",
        "+18.90",
        f"SSNAS minus DARTS (first order) that sees few labels of a class, {SCRATCH}",
        architectures=True,
    ),
    "ss_no_collapse": Claim(
        "For there the search by labels collapses to skips, and that by contrast does not",
        "SSNAS 2 and 4.2, Table 3",
        "in words",
        "skips among a genotype's operations, DARTS (first order) with few labels minus SSNAS (points)",
        architectures=True,
    ),
    "ss_probe": Claim(
        "Found cells learn better features than random ones",
        "SSNAS 4.3, Table 4",
        "+4.02",
        f"linear probe after SimCLR, SSNAS minus random cells, {_BATCHES}, test accuracy (points)",
        architectures=True,
    ),
    "ss_semi": Claim(
        "So they do where all weights are fine-tuned on 10 % of the labels",
        "SSNAS 4.3, Table 4",
        "+0.99",
        f"fine-tuned after SimCLR, SSNAS minus random cells, {_BATCHES}, test accuracy (points)",
        architectures=True,
    ),
    "ss_batch": Claim(
        "A larger contrastive batch learns better features",
        "SSNAS 4.3, Table 4",
        "+2.09",
        "linear probe of SSNAS's cells, larger minus smaller batch at equal epochs, test accuracy (points)",
    ),
    "ss_pretrain": Claim(
        "Pre-training does it, not the cell alone",
        "SSNAS 4.3, Table 5",
        "+19.70",
        "SSNAS's cells, SimCLR minus random start, each at its own learning rate, 10 % of the labels, test accuracy "
        "(points)",
    ),
    "ss_split": Claim(
        "Separate images for weights and architecture beat one set for both",
        "SSNAS 4.4",
        "+0.63",
        f"halves minus the same set at as many steps, {SCRATCH}",
        architectures=True,
    ),
}
