"""What was found in a data set, in words: for the first lines of a run, and for `sswp data`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

UNEVEN = 10  # times as many images of one class as of another; ours
WIDTH, ROWS = 100, 40  # letters of a line, and classes, in a table; ours


@dataclass(frozen=True)
class Found:
    """What was found in a data set.

    Attributes:
        source: the data set's name, or the absolute path of its folder.
        folder: whether it is a folder.
        images, test_images: how many there are.
        classes: each class's name, training and test images; empty where there are no classes.
        passed: kinds of things in the folder that were passed over, and how many of each.
        noted: warnings on the folder and its files; those on the classes follow from `classes`.
        sizes: sentences on the images' sizes and values.
    """

    source: str
    folder: bool
    images: int
    test_images: int
    classes: tuple[tuple[str, int, int], ...]
    passed: tuple[tuple[str, int], ...]
    noted: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()

    def without_test(self) -> list[str]:
        """Return the classes without test images, of which a test accuracy says nothing."""
        return [name for name, _, test in self.classes if not test]

    def lines(self) -> list[str]:
        """Return what there is and what was passed over."""
        said = [f"{self.source}: {self.images} training images of {self._classes()}, {self.test_images} test images"]
        if self.passed:
            said.append(f"passed over: {counted(self.passed)}")
        return said

    def _classes(self) -> str:
        if not self.classes:
            return "no class"
        counts = [train for _, train, _ in self.classes]
        each = f"{counts[0]} each" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)} each"
        return f"{len(counts)} class{'es' if len(counts) > 1 else ''} ({each})"

    def warnings(self) -> list[str]:
        """Return what is probably not as it was meant."""
        counts = {name: train for name, train, _ in self.classes}
        said = list(self.noted)
        if len(counts) == 1:
            said.append(f"one class, {next(iter(counts))!r}: a search without labels can run, training needs two")
        missing = self.without_test()
        if missing and self.test_images:
            said.append(f"no test images of {named(missing)}: the test accuracy is that of the other classes alone")
        if missing and not self.test_images:
            said.append("no test images: training needs them in test/<class>/")
        single = [name for name, count in counts.items() if count == 1]
        if single:
            said.append(f"one training image of {named(single)}: none can be held out for validation")
        few, many = (pick(counts, key=counts.get, default=None) for pick in (min, max))
        if counts and counts[many] >= UNEVEN * counts[few]:
            said.append(
                f"uneven classes: {counts[many]} training images of {many!r}, {counts[few]} of {few!r}; see the "
                "accuracy balanced over classes"
            )
        return said

    def table(self) -> str:
        """Return all of it as text: sizes, a row a class, what was passed over, and warnings."""
        rows = [("class", "training images", "test images")]
        rows += [(name, str(train), str(test)) for name, train, test in self.classes[:ROWS]]
        width = max(len(name) for name, *_ in rows)
        shown = [f"  {name:<{width}}  {train:>15}  {test:>11}" for name, train, test in rows]
        more = [f"  and {len(self.classes) - ROWS} more classes"] if len(self.classes) > ROWS else []
        first, *said = [*self.lines(), *(f"warning: {text}" for text in self.warnings())]
        wrapped = [textwrap.fill(text, WIDTH, subsequent_indent="    ", break_on_hyphens=False) for text in said]
        return "\n".join([first, *self.sizes, *(shown + more if self.classes else []), *wrapped])


def counted(kinds: Iterable[tuple[str, int]]) -> str:
    """Return kinds of things and how many there are of each, the most first: "hidden (4), .txt (1)"."""
    return ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds, key=lambda item: -item[1]))


def named(names: Iterable[str], most: int = 5) -> str:
    """Return names in quotes, the first few of many: "'a', 'b' and 7 more"."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
