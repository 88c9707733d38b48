"""Find the links of HTML pages and of Markdown files that lead nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from markdown import markdown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Page(HTMLParser):
    """The links and the anchors of one page; Markdown is rendered first."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        text = path.read_text()
        self.feed(text if path.suffix == ".html" else markdown(text, extensions=["fenced_code", "tables", "toc"]))

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"href", "src"} and value is not None:
                self.links.append(value)
            elif name in {"id", "name"} and value:
                self.anchors.add(value)


def broken_links(root: Path, paths: Iterable[Path]) -> list[str]:
    """List the links of these pages to files below `root`, or to anchors of them, that do not exist."""
    pages: dict[Path, Page] = {}

    def page(path: Path) -> Page:
        if path not in pages:
            pages[path] = Page(path)
        return pages[path]

    def target(path: Path, link: str) -> Path:
        found = (root / link.lstrip("/") if link.startswith("/") else path.parent / link) if link else path
        return found / "index.html" if found.is_dir() and path.suffix == ".html" else found

    broken = []
    for path in paths:
        for link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            found, anchor = target(path, unquote(parts.path)).resolve(), unquote(parts.fragment)
            has_anchors = found.suffix in {".html", ".md"} and found.is_file()
            if not found.exists() or (anchor and has_anchors and anchor not in page(found).anchors):
                broken.append(f"{path.relative_to(root)}: {link}")
    return broken
