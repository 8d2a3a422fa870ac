"""How long a lesson takes, reckoned from what it holds; nobody's time was taken.

Only the first speed was measured, by others: adults read 238 words of plain English prose a minute (M. Brysbaert, How
many words do we read per minute? Journal of Memory and Language 109, 2019). All others are assumed. Running is left
out: the cells of a lesson take less than 90 s together. ``tools/renumber.py`` writes the times where they are stated.
"""

from __future__ import annotations

import re
from typing import Any

SECONDS = {
    "word": 60 / 238,
    "formula in the text": 2,
    "displayed formula": 30,
    "line of code that is not folded": 4,
    "picture": 30,
    "prediction": 60,
    "explorer": 120,
    "exercise": 300,
}


def minutes(notebook: dict[str, Any]) -> int:
    """Minutes for a lesson, to the nearest five."""
    found = count(notebook)
    return 5 * round(sum(SECONDS[kind] * number for kind, number in found.items()) / 300)


def count(notebook: dict[str, Any]) -> dict[str, int]:
    """What a lesson holds, by the kinds in `SECONDS`."""
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"]]
    text = "\n".join(source for cell, source in cells if cell["cell_type"] == "markdown")
    code = [(cell, source) for cell, source in cells if cell["cell_type"] == "code"]
    shown = [source for cell, source in code if not cell["metadata"].get("jupyter", {}).get("source_hidden")]
    displayed, rest = re.subn(r"\$\$.*?\$\$", " ", text, flags=re.S)[::-1]
    inside, rest = re.subn(r"\$[^$]*\$", " ", rest)[::-1]
    rest = re.sub(r"</?[a-zA-Z][^<>]*>|\]\([^)]*\)", " ", rest)  # tags, and where links lead
    return {
        "word": len(re.findall(r"\w[\w’'-]*", rest)),
        "formula in the text": inside,
        "displayed formula": displayed,
        "line of code that is not folded": sum(bool(line.strip()) for source in shown for line in source.splitlines()),
        "picture": sum("image/png" in output.get("data", {}) for cell, _ in code for output in cell["outputs"]),
        "prediction": sum("widgets.predict(" in source for _, source in code),
        "explorer": sum(bool(re.search(r"widgets\.(?!predict)\w+\(", source)) for _, source in code),
        "exercise": sum("exercise" in cell["metadata"].get("tags", []) for cell, _ in code),
    }


def stated() -> str:
    """The speeds in a sentence."""
    others = [f"{seconds} s for a{'n' * (kind[0] in 'aeiou')} {kind}" for kind, seconds in list(SECONDS.items())[1:]]
    return f"{60 / SECONDS['word']:.0f} words a minute, and, assumed, {', '.join(others[:-1])} and {others[-1]}"
