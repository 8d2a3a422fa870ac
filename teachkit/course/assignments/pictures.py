"""Pictures in the text of cells: attached to the cell, written out in it as data, or links to files elsewhere."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Mapping
from typing import Any
from urllib.parse import quote, unquote

from nbformat import NotebookNode

__all__ = ["attached", "linked", "taken_out", "told"]

SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")  # by browsers
LINK = re.compile(r"attachment:(?P<name>[^)>\"'\]\s]+)|data:(?P<kind>image/[\w.+-]+);base64,(?P<data>[\w+/=]+)")


def attached(cell: NotebookNode, text: str) -> tuple[NotebookNode, list[str]]:
    """The attachments of a cell that a text refers to, and names that it refers to in vain."""
    bundles = cell.get("attachments") or {}
    names = {unquote(link["name"]) for link in LINK.finditer(_linked_plainly(bundles, text)) if link["name"]}
    kept = NotebookNode({name: bundle for name, bundle in bundles.items() if name in names})
    return kept, sorted(names - set(kept))


def linked(text: str) -> list[str]:
    """Links of the pictures that a text shows and that are not in the notebook: files beside it, or addresses."""
    found = re.findall(r"!\[[^\]]{0,999}\]\(\s*<?([^)>\s]+)", text)
    found += re.findall(r"<img\b[^>]{0,999}?\bsrc\s*=\s*[\"']?([^\"'>\s]+)", text)
    return [unquote(link) for link in found if not re.match(r"attachment:|data:|\[", link)]


def told(cell: NotebookNode, pictures: dict[str, str], given: Container[str] = ()) -> tuple[str, list[str]]:
    """The text of a cell with its pictures named, and remarks on those that nobody will see.

    Parameters
    ----------
    cell : NotebookNode
        Of text.
    pictures : dict
        Gets a name, which stands in the text, and a data address for every picture.
    given : container of str
        Links that were handed out.
    """
    bundles, remarks = cell.get("attachments") or {}, list[str]()

    def name(link: re.Match[str]) -> str:
        file = unquote(link["name"] or "")
        bundle = bundles.get(file, {}) if file else {link["kind"]: link["data"]}
        if label := taken_out(bundle, file or "pasted", pictures):
            return f"[{label}]"
        remarks.append(f"the picture {file or link['kind']} is not in the notebook, or of a kind that cannot be shown")
        return f"[missing picture: {file or link['kind']}]"

    text = LINK.sub(name, _linked_plainly(bundles, cell.source))
    text = re.sub(r"!\[[^\]]{0,999}\]\(\s*<?(\[(?:picture \d+|missing picture): [^\]]*\])>?[^)]{0,999}\)", r"\1", text)
    lost = [link for link in linked(text) if link not in given]
    return text, remarks + [f"the picture {link} is a link to what is not in the notebook" for link in lost]


def taken_out(bundle: Mapping[str, Any], file: str, pictures: dict[str, str]) -> str:
    """The name under which ``pictures`` now holds a picture, given in several formats; empty if there is none to show.

    It holds a short hash of the picture, so that the text changes if another is put in its place.
    """
    for kind in SHOWN:
        data = bundle.get(kind, "")
        data = re.sub(r"\s", "", data) if isinstance(data, str) else ""
        if re.fullmatch(r"[\w+/=]+", data):
            address = f"data:{kind};base64,{data}"
            known = next((label for label, other in pictures.items() if other == address), "")
            tag = hashlib.sha256(address.encode()).hexdigest()[:8]
            plain = re.sub(r"[][()<>]", "_", file)
            label = known or f"picture {len(pictures) + 1}: {plain}, {tag}, on the feedback page"
            pictures[label] = address
            return label
    return ""


def _linked_plainly(bundles: Mapping[str, Any], text: str) -> str:
    """The text with names of attachments, in which programs leave spaces and brackets as they are, spelt with %."""
    for file in sorted(bundles, key=len, reverse=True):
        for spelt in (file, file.replace(" ", "%20")):
            text = text.replace(f"attachment:{spelt}", f"attachment:{quote(file, safe='')}")
    return text
