"""Settings of the course's site: Sphinx with myst-nb, offline. `make html` runs them (see tools/build_site.py)."""

import re
from xml.sax.saxutils import escape

from docutils import nodes
from latex2mathml.converter import convert

project = "teachkit"
author = "The teachkit authors"
extensions = ["myst_nb"]
html_theme = "furo"
html_title = "teachkit"
html_copy_source = html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]
highlight_language = "python"

# The stored outputs are shown: nothing runs.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# A notebook may begin its text anywhere below its title.
suppress_warnings = ["myst.header"]


def mathml(latex: str, display: str) -> str:
    """Formulas as MathML, which browsers draw themselves: no script, no network. The LaTeX stays as a note."""
    latex = re.sub(r"\\label\{[^}]*\}", "", latex).strip()
    markup = convert(latex, display=display)
    note = f'<annotation encoding="application/x-tex">{escape(latex)}</annotation>'
    return re.sub(
        r"(<math[^>]*>)(.*)(</math>)", rf"\1<semantics>\2{note.replace(chr(92), chr(92) * 2)}</semantics>\3", markup
    )


def visit_math(self, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_math_block(self, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app) -> None:
    app.registry.html_inline_math_renderers["mathml"] = (visit_math, None)
    app.registry.html_block_math_renderers["mathml"] = (visit_math_block, None)
    app.config.html_math_renderer = "mathml"
