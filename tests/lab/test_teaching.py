"""The glossary holds what the notebooks link to, in order, and says where each word is first met; the page for
lecturers names what there is.
"""

from __future__ import annotations

import json
import re

import pytest

from sswp_lib.config import home
from sswp_lib.lab import reproduce

GLOSSARY = home() / "notebooks" / "GLOSSARY.md"
TEACHING = home() / "notebooks" / "TEACHING.md"
ENTRIES = dict(re.findall(r"^### (.+)\n\n(.+)$", GLOSSARY.read_text(), re.MULTILINE))


def prose(path) -> str:
    """Return a notebook's text cells."""
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


PROSE = {path.stem[:2]: prose(path) for path in reproduce.notebooks()}


def anchor(heading: str) -> str:
    """Return what GitHub and JupyterLab alike call a heading of lower-case letters without punctuation."""
    return heading.replace(" ", "-")


def links(text: str) -> list[str]:
    return re.findall(r"\]\(GLOSSARY\.md#([^)]+)\)", text)


def mentions(heading: str, text: str) -> bool:
    """Tell whether a text links to an entry, or has its word, in the singular or the plural."""
    word = re.escape(heading).replace(r"\ ", "[ -]")
    return anchor(heading) in links(text) or bool(re.search(rf"\b{word}s?\b", text.replace("'s ", " "), re.IGNORECASE))


def test_every_link_has_its_entry():
    wanted = {f"{number}: {link}" for number, text in PROSE.items() for link in links(text)}
    there = {anchor(heading) for heading in ENTRIES}
    assert {link for link in wanted if link.split(": ")[1] not in there} == set()


def test_every_notebook_links_to_the_glossary_and_to_no_entry_twice():
    for number, text in PROSE.items():
        assert "(GLOSSARY.md)" in text and links(text), number
        assert len(links(text)) == len(set(links(text))), number


def test_entries_are_in_alphabetical_order_and_their_anchors_are_plain():
    headings = re.findall(r"^#+ (.+)$", GLOSSARY.read_text(), re.MULTILINE)[1:]
    assert headings == sorted(headings) == list(ENTRIES)
    assert all(re.fullmatch(r"[a-z0-9]+([ -][a-z0-9]+)*", heading) for heading in headings)


@pytest.mark.parametrize("heading", ENTRIES)
def test_an_entry_is_short_and_says_where_its_word_is_first_met(heading):
    text, _, number = ENTRIES[heading].removesuffix(")").rpartition(" (")
    assert 1 <= len(re.findall(r"[.:](\s|$)", text)) <= 4
    assert number == next(number for number, text in PROSE.items() if mentions(heading, text))


def test_links_hold_in_the_copies_that_make_lab_opens():
    (lab,) = re.findall(r"^lab:.*?(?=\n\n)", (home() / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert "cp notebooks/GLOSSARY.md notebooks/own/" in lab


def test_the_page_for_lecturers_knows_every_notebook_and_its_links_lead_somewhere():
    text = TEACHING.read_text()
    (row,) = re.findall(r"^\| notebook \|(.+)\|$", text, re.MULTILINE)
    assert [number.strip() for number in row.split("|")] == list(PROSE)
    assert all((TEACHING.parent / link).exists() for link in re.findall(r"\]\(([^)#]+)", text))


def test_the_marking_scheme_adds_up_to_a_hundred():
    points = re.findall(r"^\| [^|]+ \| (\d+) \| [^|]+ \|$", TEACHING.read_text(), re.MULTILINE)
    assert sum(map(int, points)) == 100


def test_the_readme_tells_the_same_minutes():
    (row,) = re.findall(r"^\| minutes \|(.+)\|$", TEACHING.read_text(), re.MULTILINE)
    told = re.findall(r"^\| \[`(\d\d)_\w+`\].+\| (\d+) \|$", (home() / "README.md").read_text(), re.MULTILINE)
    assert told == list(zip(PROSE, [minutes.strip() for minutes in row.split("|")], strict=True))
