"""bench/gpu.sh says that nothing was measured without a GPU, and continues where it was cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from helpers.programs import load_program

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module bench/gpu.py, on a machine that claims to have a GPU."""
    module = load_program("bench/gpu.py")
    monkeypatch.setattr(module, "describe_machine", lambda: "a GPU")
    monkeypatch.setattr(module, "PARTS", {"one": 10, "two": 10})
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_measured(tmp_path: Path) -> None:
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    result = subprocess.run(["bash", str(BENCH / "gpu.sh")], capture_output=True, text=True, env=environment)
    assert result.returncode == 2
    assert "no CUDA device: nothing measured" in result.stderr
    assert not (tmp_path / "out").exists()


def test_parts_that_are_measured_are_not_measured_again(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {"one": ("speed\t3\tsteps/s\n", True), "two": ("two\tnot measured\tno such module\n", False)}
    measured = []

    def measure(part: str, limit: float) -> tuple[str, bool]:
        measured.append(part)
        return results[part]

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    assert gpu.main() == 1
    table = capsys.readouterr().out.splitlines()
    assert [line.split() for line in table] == [
        ["a", "GPU"],
        ["speed", "3", "steps/s"],
        ["two", "not", "measured", "no", "such", "module"],
    ]
    results["two"] = ("size\t4\tMiB\n", True)
    assert gpu.main() == 0
    assert measured == ["one", "two", "two"]
    assert (tmp_path / "table.txt").read_text().splitlines()[-1].split() == ["size", "4", "MiB"]


def test_a_part_runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_parts

    monkeypatch.setattr(gpu_parts, "DEVICE", gpu_parts.DEVICE)
    monkeypatch.setattr(gpu_parts, "MEASURED_SECONDS", gpu_parts.MEASURED_SECONDS)
    monkeypatch.setattr(sys, "argv", ["gpu_parts.py", "steps", "--device", "cpu"])
    gpu_parts.main()
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [len(row) for row in rows] == [3, 3, 3]
    assert "times the plain loop, goal" in rows[-1][2]


def test_every_part_has_a_function_and_fits_in_nine_minutes(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_parts

    assert gpu.PARTS.keys() <= gpu_parts.PARTS.keys()
    assert gpu.TOTAL_SECONDS < 9 * 60
