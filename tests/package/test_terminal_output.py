"""Captured output: what a terminal shows of it, and its bound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbench import terminal_output
from labbench.sgr import remove_styles
from labbench.terminal_lines import WINDOW_LINES, TerminalLines, terminal_lines
from labbench.terminal_output import CapturedOutput, OutputText, keep_ends

NESTED_TQDM = (  # two bars of tqdm 4.70, the inner one with leave=False
    "\repochs:   0%|          | 0/2 [00:00<?, ?it/s]\n\rbatches:   0%|          | 0/2 [00:00<?, ?it/s]\x1b[A"
    "\n\rbatches:  50%|#####     | 1/2 [00:00<00:00, 113359.57it/s]\x1b[A"
    "\n\rbatches: 100%|##########| 2/2 [00:00<00:00, 26917.01it/s] \x1b[A"
    "\n\r                                                           \r\x1b[A"
    "\repochs:  50%|#####     | 1/2 [00:00<00:00, 258.32it/s]\n\rbatches:   0%|          | 0/2 [00:00<?, ?it/s]\x1b[A"
    "\n\rbatches: 100%|##########| 2/2 [00:00<00:00, 26917.01it/s]\x1b[A"
    "\n\r                                                          \r\x1b[A"
    "\repochs: 100%|##########| 2/2 [00:00<00:00, 247.20it/s]\repochs: 100%|##########| 2/2 [00:00<00:00, 230.58it/s]\n"
)

RICH_PROGRESS = (  # two bars of rich 15 with a line printed above them
    "\x1b[?25la \x1b[38;5;237m━━\x1b[0m \x1b[35m  0%\x1b[0m\nb \x1b[38;5;237m━━\x1b[0m \x1b[35m  0%\x1b[0m"
    "\r\x1b[2K\x1b[1A\x1b[2Khello\na \x1b[38;2;249;38;114m━\x1b[0m\x1b[38;5;237m━\x1b[0m \x1b[35m 50%\x1b[0m\n"
    "b \x1b[38;2;114;156;31m━━\x1b[0m \x1b[35m100%\x1b[0m\r\x1b[2K\x1b[1A\x1b[2K"
    "a \x1b[38;2;114;156;31m━━\x1b[0m \x1b[35m100%\x1b[0m\nb \x1b[38;2;114;156;31m━━\x1b[0m \x1b[35m100%\x1b[0m\n"
    "\x1b[?25h"
)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("no end", ["no end"]),
        ("blank  \n\n lines\n", ["blank  ", "", " lines"]),
        ("windows\r\nline ends\r\n", ["windows", "line ends"]),
        ("10 %\r20 %\r100 %\n", ["100 %"]),
        ("longer\rab\n", ["abnger"]),
        ("longer\r\x1b[Kab\n", ["ab"]),
        ("abc\b\bx\n", ["axc"]),
        ("\x1b[32mepoch 1\x1b[0m done\n", ["epoch 1 done"]),
        ("\x1b]0;title\x07text \x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\\n", ["text link"]),
        ("\rfirst\nsecond\n\x1b[2A\x1b[2K1st\n\x1b[B\n", ["1st", "second"]),
        ("\ra\nb\nc\x1b[2A\rA\n\n\n", ["A", "b", "c"]),
        ("損失が減少 …\n", ["損失が減少 …"]),
        (NESTED_TQDM, ["epochs: 100%|##########| 2/2 [00:00<00:00, 230.58it/s]"]),
        (RICH_PROGRESS, ["hello", "a ━━ 100%", "b ━━ 100%"]),
    ],
)
def test_output_is_shown_as_a_terminal_shows_it(printed: str, shown: list[str]) -> None:
    assert [*map(remove_styles, terminal_lines([printed]))] == shown


TEXTS = ["a", "bc ", "é損", "\n", "\r", "\r\n", "\b", "\t", "[", "A", "2K", "x" * 70_000, "\n" * 60]
CONTROLS = ["\x1b", "\x1b[A", "\x1b[3B", "\x1b[K", "\x1b[1K", "\x1b[J", "\x1b[12C", "\x1b[2G", "\x9b"]
STYLES = ["\x1b[32m", "\x1b[;7m", "\x1b[m"]
STRINGS = ["\x1b]0;t", "\x07", "\x1b\\"]
PIECES = st.sampled_from([*TEXTS, *CONTROLS, *STYLES, *STRINGS])


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join), st.data())
def test_the_borders_of_chunks_change_nothing(printed: str, data: st.DataObject) -> None:
    borders = data.draw(st.lists(st.integers(0, len(printed)), max_size=8).map(sorted))
    screen = TerminalLines()
    lines = []
    for start, end in zip([0, *borders], [*borders, len(printed)], strict=True):
        lines += screen.feed(printed[start:end])
    assert lines + screen.close() == [*terminal_lines([printed])]


@given(st.lists(st.text(max_size=3)), st.integers(0, 9), st.integers(0, 9))
def test_the_ends_of_an_output_are_its_first_and_last_lines(lines: list[str], head: int, tail: int) -> None:
    ends = keep_ends(lines, head, tail, lambda _: 1)
    assert list(ends.first) == lines[:head]
    assert list(ends.last) == (lines[head:][-tail:] if tail else [])
    assert len(ends.first) + ends.n_between + len(ends.last) == len(lines)


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]))))
def test_plain_lines_come_back_unchanged(lines: list[str]) -> None:
    output = CapturedOutput()
    output.feed("".join(f"{line}\n" for line in lines))
    assert "".join(text.text for text in output.take() + output.close()) == "".join(f"{line}\n" for line in lines)


def test_plain_lines_are_recorded_at_once_and_bars_when_they_can_no_longer_change() -> None:
    screen = TerminalLines()
    assert screen.feed("epoch 1\n") == ["epoch 1"]
    assert screen.feed("\r 10%") == screen.feed("\r100%\n") == []
    assert screen.feed("epoch\n" * WINDOW_LINES) == ["100%"] + ["epoch"] * WINDOW_LINES
    assert screen.feed("epoch 2\n") == ["epoch 2"]


def apply(rows: list[str], texts: list[OutputText]) -> None:
    """Change recorded rows as the database does."""
    for text in texts:
        if text.replaces_unfinished:
            assert not rows.pop().endswith("\n")
        if text.text:
            rows.append(text.text)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=40))
def test_unfinished_lines_are_replaced_by_their_last_state(pieces: list[str]) -> None:
    output, rows = CapturedOutput(), list[str]()
    for piece in pieces:
        output.feed(piece)
        output.expedite()
        apply(rows, output.take())
        assert all(row.endswith("\n") for row in rows[:-1])
    apply(rows, output.close())
    assert [*terminal_lines(rows)] == [*terminal_lines(pieces)]


def test_of_a_long_output_the_head_and_the_tail_are_kept_and_the_rest_is_counted() -> None:
    output, rows = CapturedOutput(), list[str]()
    for number in range(300_000):
        output.feed(f"line {number}\n")
        if number % 1000 == 0:
            apply(rows, output.take())
    apply(rows, output.close())
    lines = "".join(rows).splitlines()
    assert lines[0] == "line 0"
    assert lines[-1] == "line 299999"
    assert f"… {output.omitted_lines:,} lines not kept …" in lines
    assert len(lines) - 1 + output.omitted_lines == 300_000
    assert sum(map(len, rows)) <= terminal_output.HEAD_CHARACTERS + terminal_output.TAIL_CHARACTERS + 100


@pytest.mark.parametrize("n_runs", [1, 8, 100])
def test_runs_that_record_the_same_output_share_its_bounds(n_runs: int) -> None:
    output = CapturedOutput(n_runs=n_runs)
    texts: list[OutputText] = []
    for number in range(200):
        output.feed(f"{number:09}\n" * 1000)  # 2 MB in total
        texts += output.take()
    rows: list[str] = []
    for text in [*texts, *output.close()]:
        if text.replaces_unfinished:
            rows.pop()
        rows.append(text.text)
    recorded = "".join(rows)
    assert recorded.startswith(f"{0:09}\n")
    assert recorded.endswith(f"{199:09}\n")
    assert n_runs * len(recorded) < max(1.2 * 2**20, n_runs * 90_000)


def test_a_line_with_very_many_colours_is_kept_without_them() -> None:
    line = "".join(f"\x1b[38;5;{number % 256}mx" for number in range(5000))
    assert [*terminal_lines([line + "\nend\x1b[31m!"])] == ["x" * 5000, "\x1b[38;5;135mend\x1b[0m\x1b[31m!\x1b[0m"]


def test_the_last_lines_of_a_failed_process_have_no_colours() -> None:
    output = CapturedOutput()
    output.feed("\x1b[31mValueError\x1b[0m: no\n\x1b[1munfinished")
    assert output.last_lines() == ["ValueError: no", "unfinished"]
    assert [text.text for text in output.close()] == ["\x1b[31mValueError\x1b[0m: no\n\x1b[1munfinished\x1b[0m"]
