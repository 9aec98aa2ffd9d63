"""The report of what was reproduced: one HTML file with every claim, table and figure of the executed notebooks in one
folder, and what they cost.

It needs nothing beside itself: figures are embedded, there is no script, and nothing is fetched. What is missing or
cannot be read is said in it.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from sswp_lib.config import InputError, home
from sswp_lib.paper.claims import gathered
from sswp_lib.paper.effects import ALPHA
from sswp_lib.paper.output import Output
from sswp_lib.paper.tables import save, words
from sswp_lib.presets import load_config
from sswp_lib.runs import files, records
from sswp_lib.runs.progress import duration
from sswp_lib.runs.records import Record
from sswp_lib.show import plots
from sswp_lib.show.forest import forest, picture
from sswp_lib.show.plots import CAPTION_FROM

SMALL = ("smoke", "quick")  # presets whose numbers are not the paper's
MARKS = {"seen": "✓", "contradicted": "✗", "undecided": "?", "not testable": "–"}
SHAPES = {  # of a verdict on a plot, about its middle; told apart without colours
    "seen": "M-5,0a5,5 0 1 0 10,0a5,5 0 1 0 -10,0Z", "contradicted": "M-6,0L0,-6L6,0L0,6Z",
    "undecided": "M-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0Z", "not testable": "M-4,-4H4V4H-4Z",
}  # fmt: skip
PICTURE = (  # its caption
    "All claims, judged together: effects with their 95 % intervals. The upright line is the bound beyond which a "
    "whole interval must lie, on the shaded side, for a claim to be seen; an arrowhead is where it leaves the scale"
)
JUDGED = ("verdict", "p, Holm", "notebook")  # columns that a notebook's own ledger cannot have
LEDGER = (
    *("claim", "verdict", "alone", "mean", "low", "high", "seen where", "resolution", "p", "p, Holm", "n", "unit"),
    *("searches", "paper", "section", "note", "key", "shares runs with", "measure", "preset", "notebook", "runs"),
)  # what matters most at the left: pages may be narrow
KINDS = {
    "search": "searches",
    "train": "trainings",
    "memory": "measurements of memory",
    "norms": "measurements of weights",
    "neighbours": "measurements of features",
}
RESOLUTION = 200  # pixels an inch of a figure that does not say


def executed(output: Output) -> list[Path]:
    """Return the executed notebooks in order."""
    return sorted(output.folder.glob("[0-9]*.ipynb"))


def runs_file(notebook: Path) -> Path:
    """Return the file beside an executed notebook that names the runs it was given; see `records.note_use`."""
    return notebook.with_name(f"{_number(notebook.stem)}_runs.txt")


def build(output: Output, published: str | None = None) -> Path:
    """Write index.html into the output's folder; returns its path.

    Args:
        published: the git commit from which it is published, if it is.

    Raises:
        InputError: an unknown preset, or no notebook has been executed there.
    """
    own = load_config(output.preset).data.name
    if not executed(output):
        raise InputError(
            f"no notebook has been executed at preset {output.label!r}; start with: sswp reproduce --preset "
            f"{output.preset}"
        )
    found, missing = used_runs(output)
    newest = max(found, key=lambda r: str(r.provenance.get("finished", "")), default=None)
    sections = [section(stem, output, own) for stem in _stems(output)]
    content = {
        "preset": output.label, "small": output.preset in SMALL,
        "data": sorted({s["data"] for s in sections if s["data"]}), "newest": newest.provenance if newest else {},
        "commits": Counter(str(r.provenance.get("commit") or "unknown") for r in found), "published": published,
        "ledger": ledger(output), "sections": sections, "cost": cost(found), "missing": missing,
        "marks": MARKS, "shapes": SHAPES,
    }  # fmt: skip
    path = output.folder / "index.html"
    files.write(path, environment().get_template("report.html").render(content).encode())
    return path


def environment() -> Environment:
    """Return what fills in the page's templates."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "is_number": is_number, "is_spread": is_spread, "words": words}
    return made


def _stems(output: Output) -> list[str]:
    """Return the notebooks' names in order: the project's, and executed ones of a number that it no longer has."""
    own = [path.stem for path in (home() / "notebooks").glob("[0-9]*.ipynb")]
    numbers = {_number(stem) for stem in own}
    return sorted([*own, *(path.stem for path in executed(output) if _number(path.stem) not in numbers)])


def _number(stem: str) -> str:
    return stem.partition("_")[0]


def section(stem: str, output: Output, own_data: str) -> dict[str, Any]:
    """Return what the report shows of a notebook: title, how it was executed, its figures and tables in the order in
    which it makes them, and what could not be read.
    """
    folder, number = output.folder, _number(stem)
    done, source = read_notebook(folder / f"{stem}.ipynb"), read_notebook(home() / "notebooks" / f"{stem}.ipynb")
    how, notes = done.get("metadata", {}).get("papermill", {}), []
    parts = [part(folder / name, notes) for name in in_order(shown_of(folder, number), _code(source) or _code(done))]
    return {
        "number": number, "title": heading(done) or heading(source) or stem, "problem": problem(done), "notes": notes,
        "data": (how.get("parameters", {}).get("data") or own_data) if done else None,
        "settings": how.get("parameters", {}).get("settings") or [],
        "when": (how.get("end_time") or "")[:16].replace("T", " "),
        "took": duration(how["duration"]) if how.get("duration") else None,
        "parts": [p for p in parts if p["figure"] or p["table"]],
    }  # fmt: skip


def shown_of(folder: Path, number: str) -> set[str]:
    """Return the names, without endings, of the figures and tables of a notebook that the report shows."""
    return {
        path.stem
        for path in folder.glob(f"{number}_*")
        if path.suffix == ".png" or (path.suffix == ".csv" and not path.stem.endswith(("_claims", "_runs")))
    }


def read_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook as plain data; empty where there is none or it cannot be read."""
    try:
        plain = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _text(notebook: dict[str, Any], kind: str) -> str:
    return "\n".join("".join(cell["source"]) for cell in notebook.get("cells", []) if cell["cell_type"] == kind)


def _code(notebook: dict[str, Any]) -> str:
    return _text(notebook, "code")


def heading(notebook: dict[str, Any]) -> str | None:
    """Return a notebook's first heading as plain text."""
    found = re.search(r"^#+\s+(.+)$", _text(notebook, "markdown"), re.MULTILINE)
    return _plain(found[1]) if found else None


def _plain(line: str) -> str:
    return re.sub(r"^#+\s*|\*\*|`", "", line.strip()).strip()


def last_error(notebook: dict[str, Any]) -> str | None:
    """Return the last error of an executed notebook in one line: its name and the first line of what it says."""
    outputs = [
        output
        for cell in notebook.get("cells", [])
        for output in cell.get("outputs", [])
        if output.get("output_type") == "error"
    ]
    if not outputs:
        return None
    said = (outputs[-1]["evalue"].strip().splitlines() or [""])[0][:200]
    return f"{outputs[-1]['ename']}: {said}" if said else outputs[-1]["ename"]


def problem(done: dict[str, Any]) -> str | None:
    """Return why an executed notebook is not whole; None where it is."""
    if not done:
        return "This notebook has not been executed at this preset; what stands here is from earlier, if anything."
    error = last_error(done)
    if error:
        return f"This notebook failed: {error}. What stands here is what it left until then, or from earlier."
    how = done.get("metadata", {}).get("papermill")
    return (
        "This notebook was stopped before its end. What stands here is what it left until then, or from earlier."
        if how and not how.get("end_time")
        else None
    )


def in_order(names: set[str], source: str) -> list[str]:
    """Return names in the order in which they first appear in a notebook's source; then the others."""
    places = {name: re.search(rf"\b{re.escape(name)}\b", source) for name in sorted(names)}
    return sorted(places, key=lambda name: places[name].start() if places[name] else len(source))


def part(path: Path, notes: list[str]) -> dict[str, Any]:
    """Return the figure and the table of a name; of two with the same caption it is said once.

    Args:
        path: without ending.
    """
    png, csv = path.with_suffix(".png"), path.with_suffix(".csv")
    drawn = figure(png, notes) if png.is_file() else None
    listed = table(csv, notes) if csv.is_file() else None
    if drawn and listed and drawn["caption"].rstrip(".") == listed["caption"].rstrip("."):
        listed["caption"] = "In numbers"
    return {"name": path.name, "figure": drawn, "table": listed}


def _read_csv(path: Path, notes: list[str]) -> pd.DataFrame | None:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({files.reason(error)}); left out.")
    return None


def table(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return a table with its caption: the first line of the Markdown file of the same name, else the name."""
    found, beside = _read_csv(path, notes), path.with_suffix(".md")
    lines = beside.read_text(errors="replace").strip().splitlines() if beside.is_file() else []
    return (
        None
        if found is None
        else {
            "caption": _plain(lines[0]) if lines else _name(path),
            "columns": list(found.columns),
            "rows": found.to_numpy().tolist(),
        }
    )


def _name(path: Path) -> str:
    return path.stem.partition("_")[2].replace("_", " ")


def figure(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """Return a figure as base64, with its caption (the PNG's text "Description") and its width on a page. The caption
    that is drawn below it is cut off: the page says it in letters that every screen shows.
    """
    try:
        with Image.open(path) as image:
            image.load()  # or a cut file would pass
            caption, width = image.info.get("Description", "").strip(), image.width
            dpi, share = image.info.get("dpi", (RESOLUTION,))[0], float(image.info.get(CAPTION_FROM, 1))
            content = path.read_bytes() if share == 1 else _top(image, share)
    except (OSError, SyntaxError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({files.reason(error)}); left out.".replace(str(path), path.name))
        return None
    return {
        "caption": caption,
        "alt": _name(path),
        "width": round(96 * width / (dpi or RESOLUTION)),
        "content": b64encode(content).decode(),
    }


def _top(image: Image.Image, share: float) -> bytes:
    """Return the upper part of an image, as a PNG."""
    content = BytesIO()
    image.crop((0, 0, image.width, max(1, int(share * image.height)))).save(content, "PNG", optimize=True)
    return content.getvalue()


def ledger(output: Output) -> dict[str, Any]:
    """Gather all notebooks' claims, judged together, and write them as ledger.csv and the like; returns what the report
    shows of them: rows, plots, how many have which verdict, how many were tested, and what could not be read.
    """
    notes: list[str] = []
    parts = {path: _read_csv(path, notes) for path in sorted(output.folder.glob("[0-9]*_claims.csv"))}
    whole = {path: part for path, part in parts.items() if part is not None}
    if not whole:
        return {"rows": [], "notes": notes}
    for path, part in whole.items():
        lacking = [name for name in LEDGER if name not in (*part, *JUDGED)]
        if lacking:
            notes.append(f"{path.name} has no column {', '.join(map(repr, lacking))}; execute the notebook again.")
    found = gathered(pd.concat([part.assign(notebook=_number(p.stem)) for p, part in whole.items()], ignore_index=True))
    found = found[[name for name in LEDGER if name in found]]
    found.attrs["not shown"] = ["runs"]
    save(found, "ledger", output, "All claims, judged together")
    tested = int(found["p, Holm"].notna().sum())
    rows = found.reindex(columns=LEDGER).astype(object).fillna("").to_dict("records")
    for number, row in enumerate(rows, start=1):
        row |= {"id": f"claim-{number}", "source": source_of(row, shown_of(output.folder, row["notebook"]))}
    groups = forest(rows)
    with plt.rc_context():
        plots.set_style()
        plots.save(picture(groups), "ledger", output, PICTURE)
    return {
        "rows": rows,
        "groups": groups,
        "counts": dict.fromkeys(MARKS, 0) | Counter(found["verdict"]),
        "tested": tested,
        "alone": int(found["alone"].isin(["seen", "contradicted"]).sum()),
        "chance": f"{ALPHA * tested:.1f}",
        "notes": notes,
    }


def source_of(row: dict[str, Any], names: set[str]) -> str:
    """Return where in the page a claim's effect comes from: the table or figure of its paper that its section ends
    with, where the notebook has one of that name, else the notebook's section.
    """
    found = re.search(r"\b(Table|Figure) (\w+)$", str(row["section"]))
    name = f"{row['notebook']}_{found[1].lower()}{found[2]}" if found else ""
    return name if name in names else f"notebook-{row['notebook']}"


def used_runs(output: Output) -> tuple[list[Record], list[str]]:
    """Return the records that the executed notebooks were given, each once, and the names of those that are not there
    or cannot be read.
    """
    names = {name for path in executed(output) for name in records.used(runs_file(path))}
    found, missing = [], []
    for name in sorted(names):
        try:
            found.append(records.read(records.root() / name / "record.json"))
        except InputError:
            missing.append(name)
    return found, missing


def cost(found: list[Record]) -> list[dict[str, Any]]:
    """Return for each kind of run, and for all, how many there are and the hours that their devices were at them."""
    kinds = [kind for kind in KINDS if any(r.kind == kind for r in found)] + sorted(
        {r.kind for r in found} - set(KINDS)
    )
    rows = []
    for name, part in [
        *((KINDS.get(kind, kind), [r for r in found if r.kind == kind]) for kind in kinds),
        ("all", found),
    ]:
        seconds = sum(float(r.provenance.get("seconds", 0)) for r in part)
        devices = sorted({str(r.provenance.get("device", "unknown")) for r in part})
        rows.append(
            {
                "kind": name,
                "runs": len(part),
                "hours": f"{seconds / 3600:.2f}",
                "time": duration(seconds),
                "devices": ", ".join(devices),
            }
        )
    return rows if found else []


def is_number(text: str) -> bool:
    """Tell whether a cell of a table is to be aligned as a number."""
    return bool(re.fullmatch(r"[-+−]?\d+(\.\d+)?(e[-+]?\d+)?( ?%)?", str(text).strip()))


def is_spread(text: str) -> bool:
    """Tell whether a cell is a number and its spread or interval: "67.67 ± 6.83 (6)", "0.60 [0.46, 0.73]"."""
    return bool(re.match(r"[-+−]?\d+(\.\d+)? (±|\[)", str(text).strip()))


def shown(text: str) -> str:
    """Return a cell's text: numbers with many decimals are shortened, an empty cell is a dash."""
    text = str(text).strip()
    return f"{float(text):.5g}" if re.fullmatch(r"-?\d+\.\d{5,}(e[-+]?\d+)?", text) else text or "–"
