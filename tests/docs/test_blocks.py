"""Every block of README and docs/ runs: commands, Python, grids, queries; examples of output are what is printed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from helpers.doc_pages import EMPTY_FOLDER, LANGUAGES, PAGES, ROOT, blocks, missing_words, read_blocks
from helpers.doc_session import PageSession
from labbench.store.writer import Writer


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with the runs of the example."""
    path = tmp_path_factory.mktemp("documentation") / "runs.db"
    shutil.copyfile(ROOT / "runs.db.example", path)
    Writer(path).close()  # the example is of an earlier release
    return path


@pytest.fixture
def page_session(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> PageSession:
    """Return a session in a folder with this database."""
    shutil.copyfile(database, tmp_path / "runs.db")
    return PageSession(tmp_path, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_does_what_the_page_says(page: Path, page_session: PageSession) -> None:
    if EMPTY_FOLDER in page.read_text(encoding="utf-8"):
        (page_session.folder / "runs.db").unlink()
    for block in read_blocks(page):
        try:
            page_session.run(block)
        except Exception as error:
            raise AssertionError(f"{block}: {error}") from error


def test_blocks_that_are_not_run_are_few_and_have_a_reason() -> None:
    everything = blocks()
    not_run = [block for block in everything if block.not_run]
    assert len(everything) - len(not_run) > 120
    assert len(not_run) < len(everything) / 6
    assert all(block.not_run.startswith(("needs ", "an example ")) for block in not_run), list(map(str, not_run))


def test_every_block_names_its_language() -> None:
    assert {block.language for page in PAGES for block in read_blocks(page)} <= set(LANGUAGES)


def test_missing_words_of_an_output_are_noticed() -> None:
    printed = "utvdcumz  adam lr=0.1  val/accuracy 0.98"
    assert missing_words("k3f9a1cz  adam lr=0.01  val/accuracy 0.97", printed) == set()
    assert missing_words("sgd val/loss 0.1", printed) == {"sgd", "val/loss"}
    assert missing_words("best of 3 finalists, 2 runs", "best of 1 finalist") == {"runs"}
    assert missing_words("name  lr  val/loss", "key name lr\n val/loss  best") == set()
    assert missing_words("name  val/loss  lr", "name lr val/loss") == {"name val/loss lr"}
