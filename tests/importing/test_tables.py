"""Tables of other programs: wide CSV of any dialect, JSON lines, what labbench exports, and hostile checkpoints."""

from __future__ import annotations

import math
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result

from helpers.event_files import write_event_file
from helpers.store_samples import new_run, points, start
from labbench.importing.huggingface import read_arguments
from labbench.store.reader import Reader
from labbench.store.writer import Writer

Labbench = Callable[..., Result]
WRITERS = Path(__file__).parents[1] / "writers"


def read_all(folder: Path) -> dict[str, tuple[dict[str, object], dict[str, dict[int, float]]]]:
    """Return config and values by step of each metric, by name of the run."""
    with Reader(folder / "runs.db") as reader:
        runs = {}
        for run in reader.runs():
            series = {metric: reader.series(run.key, metric) for metric in run.summary}
            values = {m: dict(zip(s.tolist(), v.tolist(), strict=True)) for m, (s, v) in series.items()}
            runs[run.name] = (dict(run.config), values)
        return runs


@pytest.mark.parametrize(
    "text",
    [
        "epoch,loss,val acc\n0,1.5,\n\n1,0.5,0.75\n",
        "\ufeffepoch;loss;val acc\n0;1,5;\n1;0,5;0,75\n",
        "epoch\tloss\tval acc\n0\t1,5\t\n1\t0,5\t0,75\n",
        ",epoch,loss,val acc\n0,0,1.5,\n1,1.0,0.5,0.75\n",
        "Unnamed: 0,Epoch,loss,val acc\n7,0,1.5,\n8,1,0.5,0.75\n",
    ],
)
def test_wide_csv_of_any_dialect(labbench: Labbench, tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    assert labbench("import", "csv", "log.csv").exit_code == 0
    [(name, (_, series))] = read_all(tmp_path).items()
    assert name == "log"
    assert series.pop("epoch", series.pop("Epoch", None)) == {0: 0, 1: 1}
    assert series == {"loss": {0: 1.5, 1: 0.5}, "val acc": {1: 0.75}}
    again = labbench("import", "csv", "log.csv").stdout
    assert again.startswith("imported 0 new runs, 0 points")


def test_columns_of_step_and_run_are_named_and_texts_become_the_configuration(
    labbench: Labbench, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text("who,batch,loss,optimizer\na,5,1.0,adam\na,10,0.5,adam\nb,5,nan,sgd\n")
    assert (
        labbench("import", "csv", "log.csv", "--step", "batch", "--run", "who", "--experiment", "mine").exit_code == 0
    )
    runs = read_all(tmp_path)
    assert runs["a"] == ({"optimizer": "adam"}, {"loss": {5: 1.0, 10: 0.5}})
    assert math.isnan(runs["b"][1]["loss"][5])
    with Reader(tmp_path / "runs.db") as reader:
        assert {run.experiment for run in reader.runs()} == {"mine"}


def test_a_misspelled_column_is_answered_with_the_nearest(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("batch,loss\n1,2\n")
    result = labbench("import", "csv", "log.csv", "--step", "bach")
    assert (result.exit_code, (tmp_path / "runs.db").exists()) == (2, False)
    assert "no column `bach`; did you mean `batch`?" in result.stderr
    (tmp_path / "log.csv").write_text("step,loss\n1.5,2\n")
    assert "the step 1.5 in the column `step` is not an integer" in labbench("import", "csv", "log.csv").stderr
    (tmp_path / "log.csv").write_text("step,loss\n")
    assert "no rows" in labbench("import", "csv", "log.csv").stderr


def test_json_lines_of_nested_objects(labbench: Labbench, tmp_path: Path) -> None:
    lines = ['{"step": 1, "train": {"loss": 0.5}, "lr": 1e-3, "note": "x"}', "", '{"step": 2, "train": {"loss": NaN}}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert labbench("import", "jsonl", "log.jsonl").exit_code == 0
    config, series = read_all(tmp_path)["log"]
    assert (config, series["lr"], series["train/loss"][1]) == ({"note": "x"}, {1: 1e-3}, 0.5)
    (tmp_path / "bad.jsonl").write_text("[1]\n")
    result = labbench("import", "jsonl", "bad.jsonl")
    assert (result.exit_code, "bad.jsonl:1: a JSON object" in result.stderr) == (2, True)


def test_names_that_are_equal_once_stored_are_one_metric(labbench: Labbench, tmp_path: Path) -> None:
    line = '{"run": "r\\ud800", "step": 1, "a\\ud800": 1, "a\\ud801": 2, "../x\\u001b[1m\\n": 4}\n'
    (tmp_path / "log.jsonl").write_text(line)
    assert labbench("import", "jsonl", "log.jsonl").exit_code == 0
    (tmp_path / "log.jsonl").write_text(line + line.replace('"step": 1', '"step": 2'))
    again = labbench("import", "jsonl", "log.jsonl")
    assert (again.exit_code, again.stderr) == (0, "")
    assert read_all(tmp_path) == {"r?": ({}, {"a?": {1: 2, 2: 2}, "../x\x1b[1m\n": {1: 4, 2: 4}})}
    assert "\x1b" not in labbench("ls").stdout + labbench("show", "r?").stdout


def test_a_wide_table_of_labbench_round_trips(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "from.db") as writer:
        [run] = start(writer, [new_run(0, name="=sum")], experiment="an experiment")
        writer.write([points(run, "step", {1: 0.5, 4: math.inf}), points(run, "val/loss", {4: 0.25})])
    assert labbench("--db", "from.db", "export", "--wide", "-o", "wide.csv").exit_code == 0
    assert labbench("import", "csv", "wide.csv").exit_code == 0
    assert read_all(tmp_path) == {"=sum": ({}, {"step": {1: 0.5, 4: math.inf}, "val/loss": {4: 0.25}})}
    assert labbench("--db", "from.db", "export", "-o", "long.csv").exit_code == 0
    assert labbench("import", "csv", "long.csv").stdout == (
        "imported 0 new runs, 0 points; 0 grown, 1 already present\n"
    )


def save_arguments(folder: Path, arguments: object) -> None:
    """Write `training_args.bin` as torch does: a pickle in a zip archive."""
    with zipfile.ZipFile(folder / "training_args.bin", "w") as archive:
        archive.writestr("training_args/data.pkl", pickle.dumps(arguments, protocol=2))


def test_no_token_of_saved_arguments_is_imported(tmp_path: Path) -> None:
    save_arguments(tmp_path, SimpleNamespace(lr=0.1, hub_token="s3cret", push_to_hub_token=None, max_tokens=8))
    assert read_arguments(tmp_path) == {"lr": 0.1, "hub_token": "***", "max_tokens": 8}


def test_code_in_saved_arguments_is_not_executed(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "made"), "w"))

    save_arguments(tmp_path, Hostile())
    assert read_arguments(tmp_path) == {}
    assert not (tmp_path / "made").exists()


def test_an_unfinished_training_is_stopped_and_goes_on(labbench: Labbench, tmp_path: Path) -> None:
    def save(step: int) -> None:
        folder = tmp_path / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        log = ", ".join(f'{{"loss": {1 / each}, "step": {each}}}' for each in range(1, step + 1))
        (folder / "trainer_state.json").write_text(f'{{"global_step": {step}, "max_steps": 4, "log_history": [{log}]}}')

    save(2)
    assert labbench("import", "huggingface", "out").exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        assert [(run.status, run.reason) for run in reader.runs()] == [("stopped", "at step 2 of 4")]
    save(4)
    assert labbench("import", "huggingface", "out").stdout.startswith("imported 0 new runs, 2 points; 1 grown")
    with Reader(tmp_path / "runs.db") as reader:
        assert [(run.status, run.reason) for run in reader.runs()] == [("finished", None)]


def test_formats_in_a_folder_are_recognised(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "logs" / "version_0").mkdir(parents=True)
    (tmp_path / "logs" / "version_0" / "metrics.csv").write_text("epoch,step,loss\n0,5,1.0\n")
    (tmp_path / "logs" / "version_0" / "hparams.yaml").write_text("lr: 0.1\nkind: !!python/name:os.system ''\n")
    write_event_file(tmp_path / "logs" / "tb", [("loss", 0, 0.5)])
    result = labbench("import", "auto", "logs")
    assert result.exit_code == 0
    assert read_all(tmp_path) == {
        "tb": ({}, {"loss": {0: 0.5}}),
        "version_0": ({"lr": 0.1, "kind": "name:os.system"}, {"epoch": {5: 0}, "loss": {5: 1.0}}),
    }
    (tmp_path / "other").mkdir()
    assert labbench("import", "auto", "other").exit_code == 2


def test_what_a_folder_without_logs_holds_is_said(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    for name in ("meta.yaml", "train.py", "Makefile"):
        (tmp_path / "recipe" / name).write_text("package: x\n")
    for words in (["auto"], ["tensorboard"], ["mlflow"]):
        result = labbench("import", *words, "recipe")
        assert result.exit_code == 2
        assert "recipe: no " in result.stderr
        assert all(part in result.stderr for part in ("1 *.yaml", "1 *.py", "1 Makefile"))


def test_a_file_whose_format_has_to_be_named_is_said(labbench: Labbench, tmp_path: Path) -> None:
    shutil.copy(WRITERS / "keras" / "files" / "training.log", tmp_path)
    result = labbench("import", "training.log")
    assert (result.exit_code, " import csv training.log`, or keras" in result.stderr) == (2, True)
    assert labbench("import", "keras", "training.log").exit_code == 0


def test_a_damaged_format_does_not_keep_the_others_out(labbench: Labbench, tmp_path: Path) -> None:
    write_event_file(tmp_path / "logs" / "tb", [("loss", 0, 0.5)])
    (tmp_path / "logs" / "trainer_state.json").write_text("[")
    shutil.copytree(WRITERS / "trackio" / "files", tmp_path / "logs" / "trackio")
    result = labbench("import", "auto", "logs")
    assert (result.exit_code, "huggingface: not everything was imported" in result.stderr) == (1, True)
    assert set(read_all(tmp_path)) == {"tb", "first"}


def test_hidden_folders_and_environments_are_not_searched(labbench: Labbench, tmp_path: Path) -> None:
    for folder in (".git", "env/lib"):
        write_event_file(tmp_path / "project" / folder, [("loss", 0, 0.5)])
    (tmp_path / "project" / "env" / "pyvenv.cfg").write_text("")
    assert labbench("import", "auto", "project").exit_code == 2


def test_a_path_without_a_format_is_imported_by_the_format_of_its_files(labbench: Labbench, tmp_path: Path) -> None:
    write_event_file(tmp_path / "logs" / "tb", [("loss", 0, 0.5)])
    (tmp_path / "table.csv").write_text("step,loss\n0,1.0\n")
    (tmp_path / "lines.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    with Writer(tmp_path / "other.db") as writer:
        start(writer, [new_run(name="theirs")])
    for path in ("logs", "table.csv", "lines.jsonl", "other.db"):
        assert "imported 1 new run" in labbench("import", path).stdout, path
    assert labbench("pack", "theirs", "-o", "theirs.labbench", "--db", "other.db").exit_code == 0
    assert labbench("import", "theirs.labbench").stdout == "imported 0 new runs, updated 0, 1 already present\n"
    assert set(read_all(tmp_path)) == {"tb", "table", "lines", "theirs"}


def test_event_files_that_labbench_has_exported_are_no_packs(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "other.db") as writer:
        start(writer, [new_run(name="theirs")])
    assert labbench("export", "--format", "tensorboard", "-o", "logs", "--db", "other.db").exit_code == 0
    [file] = (tmp_path / "logs").rglob("*.labbench")
    for path in ("logs", str(file)):
        result = labbench("import", path)
        assert result.exit_code == 0, result.output
    assert labbench("pack", "theirs", "-o", "logs/theirs.labbench", "--db", "other.db").exit_code == 0
    assert "1 new run" in labbench("import", "logs").stdout


def test_a_word_that_is_neither_a_format_nor_a_path_is_answered_with_the_nearest_format(
    labbench: Labbench, tmp_path: Path
) -> None:
    typo, missing = labbench("import", "tensorbord"), labbench("import", "nowhere/")
    assert (typo.exit_code, missing.exit_code) == (2, 2)
    assert typo.stderr.strip().endswith("did you mean `tensorboard`?")
    assert missing.stderr == "labbench: nowhere: no such file or folder\n"
    assert not (tmp_path / "runs.db").exists()
