"""Record commands of labbench in a terminal of 100 columns, as an SVG picture that plays them.

    python docs/recording.py docs/recording.svg

Trains the grid of the tutorial in an empty folder. Lines appear in the order and with the pauses of the real output;
longer pauses are shortened. Where animations are off, the picture shows the end.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
COLUMNS = 100
COMMANDS = (
    ("labbench run first.toml", 3),
    ("labbench ls --sort 'best(val/accuracy)' --columns optimizer,lr,val/accuracy --limit 4", 6),
    ("labbench why val/accuracy", 11),
)
"""Commands, and the number of lines of their output that are shown."""

MAX_PAUSE, AFTER_COMMAND, AT_END = 0.7, 1.5, 8.0
"""Seconds: longest pause between two lines, pause after a command, and before the picture begins again."""
LINE_HEIGHT, CHARACTER_WIDTH, MARGIN = 19, 8.43, 16
GROUND, FOREGROUND, PROMPT = "#1b1d23", "#d8dee9", "#a3be8c"


@dataclass(frozen=True)
class Line:
    """Line on the screen."""

    seconds: float
    """Time at which it appears."""
    text: str
    is_command: bool = False


def run_in_terminal(command: str, folder: Path) -> list[tuple[float, str]]:
    """Run a command in a pseudo-terminal; return its lines with the seconds since its start."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    words = command.replace("labbench", f"'{sys.executable}' -m labbench", 1)
    environment = os.environ | {"NO_COLOR": "1", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    process = subprocess.Popen(
        words, shell=True, cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    lines, rest = [], ""
    while True:
        try:
            rest += os.read(controller, 65536).decode(errors="replace")
        except OSError:  # the command has ended
            break
        *whole, rest = rest.split("\n")
        lines += [(time.monotonic() - start, shown(line)) for line in whole]
    os.close(controller)
    if process.wait() != 0:
        raise SystemExit(f"{command}: exit status {process.returncode}")
    return [(seconds, text) for seconds, text in lines if text]


def shown(line: str) -> str:
    """Return a line as a terminal shows it: without control sequences, and of overwritten texts the last."""
    plain = re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|.)", "", line).rstrip("\r")
    return "".join(character for character in plain.rpartition("\r")[2] if character.isprintable()).rstrip()


def record(folder: Path) -> list[Line]:
    """Run all commands; return the lines of the recording."""
    now, screen = 0.5, []
    for command, count in COMMANDS:
        screen.append(Line(now, f"$ {command}", is_command=True))
        now += AFTER_COMMAND / 2
        before = 0.0
        output = [
            (seconds, part)
            for seconds, text in run_in_terminal(command, folder)
            for part in textwrap.wrap(text, COLUMNS, subsequent_indent="  ", replace_whitespace=False) or [""]
        ]
        for seconds, text in output[:count]:
            now += min(seconds - before, MAX_PAUSE)
            before = seconds
            screen.append(Line(now, text))
        if len(output) > count:
            screen.append(Line(now, "..."))
        now += AFTER_COMMAND
        screen.append(Line(now, ""))
    return screen


def draw(lines: list[Line]) -> str:
    """Return the recording as SVG."""
    width, height = int(COLUMNS * CHARACTER_WIDTH) + 2 * MARGIN, len(lines) * LINE_HEIGHT + 2 * MARGIN
    total = lines[-1].seconds + AT_END
    texts, styles = [], []
    for number, line in enumerate(lines):
        if not line.text:
            continue
        percent = 100 * line.seconds / total
        styles.append(f"@keyframes l{number}{{0%,{percent:.2f}%{{opacity:0}}{percent + 0.01:.2f}%,100%{{opacity:1}}}}")
        styles.append(f".l{number}{{animation:l{number} {total:.1f}s infinite}}")
        fill = PROMPT if line.is_command else FOREGROUND
        y = MARGIN + (number + 1) * LINE_HEIGHT - 5
        attributes = f'class="l{number}" x="{MARGIN}" y="{y}" fill="{fill}" xml:space="preserve"'
        texts.append(f"<text {attributes}>{escape(line.text, quote=False)}</text>")
    style = "text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}" + "".join(styles)
    style += "@media (prefers-reduced-motion:reduce){text{animation:none!important}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="A grid is trained, listed and judged in a terminal">\n<style>{style}</style>\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>\n' + "\n".join(texts) + "\n</svg>\n"
    )


def first_grid() -> str:
    """Return the grid of the tutorial."""
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return page.partition("```toml\n")[2].partition("```")[0]


def main() -> None:
    """Record, and write the picture."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "first.toml").write_text(first_grid(), encoding="utf-8")
        Path(sys.argv[1]).write_text(draw(record(Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
