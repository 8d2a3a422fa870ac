"""What students write, as HTML: Markdown, with formulas as MathML, which browsers draw; no markup of theirs is run."""

from __future__ import annotations

import html
import re
from typing import Any
from xml.etree import ElementTree

import mistune
from latex2mathml.converter import convert_to_element

__all__ = ["formula", "rendered"]

LONGEST = 100_000  # characters that are read as Markdown: what takes long takes the square of it


class _Plain(mistune.HTMLRenderer):
    """Shows formulas, escapes markup, and fetches nothing from elsewhere."""

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return f"[picture elsewhere: {html.escape(url)}]"

    def inline_math(self, text: str) -> str:
        return formula(text, "inline")

    def block_math(self, text: str) -> str:
        return f"<p>{formula(text, 'block')}</p>"


def rendered(text: str) -> str:
    """Markdown as HTML.

    Examples
    --------
    >>> print(rendered("*Because* <b>of</b> it"))
    <p><em>Because</em> &lt;b&gt;of&lt;/b&gt; it</p>
    <BLANKLINE>
    """
    if len(text) > LONGEST:
        return f"<pre>{html.escape(text)}</pre>"
    text = re.sub(r"(?<!\n)\$\$(.+?)\$\$", r"$\1$", text)  # a display inside a line
    markdown = mistune.create_markdown(renderer=_Plain(escape=True), plugins=["math", "table", "strikethrough"])
    return str(markdown(text))


def formula(latex: str, display: str) -> str:
    """LaTeX as MathML; what cannot be read is shown as it is."""
    try:
        element: Any = convert_to_element(latex, display=display)
        for node in element.iter():
            if node.text:  # the converter writes entities, and would not escape them
                node.text = html.unescape(node.text)
        return ElementTree.tostring(element, "unicode")
    except Exception:
        return f"<code>{html.escape(latex)}</code>"
