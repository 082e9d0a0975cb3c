"""Event files that grow, that are cut, that are damaged, and that are written again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from helpers.event_files import write_event_file
from labbench.errors import InputError
from labbench.export.event_records import masked_crcs
from labbench.importing.import_runs import follow_runs
from labbench.importing.tensorboard import find_runs
from labbench.store.reader import Reader

Labbench = Callable[..., Result]


def read_values(folder: Path, metric: str = "loss") -> dict[int, float]:
    """Return values by step of the only run."""
    with Reader(folder / "runs.db") as reader:
        [run] = reader.runs()
        steps, values = reader.series(run.key, metric)
        return dict(zip(steps.tolist(), values.tolist(), strict=True))


def test_masked_crc_of_the_check_string() -> None:
    """The CRC-32C of "123456789" is 0xE3069283 (RFC 3720, appendix B.4, polynomial); the mask is that of TFRecord."""
    [crc] = masked_crcs(np.frombuffer(b"123456789", np.uint8)[None])
    assert crc == (((0xE3069283 >> 15) | (0xE3069283 << 17)) + 0xA282EAD8) & 0xFFFF_FFFF


def test_a_grown_file_adds_its_new_points_and_a_cut_last_record_is_ignored(labbench: Labbench, tmp_path: Path) -> None:
    file = write_event_file(tmp_path / "logs" / "a", [("loss", step, step / 2) for step in range(3)])
    content = file.read_bytes()
    write_event_file(tmp_path / "logs" / "a", [("loss", step, step / 2) for step in range(5)])
    whole = file.read_bytes()
    assert whole.startswith(content)
    file.write_bytes(whole[: len(content) + 20])
    assert labbench("import", "tensorboard", "logs").stdout == (
        "imported 1 new run, 3 points; 0 grown, 0 already present\n"
    )
    file.write_bytes(whole)
    assert labbench("import", "tensorboard", "logs").stdout == (
        "imported 0 new runs, 2 points; 1 grown, 0 already present\n"
    )
    assert read_values(tmp_path) == {step: step / 2 for step in range(5)}


def test_a_source_that_became_different_is_reported_and_taken_with_replace(labbench: Labbench, tmp_path: Path) -> None:
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 1.0), ("loss", 1, 2.0)])
    assert labbench("import", "tensorboard", "logs").exit_code == 0
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 1.0), ("loss", 1, 3.0), ("loss", 2, 4.0)])
    result = labbench("import", "tensorboard", "logs")
    assert result.exit_code == 1
    assert "a: the source has changed: loss at step 1 was 2 and is 3; --replace imports the run again" in result.stderr
    assert read_values(tmp_path) == {0: 1.0, 1: 2.0}
    assert labbench("import", "tensorboard", "logs", "--replace").exit_code == 0
    assert read_values(tmp_path) == {0: 1.0, 1: 3.0, 2: 4.0}


@pytest.mark.parametrize("n_zeros", [5, 12, 40, 3 << 20])
def test_zeros_that_a_crash_left_at_the_end_are_ignored(labbench: Labbench, tmp_path: Path, n_zeros: int) -> None:
    file = write_event_file(tmp_path / "logs" / "a", [("loss", step, step / 2) for step in range(3)])
    content = file.read_bytes()
    file.write_bytes(content + bytes(n_zeros))
    assert labbench("import", "tensorboard", "logs").exit_code == 0
    assert read_values(tmp_path) == {step: step / 2 for step in range(3)}


def test_a_damaged_record_is_reported_and_other_runs_are_imported(labbench: Labbench, tmp_path: Path) -> None:
    write_event_file(tmp_path / "logs" / "sound", [("loss", 0, 1.0)])
    file = write_event_file(tmp_path / "logs" / "damaged", [("loss", 0, 1.0), ("loss", 1, 2.0)])
    content = bytearray(file.read_bytes())
    content[-6] ^= 1
    file.write_bytes(content)
    result = labbench("import", "tensorboard", "logs")
    assert result.exit_code == 1
    assert "imported 1 new run, 1 point;" in result.stdout
    assert "has a wrong checksum: the file is damaged" in result.stderr


def test_a_text_file_in_place_of_an_event_file_is_reported(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_text("step,loss\n" * 20)
    result = labbench("import", "tensorboard", "events.out.tfevents.1")
    assert (result.exit_code, "the file is damaged" in result.stderr) == (1, True)
    with pytest.raises(InputError, match="no event files"):
        list(find_runs(Path(__file__).parent))


def test_a_path_without_event_files_is_wrong_input(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = labbench("import", "tensorboard", "empty")
    assert (result.exit_code, (tmp_path / "runs.db").exists()) == (2, False)
    assert "no event files" in result.stderr


def test_a_dry_run_writes_nothing(labbench: Labbench, tmp_path: Path) -> None:
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 1.0)])
    result = labbench("import", "tensorboard", "logs", "--dry-run")
    assert result.stdout == "would import 1 new run, 1 point\n"
    assert not (tmp_path / "runs.db").exists()
    assert labbench("import", "tensorboard", "logs").exit_code == 0
    write_event_file(tmp_path / "logs" / "b", [("loss", 0, 1.0)])
    result = labbench("import", "tensorboard", "logs", "--dry-run")
    assert result.stdout == "would import 1 new run, 1 point; 1 already present, which would be completed\n"
    assert (
        "would import 2 new runs" in labbench("import", "tensorboard", "logs", "--dry-run", "--experiment", "x").stdout
    )


def test_following_adds_what_is_written_and_reports_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labbench.importing.import_runs._FOLLOW_SECONDS", 0.0)
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 1.0)])
    reports = follow_runs(tmp_path / "runs.db", lambda: find_runs(tmp_path / "logs"), [], "tensorboard")
    assert next(reports).n_new == 1
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 1.0), ("loss", 1, 2.0)])
    assert (next(reports).n_points, read_values(tmp_path)) == (1, {0: 1.0, 1: 2.0})
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 3.0)])
    assert "the source has changed" in next(reports).problems["a"]


def test_steps_beyond_the_range_of_integers_are_counted_as_skipped(labbench: Labbench, tmp_path: Path) -> None:
    write_event_file(tmp_path / "logs" / "a", [("loss", 0, 1.0), ("loss", 2**60, 1.0)])
    result = labbench("import", "tensorboard", "logs")
    assert result.stdout.splitlines()[1] == "not imported: 1 points whose step is out of range"


def test_a_record_of_any_length_is_decoded_or_reported(tmp_path: Path) -> None:
    """Each prefix of an event gives a record with a right checksum, whose content is cut."""
    file = write_event_file(tmp_path, [("loss", 3, 1.0)])
    record = file.read_bytes()[12:-4]
    for size in range(len(record)):
        data = record[:size]
        length = struct.pack("<Q", size)
        crcs = [int(masked_crcs(np.frombuffer(part, np.uint8)[None])[0]) for part in (length, data)]
        file.write_bytes(length + struct.pack("<I", crcs[0]) + data + struct.pack("<I", crcs[1]))
        [found] = find_runs(tmp_path)
        with suppress(InputError):  # any other error fails the test
            assert len(found.read().series) <= 1
