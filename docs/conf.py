"""Configures the documentation site: Sphinx with MyST and furo, built by `make docs`, strict.

The source folder is the repository's root, so that links between docs/, CONTRIBUTING.md and the clients' pages are
links in the site, too. The navigation is the list of links in docs/index.md: each `##` section there is a group of
pages. Decisions (docs/adr) are all below their index. Nothing is loaded from another host.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_LINK = re.compile(r"^- \[([^\]]+)\]\(([^)#]+)\.md\)", re.MULTILINE)
_CODE = '<pre tabindex="0">'
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)

project = "flywheel_assets"
author = "the flywheel_assets team"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/adr/*.md",
    "docs/examples/README.md",
    "docs/howto/*.md",
    "docs/reference/*.md",
    "docs/tutorials/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "clients/*/README.md",
    "deploy/README.md",
]
# Folders that need not be walked for pages.
exclude_patterns = [".*", "site", "build", "flywheel_assets", "flywheel_assets_tests", "benchmarks", "**/node_modules"]
# Headings get GitHub's anchors, because readers there follow the same links.
myst_heading_anchors = 5
myst_links_external_new_tab = False
nitpicky = True
# "json" blocks may hold several lines of JSON, or a `…`; a colour less is no error.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
highlight_language = "none"
# A curly quotation mark or a dash made of `--to` cannot be pasted.
smartquotes = False

html_theme = "furo"
html_title = "flywheel_assets"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True, "sidebar_hide_name": False}


def list_groups(index: str) -> list[tuple[str, list[str]]]:
    """List the navigation: each section of the index with the pages that its list links to, as `words </page>`."""
    groups = []
    for caption, section in _SECTION.findall(index):
        pages = [f"{words} </{os.path.normpath(f'docs/{page}')}>" for words, page in _LINK.findall(section)]
        if pages:
            groups.append((caption, pages))
    return groups


def add_navigation(_: Sphinx, document: str, source: list[str]) -> None:
    """Append hidden tables of contents to the index and to the index of decisions, as GitHub's readers need none."""
    if document == root_doc:
        groups = list_groups(source[0])
    elif document == "docs/adr/README":
        groups = [("", sorted(f"/docs/adr/{path.stem}" for path in (HERE / "adr").glob("0*.md")))]
    else:
        return
    for caption, pages in groups:
        lines = [":hidden:", *([f":caption: {caption}"] if caption else []), "", *pages]
        source[0] += "\n\n```{toctree}\n" + "\n".join(lines) + "\n```\n"


def mend_accessibility(_: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Give the navigation's captions a level, and let keys reach code that scrolls sideways; axe-core asks for both."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = (
                context[part].replace('role="heading">', 'role="heading" aria-level="2">').replace("<pre>", _CODE)
            )


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the navigation."""
    app.connect("source-read", add_navigation)
    # After furo's own, which writes the navigation.
    app.connect("html-page-context", mend_accessibility, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
