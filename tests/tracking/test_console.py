"""Output that a script prints by any way of Python is recorded once, in the order of a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

import labbench
from helpers import scripts
from labbench.text import split_lines


@pytest.fixture(autouse=True)
def _run_in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize(
    "statements",
    [
        "sys.stdout.buffer.write(b'one \\xc3'); sys.stdout.buffer.write(b'\\xa9\\n'); print('two')",
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8'); print('one é'); print('two')",
        "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), 'utf-8'); print('one é'); print('two')",
        "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.buffer); print('one é'); print('two')",
        "sys.stdout.reconfigure(write_through=False); print('one é'); sys.stdout.buffer.write(b'two\\n')",
        "sys.stderr = sys.stdout; print('one é', file=sys.stderr); print('two')",
    ],
)
def test_bytes_and_text_of_a_stream_that_replaces_stdout_are_captured(
    tmp_path: Path, statements: str, buffering: str
) -> None:
    code = f"""
    import codecs, io
    run = labbench.start(capture_output=True, system_metrics=False)
    {statements}
    """
    result = scripts.run(tmp_path, code, PYTHONUNBUFFERED=buffering)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(result.stdout.splitlines()) == ["one é", "two"]
    with labbench.open() as db:
        assert sorted("".join(db.logs(scripts.only_run(tmp_path).key)).splitlines()) == ["one é", "two"]


def test_characters_in_the_encoding_of_the_stream_are_captured(tmp_path: Path) -> None:
    """In UTF-8, the first byte of é would begin a character of three bytes."""
    code = """
    sys.stdout.reconfigure(encoding="latin-1")
    with labbench.start(capture_output=True, system_metrics=False) as run:
        print("é")
        print("naïve")
        print("né", end="")
    """
    with scripts.begin(tmp_path, code) as process:
        assert process.stdout is not None
        assert process.stdout.buffer.read() == "é\nnaïve\nné".encode("latin-1")
    with labbench.open() as db:
        assert "".join(db.logs(scripts.only_run(tmp_path).key)) == "é\nnaïve\nné"


def test_colours_are_recorded_and_read_on_request(tmp_path: Path) -> None:
    code = """
    with labbench.start(capture_output=True, system_metrics=False) as run:
        print("\\x1b[1;32mdone\\x1b[0m \\x1b]0;title\\x07after 3 epochs")
    """
    scripts.run(tmp_path, code)
    with labbench.open() as db:
        key = scripts.only_run(tmp_path).key
        assert db.logs(key) == [*db.each_log(key)] == ["done after 3 epochs\n"]
        assert db.logs(key, styled=True) == ["\x1b[1;32mdone\x1b[0m after 3 epochs\n"]


def test_one_stream_for_stdout_and_stderr_is_captured_once(tmp_path: Path) -> None:
    code = """
    sys.stderr = sys.stdout
    with labbench.start(capture_output=True, system_metrics=False) as run:
        print("one")
        print("two", file=sys.stderr)
    """
    scripts.run(tmp_path, code)
    with labbench.open() as db:
        assert "".join(db.logs(scripts.only_run(tmp_path).key)) == "one\ntwo\n"


def test_runs_that_overlap_capture_their_own_output(capfd: pytest.CaptureFixture[str]) -> None:
    with labbench.start("outer", capture_output=True) as outer:
        print("before")
        with labbench.start("inner", capture_output=True) as inner:
            print("both")
        print("after")
    print("neither")
    with labbench.open() as db:
        assert "".join(db.logs(outer.key)) == "before\nboth\nafter\n"
        assert "".join(db.logs(inner.key)) == "both\n"


def test_unfinished_lines_precede_what_another_stream_prints_later(tmp_path: Path) -> None:
    code = """
    run = labbench.start(capture_output=True, system_metrics=False)
    for percent in range(0, 101, 10):
        print(f"\\rfirst {percent} %", end="", file=sys.stderr)
        time.sleep(0.02)
    print(file=sys.stderr)
    print("loading ... ", end="", flush=True)
    time.sleep(1.2)
    print("\\rsecond 40 %", end="", file=sys.stderr)
    print("epoch 1")
    print("\\rsecond 60 %", file=sys.stderr)
    print("saving ... ", end="")
    raise RuntimeError("no convergence")
    """
    scripts.run(tmp_path, code)
    with labbench.open() as db:
        lines = list(split_lines(db.logs(scripts.only_run(tmp_path).key)))
    assert lines[:5] == [
        "first 100 %",
        "loading ... epoch 1",
        "second 60 %",
        "saving ...",
        "Traceback (most recent call last):",
    ]
