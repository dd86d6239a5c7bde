"""What surrounds the pages: static files, source pages, links to code."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

DEFAULT_URL = "https://github.com/executablebooks/jupyter-book"  # Jupyter Book's own default


def repository_url(config: Any) -> str:
    """The repository's address, "" until `make set-repo` has named one."""
    url = str(config.html_theme_options.get("repository_url") or "")
    return "" if url == DEFAULT_URL else url.rstrip("/").removesuffix(".git")


def source_url(builder: Any, path: str, first: int, last: int) -> str:
    """Where quoted code is shown whole: in the repository, else in a page of this site."""
    url = repository_url(builder.config)
    if url:
        branch = builder.config.html_theme_options.get("repository_branch") or "main"
        return f"{url}/blob/{branch}/{path}#L{first}-L{last}"
    page = "source/" + path.removesuffix(".py")
    return f"{builder.get_relative_uri(builder.current_docname, page)}#L{first}"


def setup(app: Sphinx) -> None:
    pass
