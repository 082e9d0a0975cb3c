"""Hardware that is recorded with each run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.store_samples import new_run, queue
from labbench.json_documents import run_document
from labbench.records import HARDWARE, Started
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.system.hardware import read_hardware
from labbench.system.provenance import Provenance


def test_the_hardware_of_this_machine_has_known_names_and_no_empty_text() -> None:
    hardware = read_hardware("cpu")
    assert {"os", "cpu", "cores", "memory"} <= hardware.keys() <= {*HARDWARE}
    assert all(hardware.values())


def test_torch_is_asked_only_if_the_process_has_imported_it() -> None:
    program = "import sys; {}; from labbench.system.hardware import read_hardware as read; print(read().get('threads'))"
    for statement, expected in (("assert 'torch' not in sys.modules", "None"), ("import torch", "1")):
        words = [sys.executable, "-c", program.format(statement)]
        if statement == "import torch":
            pytest.importorskip("torch")
        result = subprocess.run(words, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"}, check=True)
        assert result.stdout.strip() == expected


def test_the_hardware_of_the_process_that_trains_is_recorded_beside_the_versions(tmp_path: Path) -> None:
    hardware = {"cpu": "EPYC", "cores": "2 of 8", "memory": "7.8 GiB", "gpu": "H200", "driver": "550.54"}
    with Writer(tmp_path / "runs.db") as writer:
        [queued] = queue(writer, [new_run(0)])
        [run] = writer.claim(
            [queued.key],
            source=Provenance("c0ffee", git_dirty=True, git_diff="", versions={"torch": "2.13"}),
        )
        writer.write([Started(run.key, run.attempt, "node1", 1, "cuda:0", "loop", hardware)])
    with Reader(tmp_path / "runs.db") as reader:
        [record] = reader.runs()
    assert record.library_versions == {"torch": "2.13"}
    assert record.hardware == hardware
    assert record.hardware_text == "EPYC, cores: 2 of 8, 7.8 GiB memory, H200, driver 550.54"
    document = json.loads(json.dumps(run_document(record)))
    assert document["hardware"] == hardware
    assert document["versions"] == {"torch": "2.13"}
    assert (document["git_commit"], document["git_dirty"]) == ("c0ffee", True)


@pytest.mark.parametrize("words", [["-c", "import labbench; r = labbench.start('s'); r.log({'loss': 1}); r.finish()"]])
def test_a_script_records_its_hardware(tmp_path: Path, words: list[str]) -> None:
    subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, check=True)
    [database] = tmp_path.glob("*.db")
    with Reader(database) as reader:
        [record] = reader.runs()
    assert record.hardware["cpu"] == read_hardware()["cpu"]
