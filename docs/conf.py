"""Settings of the course's site: Sphinx with myst-nb, offline. `make html` runs them (see tools/build_site.py)."""

import json
import re
from pathlib import Path
from xml.sax.saxutils import escape

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.addnodes import pending_xref

project = "teachkit"
author = "The teachkit authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
html_theme = "furo"
html_title = "teachkit"
html_copy_source = html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
highlight_language = "python"

# The stored outputs are shown: nothing runs.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 3
# A notebook may begin its text anywhere below its title.
suppress_warnings = ["myst.header"]

# The pages on functions: docstrings as they are, names in backticks as links.
default_role = "py:obj"
autosummary_generate = False
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100


def read_links(app) -> None:
    """Which entry a name leads to, written by tools/build_site.py."""
    app.env.links = json.loads(Path(app.srcdir, "api", "links.json").read_text())


def link_names(app, tree: nodes.document) -> None:
    """`geometry.deviation` and `sample` in the text of a page lead to their entries."""
    for literal in list(tree.findall(nodes.literal)):
        name = re.sub(r"\(.*\)$", "", literal.astext())
        if name in app.env.links and not isinstance(literal.parent, (nodes.reference, pending_xref)):
            link = pending_xref("", refdomain="py", reftype="obj", reftarget=app.env.links[name], refexplicit=True)
            literal.replace_self(link)
            link += literal


def find_short(app, env, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """A name in a docstring that is not in full: looked up among those that lessons use, then as a name beside it."""
    name = node.get("reftarget", "")
    beside = f"{node.get('py:module', '')}.{name}"
    full = env.links.get(name) or env.links.get(beside)
    if node.get("refdomain") != "py" or full is None:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)


def plain_text(app, what: str, name: str, value, options, lines: list[str]) -> None:
    """A docstring is written to be read as it stands; here it is made reStructuredText.

    The bars of |x| and the star of (B, *event) are no markup. What a module sets off by indenting it (a formula, a list
    in columns) stays as it is written.
    """
    for k in range(len(lines) - 1, -1, -1):
        if what == "module" and lines[k].startswith("    "):
            if k and not lines[k - 1].strip() and set_off(lines[: k - 1]):
                lines[k:k] = [".. code-block:: text", ""]
        elif not lines[k].lstrip().startswith((">>>", "...")):
            parts = re.split(r"(``.*?``)", lines[k])
            parts[::2] = [re.sub(r"\||(?<=[\s(])\*(?=\w+[),])", r"\\\g<0>", part) for part in parts[::2]]
            lines[k] = "".join(parts)


def set_off(above: list[str]) -> bool:
    """Whether the text above ends in a paragraph of its own, not in a list or an indented block."""
    last = next((line for line in reversed(above) if line.strip()), "")
    return bool(last) and not last.startswith((" ", "-", "*")) and not last.endswith("::")


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
    app.connect("builder-inited", read_links)
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", find_short)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before numpydoc
    app.registry.html_inline_math_renderers["mathml"] = (visit_math, None)
    app.registry.html_block_math_renderers["mathml"] = (visit_math_block, None)
    app.config.html_math_renderer = "mathml"
