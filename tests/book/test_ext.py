"""The book's extension: roles, directives, checks of the site, look; no browser, no labs run."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "book" / "figures")]
import build_page  # noqa: E402, F401 - importable without Sphinx
import check_site  # noqa: E402
import style  # noqa: E402
from infero_book import execution, explorers, landing, pages, pieces, plots  # noqa: E402
from infero_book import results as result_role  # noqa: E402

from infero import results  # noqa: E402
from infero.lab.pieces import LABS, PIECES  # noqa: E402

KEY = "gpu/limits/read_bandwidth"

# ---------------------------------------------------------------- {result}


def test_result_is_the_recorded_value() -> None:
    value = results.get(KEY)
    text, where = result_role.text_of(KEY)
    assert text == value.text
    assert value.device in where and value.date[:10] in where and f"n = {value.n}" in where


def test_result_in_a_unit_and_format() -> None:
    text, _ = result_role.text_of(f"{KEY} | TB/s | .2f")
    assert text == f"{results.get(KEY).value / 1e12:.2f}\N{NO-BREAK SPACE}TB/s"


def test_result_facts_about_the_run() -> None:
    assert result_role.text_of("gpu/limits/@device")[0] == results.get(KEY).device
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result_role.text_of("gpu/limits/@date")[0])
    with pytest.raises(ValueError, match="@weather"):
        result_role.text_of("gpu/limits/@weather")


def test_result_table_scales_and_chooses_columns() -> None:
    table = results.Table("k", [("batch", ""), ("time", "s"), ("share", "")],
                          [[1, 0.00125, 0.5], [2, 0.0025, None]], "card", "2026-01-01")  # fmt: skip
    heads, rows = result_role.cells_of(table, "batch, time | ms | .2f, share | % | .0f")
    assert heads == ["batch", "time (ms)", "share (%)"]
    assert rows == [["1", "1.25", "50"], ["2", "2.50", "–"]]
    assert result_role.cells_of(table, None)[0] == ["batch", "time (ms)", "share"]
    with pytest.raises(results.ResultMissing, match="colour"):
        result_role.cells_of(table, "colour")


# ---------------------------------------------------------------- {piece}


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_every_piece_can_be_shown(piece) -> None:
    found = pieces.source(piece.name)
    lines = (ROOT / found.path).read_text(encoding="utf-8").splitlines()
    assert f"def {piece.attribute}(" in lines[found.first - 1]
    shown, whole = ast.parse(found.code), pieces.source(piece.name, "full").code
    assert ast.get_docstring(shown.body[0]).count("\n") == 0
    assert whole == "\n".join(lines[found.first - 1 : found.last])
    without = pieces.source(piece.name, "none").code
    assert ast.get_docstring(ast.parse(without).body[0]) is None
    strip = lambda code: [ast.dump(n) for n in ast.parse(code).body[0].body[1:]]  # noqa: E731
    assert strip(found.code) == strip(whole)


def test_pieces_of_other_kinds(tmp_path: Path) -> None:
    package = tmp_path / "infero"
    package.mkdir()
    (package / "thing.py").write_text(
        'LIMIT = 3\n\n@wrap\n@more\nclass Box:\n    """One.\n\n    Two.\n    """\n\n'
        '    size: int = 1\n\n    def get(self):\n        """Only words."""\n'
    )
    assert pieces.source("infero.thing.LIMIT", root=tmp_path).code == "LIMIT = 3"
    box = pieces.source("infero.thing.Box", root=tmp_path)
    assert box.code.startswith("@wrap\n@more\nclass Box:") and "Two." not in box.code
    assert box.first == 3
    method = pieces.source("infero.thing.Box.get", "none", root=tmp_path)
    assert method.code == 'def get(self):\n    """Only words."""'
    for name in ("infero.thing.Nope", "infero.nothing.x", "infero.thing"):
        with pytest.raises(LookupError, match=name.rpartition(".")[2]):
            pieces.source(name, root=tmp_path)


# ---------------------------------------------------------------- a small book, built by Sphinx


def build(folder: Path, *pages_text: str, config: str = "") -> subprocess.CompletedProcess[str]:
    """Build a book of these pages with the extension alone."""
    folder.mkdir(exist_ok=True)
    (folder / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'book' / '_ext')!r})\n"
        'extensions = ["myst_nb", "infero_book"]\nproject = "t"\nroot_doc = "p0"\n'
        'html_theme = "basic"\n\n'
        f'myst_enable_extensions = ["dollarmath"]\nnumfig = True\n{config}\n'
    )
    for index, text in enumerate(pages_text):
        (folder / f"p{index}.md").write_text("# Page\n\n" + text + "\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-E", str(folder), str(folder / "out")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_a_small_book_builds(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        f"It reads {{result}}`{KEY}`.\n\n"
        "```{piece} infero.model.rms_norm\n```\n\n```{piece} infero.model.Batch\n```\n",
    )
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "out" / "p0.html").read_text()
    assert results.get(KEY).text in html and "measured:" in html
    folded = html[html.index("<details") : html.index("</details>")]
    assert "Lab 1, exercise 1" in folded and "rms_norm" in folded
    assert "infero.model.Batch" in html[html.index("</details>") :]
    assert 'href="source/infero/model.html#L-' in html
    source = (tmp_path / "out" / "source" / "infero" / "model.html").read_text()
    assert source.count('<span id="L-') > 100


def test_chapters_keep_their_numbers_where_others_are_missing(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir(parents=True)
    for number in ("01", "07"):
        (tmp_path / "book" / f"{number}_c.md").write_text(
            f"# C{number}\n\n```{{figure}} x.svg\n:name: f{number}\nFig\n```\n\n"
            f"See {{numref}}`f{number}`.\n")
    (tmp_path / "book" / "x.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    done = build(tmp_path, "```{toctree}\n:numbered: 1\nbook/01_c\nbook/07_c\n```")
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "out" / "book" / "07_c.html").read_text()
    assert "Fig. 7.1" in html and ">7. </span>C07" in html
    assert "Fig. 1.1" in (tmp_path / "out" / "book" / "01_c.html").read_text()
    assert ">7. C07<" in (tmp_path / "out" / "p0.html").read_text()


def test_missing_keys_stop_the_build_and_are_all_named(tmp_path: Path) -> None:
    done = build(
        tmp_path,
        "{result}`gpu/limits/warp_drive` and {result}`gpu/nothing/at_all`\n\n"
        "```{result-table} gpu/limits/no_table\n```\n\n```{piece} infero.model.no_piece\n```\n\n"
        "```{plot} no_plot\n:alt: none\n```\n\n```{explorer} no_explorer\n```\n",
    )
    assert done.returncode != 0
    for name in ("warp_drive", "at_all", "no_table", "no_piece", "no_plot", "no_explorer"):
        assert name in done.stderr
    assert "python -m benchmarks.limits" in done.stderr


def test_a_stale_schema_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "results"
    shutil.copytree(ROOT / "results", old)
    for path in old.glob("*/limits.json"):
        path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))
    monkeypatch.setenv("INFERO_RESULTS", str(old))
    done = build(tmp_path / "book", f"{{result}}`{KEY}`")
    assert done.returncode != 0 and "schema" in done.stderr


def test_a_plot_without_words_for_the_blind_stops_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, "```{plot} landing_decode\nA caption.\n```")
    assert done.returncode != 0 and ":alt:" in done.stderr


def test_in_a_draft_problems_are_warnings(tmp_path: Path) -> None:
    done = build(tmp_path, "{result}`gpu/limits/warp_drive`", config="infero_draft = True")
    assert done.returncode == 0 and "warp_drive" in done.stderr


# ---------------------------------------------------------------- figures


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours `#rrggbb`."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_figure_colours_can_be_seen(name: str) -> None:
    theme = style.theme(name)
    assert contrast(theme.ink, theme.page) >= 7
    assert contrast(theme.muted, theme.page) >= 4.5
    for color in (*theme.palette, theme.accent):
        assert contrast(color, theme.page) >= 3, color
    css = (ROOT / "book" / "_static" / "infero.css").read_text()
    assert name == "light" or f"--pst-color-background: {theme.page}" in css


def test_figures_are_drawn_twice_and_the_same_each_time(tmp_path: Path) -> None:
    program = tmp_path / "tiny.py"
    program.write_text(
        "def draw(theme):\n    figure, ax = theme.figure(3, 2)\n    ax.plot([1, 3, 2])\n"
        "    ax.set_title('t')\n    return figure\n"
    )
    once, again = plots.draw(program), plots.draw(program)
    assert set(once) == {"light", "dark"} and once["light"] != once["dark"]
    assert once == again
    assert style.LIGHT.palette[0] in once["light"] and style.DARK.palette[0] in once["dark"]


# ---------------------------------------------------------------- the landing page


def test_twenty_chapters_and_their_labs() -> None:
    rows = landing.chapters()
    assert [row.number for row in rows] == list(range(1, 21))
    assert all(row.stem.startswith(f"{row.number:02d}_") for row in rows)
    assert {row.band for row in rows} == set(landing.BANDS)
    stems = {row.stem: row.title for row in rows}
    for lab in LABS:
        assert stems.get(lab.stem) == lab.title
    listed = check_site.listed(ROOT / "_toc.yml")
    for page in listed:
        folder, _, stem = page.rpartition("/")
        if stem[:2].isdigit():
            assert folder in ("book", "labs") and stem in stems


def test_map_links_what_is_written_and_lists_the_rest_as_planned() -> None:
    def link(page: str) -> str:
        return "01.html" if page == "book/01_from_prompt_to_token" else ""

    drawing = landing.engine_map(link)
    assert drawing.count('href="01.html"') == 2  # a wide and a narrow drawing
    assert drawing.count("planned</title>") == 2 * 19
    text = landing.chapter_list(link)
    assert text.count("<li>") == 20 and text.count(">planned<") == 19


def test_every_chapter_in_the_toc_has_its_lab_beside_it() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            stem = chapter["file"].rpartition("/")[2]
            if stem[:2].isdigit():
                assert chapter["file"] == f"book/{stem}"
                sections = [section["file"] for section in chapter.get("sections", [])]
                assert sections == [f"labs/{stem}"]


# ---------------------------------------------------------------- repository and Colab


def config_with(folder: Path, block: str) -> Path:
    (folder / "_config.yml").write_text((ROOT / "_config.yml").read_text() + block)
    return folder


def test_no_repository_no_links(tmp_path: Path) -> None:
    assert pages.repository(config_with(tmp_path, "")) == {}


def test_repository_names_colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "\nrepository:\n  url: https://github.com/someone/book.git\n  branch: main\n"
    chosen = pages.repository(config_with(tmp_path, block))
    assert chosen == {"url": "https://github.com/someone/book", "branch": "main"}
    monkeypatch.setattr(pages, "repository", lambda: chosen)
    url = "https://colab.research.google.com/github/someone/book/blob/main/labs/01_x.ipynb"
    assert pages.colab_url("labs/01_x.ipynb") == url
    links = landing.lab_links(landing.chapters()[0], "../labs/x.html")
    assert "Open in Colab" in links
    elsewhere = {"url": "https://git.example/b", "branch": "m"}
    monkeypatch.setattr(pages, "repository", lambda: elsewhere)
    assert pages.colab_url("labs/01_x.ipynb") == ""


# ---------------------------------------------------------------- the cache's name


def test_state_changes_with_all_that_outputs_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("infero", "results", "labs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("1")
    (tmp_path / "requirements.txt").write_text("torch==1")

    def state() -> str:
        execution.tree_hash.cache_clear()
        return execution.state(tmp_path)

    seen = [state()]
    assert state() == seen[0]
    for path in ("infero/file", "results/file", "labs/file", "requirements.txt"):
        (tmp_path / path).write_text("2")
        seen.append(state())
    (tmp_path / "infero" / "file").rename(tmp_path / "infero" / "other")
    seen.append(state())
    monkeypatch.setenv("INFERO_MODEL", "another/model")
    seen.append(state())
    monkeypatch.setattr(execution, "MODE", "learn")
    seen.append(state())
    assert len(set(seen)) == len(seen)
    (tmp_path / "infero" / "__pycache__").mkdir()
    (tmp_path / "infero" / "__pycache__" / "x.pyc").write_text("compiled")
    assert state() == seen[-1]
    execution.tree_hash.cache_clear()


# ---------------------------------------------------------------- the checker of built sites


def fake_site(folder: Path) -> tuple[Path, Path]:
    site = folder / "html"
    for name in (*check_site.EXTRA, "book/index.html", "labs/01_x.html"):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        body = '<h1 id="top">T</h1><div class="cell_output">1</div>'
        path.write_text(body if name.endswith(".html") else "")
    toc = folder / "_toc.yml"
    toc.write_text("root: book/index\nparts:\n- chapters:\n  - file: labs/01_x.ipynb\n")
    return site, toc


def test_checker_accepts_a_whole_site(tmp_path: Path) -> None:
    assert check_site.problems(*fake_site(tmp_path)) == []


@pytest.mark.parametrize(
    "page, text, words",
    [
        ("labs/01_x.html", None, "is missing, though"),
        ("labs/01_x.html", "<h1>T</h1>", "no outputs"),
        ("labs/01_x.html", '<h1>T</h1>cell_output Traceback (most recent call last)', "traceback"),
        ("book/index.html", "<p>no title</p>", "no title"),
        ("book/index.html", '<h1>T</h1><script src="https://cdn.example/x.js"></script>', "host"),
        ("book/index.html", '<h1>T</h1><img src="gone.png">', "not in the site"),
        ("book/index.html", '<h1>T</h1><a href="gone.html">x</a>', "not in the site"),
        ("book/index.html", '<h1>T</h1><a href="../labs/01_x.html#nope">x</a>', "called nope"),
        ("book/index.html", '<h1>T</h1><span class="math notranslate">x</span>', "MathJax"),
        ("llms.txt", None, "llms.txt is missing"),
    ],
)
def test_checker_names_each_problem(
    tmp_path: Path, page: str, text: str | None, words: str
) -> None:
    site, toc = fake_site(tmp_path)
    if text is None:
        (site / page).unlink()
    else:
        (site / page).write_text(text)
    assert any(words in found for found in check_site.problems(site, toc))


def test_checker_of_no_site(tmp_path: Path) -> None:
    assert "make site" in check_site.problems(tmp_path / "none")[0]


# ---------------------------------------------------------------- what is shipped


def test_vendored_files_are_small_and_licensed() -> None:
    static = ROOT / "book" / "_static"
    sizes = {path: path.stat().st_size for path in static.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 3 * 2**20
    assert sum(size for path, size in sizes.items() if path.suffix == ".woff2") < 200 * 1024
    assert (static / "mathjax" / "LICENSE").is_file()
    assert len(list((static / "fonts").glob("LICENSE-*"))) == 2
    css = (static / "infero.css").read_text()
    assert "http://" not in css and "https://" not in css
    for name in re.findall(r'url\("([^"]+)"\)', css):
        assert (static / name).is_file()


def test_every_explorer_has_module_data_and_table() -> None:
    names = {path.stem for path in explorers.EXPLORERS.glob("*.py")}
    assert names >= {"roofline", "sampler"}
    for name in names:
        assert (explorers.EXPLORERS / f"{name}.js").is_file()
        text = (explorers.EXPLORERS / f"{name}.js").read_text()
        assert "http" not in text
