"""`labbench why --html`: one self-contained page, safe for any run names and settings."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from helpers.store_samples import new_run, points, start
from helpers.waiting import HANG_SECONDS
from labbench.records import Finished
from labbench.store.writer import Writer

Labbench = Callable[..., Result]

HOSTILE = "</script><script>document.title='owned'</script>\x1b]52;c;aGk=\x07"


@pytest.fixture
def page(labbench: Labbench, tmp_path: Path) -> Path:
    """Return the page of a small grid with a setting that contains a script and control characters."""
    db, page = tmp_path / "runs.db", tmp_path / "answer.html"
    with Writer(db) as writer:
        for lr, start_at in ((0.1, 2.0), (0.01, 1.0)):
            for kind in ("adam", HOSTILE):
                runs = start(writer, [new_run(seed, lr=lr, kind=kind) for seed in range(3)], experiment=f"{lr}{kind}")
                for seed, run in enumerate(runs):
                    values = [start_at / (step + 1) + 0.01 * seed for step in range(50)]
                    writer.write([points(run, "val/loss", values), Finished(run.key, 1, "finished", "all epochs")])
    result = labbench("--db", str(db), "why", "val/loss", "--all", "--html", str(page))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    return page


def curves_of(page: Path) -> list[dict[str, Any]]:
    match = re.search(r'<script type="application/json" id="curves">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert match is not None
    curves: list[dict[str, Any]] = json.loads(match[1])
    return curves


def test_the_page_has_the_verdict_of_the_terminal(labbench: Labbench, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    verdict = labbench("--db", str(page.with_name("runs.db")), "why", "val/loss", "--all").stdout.splitlines()[0]
    assert "val/loss 0.03 " in verdict  # 1 / 50 plus 0.01 per seed
    assert verdict.split(":")[0] in text
    assert "Effect of each parameter" in text


def test_the_page_has_the_tables_of_the_terminal(labbench: Labbench, page: Path) -> None:
    text = html.unescape(page.read_text(encoding="utf-8"))
    terminal = labbench("--db", str(page.with_name("runs.db")), "why", "val/loss", "--all").stdout
    titles = [
        line
        for line in terminal.splitlines()
        if line.startswith(("configurations by", "val/loss by", "lr within", "cost"))
    ]
    assert len(titles) >= 3
    assert all(f"<h3>{title}</h3>" in text for title in titles)
    for line in terminal.partition("where the differences come from\n  ")[2].partition("\n\n")[0].split("\n  "):
        name, share = line.split("  ")[0], next(word for word in line.split() if word.endswith("%"))
        assert re.search(rf">{re.escape(name)}</th>.*?<td>{share}</td>", text)


def test_text_from_a_database_cannot_inject_a_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 2
    assert "owned" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_the_page_loads_nothing_from_the_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"']+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a namespace, not a link
    assert "default-src 'none'" in text


def test_each_configuration_has_a_curve_with_the_range_over_its_seeds(page: Path) -> None:
    curves = curves_of(page)
    assert [(set(curve["n"]), curve["x"][0], curve["x"][-1]) for curve in curves] == [({3}, 0, 49)] * 4
    for curve in curves:
        assert curve["low"][0] + 0.01 == pytest.approx(curve["mean"][0]) == pytest.approx(curve["high"][0] - 0.01)


def test_a_page_never_overwrites_a_database(labbench: Labbench, page: Path) -> None:
    db = page.with_name("runs.db")
    before = db.read_bytes()
    page.with_name("link").symlink_to(db)
    for target in (db, page.parent / ".." / page.parent.name / "runs.db", page.with_name("link")):
        for command in (
            ("why", "val/loss", "--all", "--html"),
            ("export", "-o"),
            ("export", "--format", "jsonl", "-o"),
        ):
            result = labbench("--db", str(db), *command, str(target))
            assert result.exit_code == 2
            assert "is a database and would be overwritten; pass the name of another file" in result.stderr
    assert db.read_bytes() == before


def test_a_page_in_a_missing_folder_is_an_error_without_traceback(labbench: Labbench, page: Path) -> None:
    db, target = page.with_name("runs.db"), page.parent / "nowhere" / "answer.html"
    result = labbench("--db", str(db), "why", "val/loss", "--all", "--html", str(target))
    assert result.exit_code == 1
    assert f"cannot write {target}: the folder {target.parent} does not exist" in result.stderr
    assert "Traceback" not in result.stderr


BROWSER = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed: apt-get install chromium"
)


def render_in_browser(page: Path) -> str:
    """Return the document after a browser ran its script."""
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.with_name('profile')}",
        "--virtual-time-budget=5000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=True).stdout


@BROWSER
def test_a_real_browser_draws_the_curves(page: Path) -> None:
    document = render_in_browser(page)
    assert document.count('<polyline class="curve"') == 4
    assert document.count("<polygon") == 4
    assert document.count('aria-pressed="true"') == 4
    assert "<title>val/loss: the best configuration, and why</title>" in document  # the injected script did not run


@BROWSER
def test_a_metric_logged_once_is_drawn_as_points(labbench: Labbench, tmp_path: Path) -> None:
    db, page = tmp_path / "runs.db", tmp_path / "answer.html"
    with Writer(db) as writer:
        runs = start(writer, [new_run(number, lr=lr) for number, lr in enumerate((0.1, 0.1, 0.01, 0.01))])
        for number, run in enumerate(runs):
            writer.write([points(run, "test/accuracy", {400: 0.9 + 0.01 * number})])
            writer.write([Finished(run.key, 1, "finished", "all epochs")])
    assert labbench("--db", db, "why", "test/accuracy", "--html", page).exit_code == 0
    assert render_in_browser(page).count('<circle class="point"') == 2


def test_a_long_curve_keeps_both_ends_and_its_number_of_seeds(labbench: Labbench, tmp_path: Path) -> None:
    db, page = tmp_path / "runs.db", tmp_path / "answer.html"
    with Writer(db) as writer:
        runs = start(writer, [new_run(seed) for seed in range(2)])
        for run, steps in zip(runs, (1001, 777), strict=True):
            writer.write([points(run, "val/loss", [1.0 / (step + 1) for step in range(steps)])])
            writer.write([Finished(run.key, 1, "finished", "all epochs")])
    assert labbench("--db", db, "why", "val/loss", "--all", "--html", page).exit_code == 0
    [curve] = curves_of(page)
    assert (curve["x"][0], len(curve["x"])) == (0, 300)
    assert curve["x"][-1] > 990  # the first step of the last bucket
    assert (curve["n"][0], curve["n"][-1]) == (2, 1)
