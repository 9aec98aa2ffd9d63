"""The report: whole in one file, honest about what is missing, and unharmed by what a file of figures may hold."""

from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from sswp_lib.config import InputError
from sswp_lib.paper import output
from sswp_lib.paper.output import Output
from sswp_lib.runs import records
from sswp_lib.show import plots, report

CLAIMS = """key,claim,section,paper,measure,mean,low,high,resolution,seen where,p,alone,n,unit,searches,shares runs with,note,preset,runs
longer,longer is better,4.3,+0.2,points,1.5,0.5,2.5,1.0,above 0,0.001,seen,3,search,3,,,quick,run-1 run-2
wider,wider is better,4.3,+0.1,points,-2.0,-3.0,-1.0,1.0,above 0,0.01,contradicted,3,search,3,,,quick,run-2 run-3
lower,lower is better,4.3,+0.1,points,1.0,0.1,1.9,0.9,above 0,0.04,seen,3,search,3,,,quick,run-4
deeper,deeper is better,4.3,a picture,points,0.1,-1.0,1.2,1.1,above -1,0.06,undecided,3,search,3,,a note,quick,
"""  # noqa: E501
OLD_CLAIMS = "claim,section,mean,low,high,n,preset,verdict\nan older claim,4.4,7.69,1.25,14.14,8,quick,seen\n"


class Page(HTMLParser):
    """What a browser would see of a page: tags with their attributes, and text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def notebook(
    path, title: str, code: str, error: tuple[str, str] | None = None, ended: str | None = "2026-01-02T03:04:05+00:00"
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cell = nbformat.v4.new_code_cell(code)
    cell["outputs"] = [nbformat.v4.new_output("error", ename=error[0], evalue=error[1], traceback=[])] if error else []
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"Before.\n\n# {title}\n\n## Later"), cell])
    made.metadata["papermill"] = {
        "parameters": {"preset": "quick"},
        "end_time": ended,
        "duration": 61.0,
        "exception": True if error else None,
    }
    nbformat.write(made, path)


def picture(path, colour: str, caption: str | None = None) -> None:
    info = PngImagePlugin.PngInfo()
    if caption:
        info.add_text("Description", caption)
    Image.new("RGB", (40, 20), colour).save(path, pnginfo=info, dpi=(200, 200))


def record(runs, name: str, kind: str, seconds: float, finished: str, commit: str) -> None:
    provenance = {
        "seconds": seconds,
        "resumed": 0,
        "finished": finished,
        "commit": commit,
        "device": "cpu",
        "hardware": f"machine of {name}",
        "torch": "9.9",
    }
    plain = {"name": name, "kind": kind, "config": {}, "seed": 0, "result": {}, "provenance": provenance}
    records.write(runs / name, records.Record.model_validate(plain))


@pytest.fixture
def house(tmp_path, monkeypatch, runs_folder):
    """A project with an executed notebook, one that failed, one that was never executed, figures, tables, claims and
    runs.
    """
    for module in (report, output, records):
        monkeypatch.setattr(module, "home", lambda: tmp_path)
    folder = tmp_path / "figures" / "own" / "quick"
    code = 'plots.save(a, "01_zebra", preset)\nplots.save(b, "01_ant", preset)'
    notebook(tmp_path / "notebooks" / "01_first.ipynb", "1 · The **first** one", code)
    notebook(folder / "01_first.ipynb", "1 · The **first** one", code)
    notebook(tmp_path / "notebooks" / "02_second.ipynb", "2 · Second", "pass")
    notebook(folder / "02_second.ipynb", "2 · Second", "pass", error=("ValueError", "too <b>small</b>\nsecond line"))
    notebook(tmp_path / "notebooks" / "03_third.ipynb", "3 · Third", "pass")
    for name, colour in (("01_ant", "red"), ("01_bee", "green"), ("01_zebra", "blue")):
        picture(folder / f"{name}.png", colour, {"01_ant": "An ant <script>alert(1)</script> & more"}.get(name))
    (folder / "01_sizes.csv").write_text('what,"value, in <i>m</i>"\nlength,63.777777777777778\n')
    (folder / "01_sizes.md").write_text("# **Sizes** of things (preset quick)\n\n| a |\n")
    (folder / "01_sizes_runs.csv").write_text("secret\nof every run\n")
    (folder / "01_claims.csv").write_text(CLAIMS)
    (folder / "02_claims.csv").write_text(OLD_CLAIMS)
    record(runs_folder, "search-1", "search", 5400.0, "2026-01-02T00:00:00Z", "older")
    record(runs_folder, "search-2", "search", 1800.0, "2026-01-03T00:00:00Z", "newest")
    record(runs_folder, "train-1", "train", 360.0, "2026-01-01T00:00:00Z", "oldest")
    record(runs_folder, "train-2", "train", 7200.0, "2026-02-01T00:00:00Z", "of another preset")
    (folder / "01_runs.txt").write_text("search-1\nsearch-2\nsearch-1\n")
    (folder / "02_runs.txt").write_text("train-1\nsearch-1\n")
    return folder


def built(preset: str = "quick", published: str | None = None) -> tuple[str, Page]:
    text = report.build(Output(preset), published).read_text()
    return text, Page(text)


def embedded(page: Page) -> list[bytes]:
    return [b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in page.all("img")]


def test_every_figure_is_embedded_in_the_notebooks_order(house):
    _, page = built()
    assert embedded(page) == [(house / f"01_{name}.png").read_bytes() for name in ("zebra", "ant", "bee")]
    assert [image["alt"] for image in page.all("img")] == ["zebra", "ant", "bee"]
    assert [image["aria-describedby"] for image in page.all("img")][1] == "01_ant-caption"
    assert page.text.count("An ant <script>") == 1
    assert {image["width"] for image in page.all("img")} == {"19"}  # 40 pixels at 200 an inch


def test_page_needs_nothing_from_outside(house):
    text, page = built()
    assert (
        page.all("script") == page.all("link") == page.all("iframe") == []
        and "@import" not in text
        and "url(" not in text
    )
    references = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert references and all(value.startswith(("#", "data:image/png;base64,")) for value in references)
    places = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert {value[1:] for value in references if value.startswith("#")} <= set(places) and len(places) == len(
        set(places)
    )
    assert {"#notebook-01", "#notebook-02", "#notebook-03"} <= set(references)


def test_markup_in_captions_tables_and_errors_is_escaped(house):
    text, page = built()
    assert "An ant <script>alert(1)</script> & more" in page.text and "<script" not in text
    assert "value, in <i>m</i>" in page.text and "<i>" not in text
    assert "ValueError: too <b>small</b>" in page.text and "<b>" not in text


def test_captions_and_numbers_of_tables(house):
    text, page = built()
    assert "<caption>Sizes of things (preset quick)</caption>" in text
    assert "63.778" in page.text and "63.7777" not in page.text
    assert "of every run" not in page.text


def test_figure_stands_before_the_table_of_its_name_and_a_caption_once(house):
    for name in ("01_zebra", "01_ant"):
        (house / f"{name}.csv").write_text("params_M,params_M measured,n\n1,2,3\n")
    (house / "01_ant.md").write_text("**An ant <script>alert(1)</script> & more**\n")
    (house / "01_zebra.md").write_text("**Stripes. Preset quick**\n")
    text, page = built()
    places = [attributes["id"] for name, attributes in page.tags if attributes.get("class") == "part"]
    assert places == ["01_zebra", "01_ant", "01_bee", "01_sizes"]
    part = text[text.index('id="01_ant"') : text.index('id="01_bee"')]
    assert part.index("<figure>") < part.index("<table>") and "<caption>In numbers</caption>" in part
    assert page.text.count("An ant") == 1 and "<caption>Stripes. Preset quick</caption>" in text
    assert "parameters (M) parameters (M), measured n" in page.text and "params_M" not in text


def test_caption_in_a_figure_is_cut_off_where_the_page_says_it(house):
    """What `plots.save` draws below a figure; everything above stays as it was."""
    figure, axes = plt.subplots(figsize=(3, 1.5))
    axes.set(xlabel="what is measured", facecolor="red")
    plots.save(figure, "01_zebra", Output("quick"), "Words of a caption that needs several lines, " * 3)
    with Image.open(house / "01_zebra.png") as whole, Image.open(BytesIO(embedded(built()[1])[0])) as shown:
        assert shown.width == whole.width and 0.6 * whole.height < shown.height < 0.95 * whole.height
        grey, rest = (np.asarray(image.convert("L")) for image in (shown, whole))
    assert (grey == rest[: len(grey)]).all() and (grey[-3:] > 250).all()
    below = rest[len(grey) :]
    assert (below < 128).any() and (rest[len(grey) - 3 : len(grey) + 1] > 250).all()  # no letter is cut


def test_ledger_counts_the_verdicts_after_holm(house):
    """Alone, three of the four are decided; 0.04 is too much beside three others."""
    _, page = built()
    assert "✓ 1 seen" in page.text and "✗ 1 contradicted" in page.text and "? 3 undecided" in page.text
    assert "lower is better points ? undecided alone: seen 1.0 0.1 to 1.9 above 0 0.9 0.04 0.08" in page.text
    assert "4 claims were tested; alone, 3 of them are decided, and about 0.2 would be by chance" in page.text
    assert "Note: a note" in page.text


def test_every_number_of_the_ledger_leads_to_its_source_and_its_runs(house):
    (house / "01_claims.csv").write_text(CLAIMS.replace("longer is better,4.3", 'longer is better,"4.3, Table 3a"'))
    (house / "01_table3a.csv").write_text("a\n1\n")
    text, page = built()
    rows = re.findall(r'<tr id="claim-\d">(.*?)</tr>', text, re.DOTALL)
    links = [re.findall(r'href="#([^"]+)"', row) for row in rows]
    assert links == [["notebook-01", "01_table3a"], *[["notebook-01"] * 2] * 3, ["notebook-02"] * 2]
    assert {"claim-1", "claim-5", "01_table3a"} <= {attributes.get("id") for _, attributes in page.tags}
    assert "<details><summary>2</summary>run-1, run-2. Shares some with: wider</details>" in rows[0]
    assert "4.3, Table 3a" in rows[0] and "run-" not in rows[4]


def test_ledger_of_before_decides_nothing_and_is_named(house):
    _, page = built()
    assert "an older claim ? undecided 7.69 1.25 to 14.14 –" in page.text
    assert "02_claims.csv has no column 'alone'" in page.text and "01_claims.csv has no column" not in page.text


def test_ledger_is_written_beside_the_report(house):
    built()
    table = pd.read_csv(house / "ledger.csv", keep_default_na=False).set_index("claim")
    assert table.loc["lower is better", ["alone", "p, Holm", "verdict"]].tolist() == ["seen", "0.08", "undecided"]
    assert table["shares runs with"].tolist() == ["wider", "longer", "", "", ""]
    assert table.loc["longer is better", "runs"] == "run-1 run-2" and table["notebook"].tolist() == [1, 1, 1, 1, 2]
    text = (house / "ledger.md").read_text()
    assert "| longer is better" in text and "run-1" not in text


def test_what_is_missing_or_failed_is_said(house):
    (house / "01_bee.png").write_bytes((house / "01_bee.png").read_bytes()[:60])
    (house / "01_sizes.csv").write_bytes(b"")
    _, page = built()
    assert "This notebook failed: ValueError: too <b>small</b>." in page.text and "second line" not in page.text
    assert "3 · Third This notebook has not been executed at this preset" in page.text
    assert "01_bee.png cannot be read" in page.text and "01_sizes.csv cannot be read" in page.text
    assert len(page.all("img")) == 2
    notebook(house / "02_second.ipynb", "2 · Second", "pass", ended=None)
    assert "This notebook was stopped before its end." in built()[1].text


def test_cost_and_environment_are_of_the_records_that_the_notebooks_used(house, runs_folder):
    _, page = built()
    assert "searches 2 2.00 2:00:00 cpu trainings 1 0.10 6:00 cpu all 3 2.10 2:06:00 cpu" in page.text
    assert (
        "Newest run 2026-01-03T00:00:00Z Git commit of the runs older (1 run), newest (1 run), oldest (1 run)"
        in page.text
        and "machine of search-2" in page.text
        and "machine of search-1" not in page.text
    )
    (runs_folder / "search-2" / "record.json").write_text("{")
    _, page = built()
    assert (
        "cannot be read: search-2." in page.text
        and "searches 1 1.50" in page.text
        and "runs older (1 run)" in page.text
    )


def test_store_without_runs_is_said(house, monkeypatch, tmp_path):
    monkeypatch.setenv("SSWP_RUNS", str(tmp_path / "elsewhere"))
    _, page = built()
    assert "no longer in the run store or cannot be read: search-1, search-2, train-1." in page.text
    for path in house.glob("*_runs.txt"):
        path.unlink()
    _, page = built()
    assert page.text.count("have not noted which runs they were given") == 2
    assert "Git commit of the runs unknown" in page.text


def test_published_page_says_from_where(house):
    assert "Published from" not in built()[1].text
    assert "Published from 0123abc" in built(published="0123abc")[1].text


def test_page_says_what_differs_from_the_preset(house, tmp_path):
    where = Output("quick", ("train.shift=0",))
    notebook(where.folder / "01_first.ipynb", "1 · First", "pass")
    text = report.build(where).read_text()
    assert "<dt>Preset</dt><dd>quick with train.shift=0</dd>" in text and where.folder != house


def test_small_presets_say_so(house, tmp_path):
    sentence = "Numbers at preset quick are the method's at that size, not the paper's."
    assert sentence in built()[1].text
    notebook(tmp_path / "figures" / "own" / "cifar" / "01_first.ipynb", "1 · First", "pass")
    _, page = built("cifar")
    assert (
        "not the paper's" not in page.text and "Data cifar10" in page.text and "No claim has been measured" in page.text
    )


def test_wrong_or_empty_preset_is_refused(house):
    with pytest.raises(InputError, match="did you mean 'quick'"):
        report.build(Output("quik"))
    with pytest.raises(InputError, match="no notebook has been executed at preset 'paper'"):
        report.build(Output("paper"))
