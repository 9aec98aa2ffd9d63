"""What git sees of a notebook: its cells, without outputs and without what JupyterLab writes beside them.

A clean filter (see .gitattributes; `make setup` switches it on), so that a notebook that was run and saved does not
show as changed. Needs nothing but Python, for git calls it at every look at a changed notebook; what it cannot read it
passes on as it is.
"""

import json
import sys
from typing import Any

KERNEL = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def stripped(content: bytes) -> bytes:
    """Return a notebook without outputs, counts and volatile metadata, in the form in which it is committed."""
    try:
        plain: dict[str, Any] = json.loads(content)
        for cell in plain["cells"]:
            cell["metadata"] = {k: v for k, v in cell["metadata"].items() if k == "tags"}
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        plain["metadata"] = KERNEL
        return (json.dumps(plain, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return content


if __name__ == "__main__":
    sys.stdout.buffer.write(stripped(sys.stdin.buffer.read()))
