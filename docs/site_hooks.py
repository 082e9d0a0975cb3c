"""Hooks of MkDocs, named in mkdocs.yml: pages generated from the code, and links to files that are not on the site."""

from __future__ import annotations

import re
from posixpath import join, normpath
from typing import Any

import reference_pages
from mkdocs.structure.files import File, Files

_LINK = re.compile(r"\[([^\]\n]+)\]\(((?:\.\./)+[^)#\s]+|pictures/)(?:#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages of the reference that are generated from the code."""
    for uri, text in reference_pages.pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Return the page with links to files of the repository outside of docs/ as plain text."""
    folder = page.file.src_uri.rpartition("/")[0]

    def replace(link: re.Match[str]) -> str:
        path = normpath(join(folder, link[2]))
        return link[1] if path.startswith("..") or path == "pictures" else link[0]

    return _LINK.sub(replace, markdown)
