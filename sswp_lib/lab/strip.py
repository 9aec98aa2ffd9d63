"""A notebook as it is committed: read from standard input, written to standard output, without what running it leaves.

Git and Jupyter call it where `make setup` has told them to (see .gitattributes), so that a notebook that was run and
saved does not show as changed. It imports nothing but the standard library: git calls it often.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def stripped(text: str) -> str:
    """Return a notebook's text without outputs, counts and metadata but tags, as Jupyter itself would save that; what
    is no notebook is returned as it is.
    """
    try:
        plain = json.loads(text)
        cells = [_cell(cell) for cell in plain["cells"]]
    except (ValueError, LookupError, TypeError, AttributeError):  # half written, or with the marks of a merge
        return text
    plain |= {"cells": cells, "metadata": METADATA}
    return json.dumps(plain, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _cell(cell: dict[str, Any]) -> dict[str, Any]:
    source = "".join(cell["source"]).splitlines(keepends=True)
    tags = {"tags": cell["metadata"]["tags"]} if cell["metadata"].get("tags") else {}
    bare = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
    return cell | {"source": source, "metadata": tags} | bare


def saved(os_path: str, **_: Any) -> None:
    """Jupyter's hook after saving: let git take note of a file in which nothing that it would commit has changed.

    Its status goes by the size of a file before it asks for the content; what did change stays as it is, not staged.
    """
    git = lambda *words: subprocess.run(  # noqa: E731
        ["git", *words, "--", os_path], cwd=os.path.dirname(os_path), capture_output=True, timeout=10
    )
    with suppress(OSError, subprocess.SubprocessError):  # no git, or a busy one: saving must not fail of it
        if git("diff", "--quiet").returncode == 0:
            git("add", "--update")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.write(stripped(sys.stdin.read()))
