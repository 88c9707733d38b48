"""Every link of the built site, and of the Markdown files at the top of the repository, leads somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.site.links import broken_links

if TYPE_CHECKING:
    from pathlib import Path


def test_no_link_of_the_site_is_broken(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    assert broken_links(site, pages) == []


def test_no_link_of_the_repositorys_own_pages_is_broken(root: Path) -> None:
    assert broken_links(root, sorted(root.glob("*.md"))) == []


@pytest.mark.parametrize(
    "link", ["gone.html", "page.html#gone", "#gone", "/gone/", "folder/", "audit.py", "page.html?q=1#gone", "gone.png"]
)
def test_a_broken_link_is_found(tmp_path: Path, link: str) -> None:
    (tmp_path / "folder").mkdir()  # no index.html in it
    (tmp_path / "page.html").write_text('<h1 id="there">A page</h1>')
    attribute = "src" if link.endswith("png") else "href"
    (tmp_path / "index.html").write_text(f'<a href="page.html#there"></a><a {attribute}="{link}"></a>')
    assert broken_links(tmp_path, [tmp_path / "index.html"]) == [f"index.html: {link}"]


@pytest.mark.parametrize("link", ["docs/gone.md", "docs/page.md#gone", "gone"])
def test_a_broken_link_of_markdown_is_found(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("# A page\n")
    (tmp_path / "README.md").write_text(f"[one](docs/page.md#a-page), [two](docs), [three]({link})\n")
    assert broken_links(tmp_path, [tmp_path / "README.md"]) == [f"README.md: {link}"]
