"""Reading of grid files: every table, and errors with their positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labbench.errors import GridError
from labbench.grid import Expansion, Grid, expand, new_runs, read_grid
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING
from labbench.records import Resources, Runtime, Stop

DIGITS = {**TRAINING, **BUILTIN["digits"]}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "grid.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, newline="")
        return path

    return write


def expanded(path: Path, *overrides: str) -> tuple[Grid, Expansion]:
    grid = read_grid(path, overrides=overrides)
    return grid, expand(grid, {} if grid.command else DIGITS)


def test_tables_that_do_not_change_configs_are_read_with_their_types(write: Any) -> None:
    grid = read_grid(
        write(
            """
            name = "nets"
            task = "digits"
            [metrics]
            "val/accuracy" = "max"
            time = "min"
            [stop]
            metric = "val/accuracy"
            patience = 5
            min_delta = 1
            [runtime]
            log_every = 10
            keep = "best"
            precision = "float64"
            [resources]
            gpus = 1
            retries = 2
            timeout = "1.5h"
            """
        )
    )
    assert (grid.name, grid.task, grid.command) == ("nets", "digits", ())
    assert grid.metrics == {"val/accuracy": "max", "time": "min"}
    assert grid.stop == Stop("val/accuracy", "max", patience=5, min_delta=1.0)
    assert grid.runtime == Runtime(10, "best", "float64")
    assert grid.resources == Resources(1, 2, 5400.0)
    assert "[resources]" in grid.text


def test_jobs_have_time_to_train_before_they_save_their_runs(write: Any) -> None:
    grid = 'task = "digits"\n[resources.slurm]\n'
    assert read_grid(write(f'{grid}time = "5m"\ngrace = "4m"')).resources.slurm.time == 300
    with pytest.raises(GridError, match=r"a job of 60 s has no time to train .* 90 s before its end"):
        read_grid(write(f'{grid}time = "1m"'))


def test_jobs_request_any_option_of_sbatch(write: Any) -> None:
    text = """
        task = "digits"
        [resources.slurm]
        account = "vision"
        gpus = "a100:2"
        [resources.slurm.options]
        constraint = "nvlink"
        mail-type = "END,FAIL"
        nice = 100
        exclusive = true
        container-image = "torch.sqsh"
        """
    slurm = read_grid(write(text)).resources.slurm
    assert (slurm.gpus, slurm.gpu_count) == ("a100:2", 2)
    assert slurm.options == {
        "constraint": "nvlink",
        "mail-type": "END,FAIL",
        "nice": "100",
        "exclusive": True,
        "container-image": "torch.sqsh",
    }
    by_gres = read_grid(write('task = "digits"\n[resources.slurm.options]\ngres = "gpu:a100:2,scratch:20"'))
    assert by_gres.resources.slurm.gpu_count == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('constraint = "a100"', r"options of sbatch such as `constraint` belong under \[resources.slurm.options\]"),
        ('mail_type = "END"', "options of sbatch such as `mail-type` belong under"),
        ('partitoin = "gpu"', "unknown key `partitoin` .*did you mean `partition`"),
        ('gpus = "a100"', 'gpus must be a number, or a type and a number such as "a100:1"'),
        ('[resources.slurm.options]\nconstrain = "a100"', "unknown option .*did you mean `constraint`"),
        ('[resources.slurm.options]\nmail_type = "END"', "not the long name .*did you mean `mail-type`"),
        (
            '[resources.slurm.options]\npartition = "gpu"',
            r"`partition` of sbatch is `partition` in \[resources.slurm\]",
        ),
        ('[resources.slurm.options]\nmem = "8G"', r"`mem` of sbatch is `memory` in \[resources.slurm\]"),
        ('[resources.slurm.options]\noutput = "log"', "labbench needs the option `output` of sbatch for itself"),
        ('[resources.slurm.options]\ncomment = "a\\nb"', "comment must be text, a number, or true"),
        ("[resources.slurm.options]\nexclusive = false", "exclusive must be text, a number, or true"),
        ('gpus = 1\n[resources.slurm.options]\ngres = "gpu:1"', "both `gres` and `gpus` .* request GPUs"),
    ],
)
def test_a_mistake_in_the_requests_of_jobs_is_named(write: Any, lines: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        read_grid(write(f'task = "digits"\n[resources.slurm]\n{lines}'))


def test_a_grid_is_named_after_its_file_and_has_defaults(write: Any) -> None:
    grid = read_grid(write('task = "digits"', "widths.toml"))
    assert (grid.name, grid.stop, grid.runtime, grid.resources) == ("widths", None, Runtime(), Resources())


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"2h"', 7200), ('"90m"', 5400), ('"30s"', 30), ('"1h30m"', 5400), ('"1d"', 86_400), ("45", 45), ("0.5", 0.5)],
)
def test_a_timeout_is_a_duration_or_seconds(write: Any, written: str, seconds: float) -> None:
    assert read_grid(write(f'task = "digits"\n[resources]\ntimeout = {written}')).resources.timeout == seconds


@pytest.mark.parametrize(
    ("metrics", "goal", "expected"),
    [('"a/loss" = "max"', "", "max"), ("", 'goal = "max"', "max"), ("", "", "min"), ('x = "max"', "", "min")],
)
def test_the_goal_of_a_stop_is_declared_or_follows_from_the_name(
    write: Any, metrics: str, goal: str, expected: str
) -> None:
    text = f'task = "digits"\n[metrics]\n{metrics}\n[stop]\nmetric = "a/loss"\ntarget = 0.1\n{goal}'
    stop = read_grid(write(text)).stop
    assert stop == Stop("a/loss", expected, target=0.1)  # type: ignore[arg-type]


def test_a_task_file_is_relative_to_the_grid_file(write: Any, tmp_path: Path) -> None:
    write("class Task: ...", "my_task.py")
    grid = read_grid(write('task = "my_task.py:Task"'))
    assert grid.task == f"{tmp_path.resolve() / 'my_task.py'}:Task"


def test_a_command_takes_any_key_of_any_json_type(write: Any) -> None:
    path = write(
        """
        command = ["python", "train.py", "--lr={opt.lr}", "${HOME}", "{{literal}}", "{seed}"]
        [params]
        data = { name = "mnist", sizes = [1, [2, "x"]], flip = true }
        [grid]
        opt.lr = [1, 0.5]
        [repeat]
        seeds = [7]
        """
    )
    grid, expansion = expanded(path)
    assert grid.command[0] == "python"
    common = {"data.name": "mnist", "data.sizes": [1, [2, "x"]], "data.flip": True, "seed": 7}
    assert expansion.configs == [{**common, "opt.lr": 1}, {**common, "opt.lr": 0.5}]
    assert [run.name for run in new_runs(grid, expansion.configs, {})] == ["lr=1", "lr=0.5"]


def test_windows_line_ends_and_a_byte_order_mark_are_read(write: Any) -> None:
    path = write('\ufefftask = "digits"\r\n[grid]\r\nlr = [0.1,\r\n  "x"]\r\n')
    with pytest.raises(GridError) as caught:
        expanded(path)
    assert (caught.value.line, caught.value.column, caught.value.text) == (4, 3, '  "x"]')


BAD: list[tuple[str, str]] = [
    # a grid (with task digits by default), ▸ before the position of the error; a part of the message
    ("[grid]\nlr = [0.1, ▸-1]", "lr must be at least 0, not -1"),
    ("[params]\ndropout = ▸1.5", "dropout must be at least 0 and below 1, not 1.5"),
    ("[params]\nbatch_size = ▸0", "batch_size must be at least 1, not 0"),
    ("[params]\nbatch_size = ▸1.5", "batch_size must be a whole number, not 1.5"),
    ("[params]\neps = ▸0", "eps must be above 0"),
    ("[params]\nkernel = ▸9", "kernel must be at least 1 and at most 8"),
    ('[params]\nlr = ▸"0.1"', 'lr must be a number, not "0.1" (remove the quotes)'),
    ("[params]\nlr = ▸true", "lr must be a number, not true"),
    ("[params]\nepochs = ▸false", "epochs must be a whole number, not false"),
    ("[params]\nbatchnorm = ▸1", "batchnorm must be true or false, not 1"),
    ('[params]\nbatchnorm = ▸"true"', "true or false"),
    ("[params]\nmodel = ▸1", "model must be a string, not 1"),
    ('[params]\nmodel = ▸"mpl"', 'must be one of mlp, cnn, not "mpl"; did you mean `mlp`?'),
    ("[params]\nhidden = ▸64", "hidden must be a list of whole numbers, not 64"),
    ("[params]\nhidden = [64,\n  # too narrow\n  ▸0]", "each item of hidden must be at least 1, not 0"),
    ("[params]\nlr = ▸nan", "lr must be a finite number"),
    ("[params]\nlr = ▸inf", "lr must be a finite number"),
    (f"[params]\nlr = ▸{'9' * 400}", "finite number"),
    ("[params]\nlr = ▸1979-05-27 07:32:00", "cannot be a date"),
    ("[params]\n▸optimzer = 1", "unknown parameter `optimzer`; did you mean `optimizer`?"),
    ("[params]\nopt = { ▸lr = 1 }", "unknown parameter `opt.lr`"),
    ("[params.opt]\n▸lr = 1", "unknown parameter `opt.lr`"),
    ("[params]\na.b = 1\n▸'a.b' = 1", "`a.b` is set twice"),
    ("[grid]\n▸zzz = [1]", "the parameters are epochs, batch_size"),
    ("[▸grids]\nlr = [1]", "unknown table [grids]; did you mean `grid`?"),
    ("[▸qq]", "the tables are params, grid"),
    ("▸lr = 1", "put parameters under [params] or [grid]"),
    ("▸nmae = 'x'", "did you mean `name`?"),
    ("name = ▸' '", "name must be a string that is not empty"),
    ("name = ▸1", "name must be a string"),
    ("[▸zip]\nlr = [1]", "write [[zip]]"),
    ("[[▸grid]]\nlr = [1]", "write [grid]"),
    ("▸params = 1", "`params` must be one table"),
    ("[▸grid]", "[grid] is empty"),
    ("[grid]\nlr = ▸[]", "the axis `lr` is empty"),
    ("[grid]\nlr = ▸0.1", "an axis must be a list: lr = [0.1]"),
    ("[grid]\nhidden = ▸[64, 32]", "its axis is a list of lists"),
    ("[grid]\nhidden = [[64], ▸32]", "hidden must be a list"),
    ("▸[[zip]]", "this [[zip]] is empty"),
    ("[[zip]]\nlr = [1, 2]\nmomentum = ▸[0.1]", "`momentum` has 1 values, `lr` has 2"),
    ("[grid]\nlr = [1]\n[[zip]]\n▸lr = [1]", "`lr` already has an axis in [grid]"),
    ("[grid]\nlr = [1]\n[random]\nsamples = 1\n▸lr = { uniform = [0, 1] }", "already has an axis"),
    ("[▸random]\nlr = { uniform = [0, 1] }", "needs `samples`"),
    ("[▸random]\nsamples = 3", "no distribution"),
    ("[random]\nsamples = ▸0\nlr = { uniform = [0, 1] }", "samples must be at least 1"),
    ("[random]\nsamples = 1\nlr = ▸[0, 1]", "`lr` needs a distribution, { uniform"),
    ("[random]\nsamples = 1\nlr = { unifrom = ▸[0, 1] }", "did you mean `uniform`?"),
    ("[random]\nsamples = 1\nlr = { uniform = ▸[1, 0] }", "must be below the second"),
    ("[random]\nsamples = 1\nlr = { uniform = ▸[1] }", "two numbers"),
    ("[random]\nsamples = 1\nlr = { uniform = [0, ▸inf] }", "finite"),
    ("[random]\nsamples = 1\nlr = { choice = ▸{ a = 1 } }", "takes a list"),
    ("[random]\nsamples = 1\nlr = { loguniform = ▸[0, 1] }", "above 0"),
    ("[random]\nsamples = 1\nlr = ▸{ uniform = [0, 1], choice = [1] }", "several distributions"),
    ("[random]\nsamples = 1\nepochs = { int = ▸[1.5, 3] }", "two whole numbers"),
    ("[random]\nsamples = 1\nepochs = { uniform = ▸[1, 30] }", "epochs must be a whole number"),
    ("[random]\nsamples = 1\nepochs = { int = [▸0, 3] }", "epochs must be at least 1"),
    ('[random]\nsamples = 1\nmodel = { choice = ["mlp", ▸"cn"] }', "did you mean `cnn`?"),
    ("[random]\nsamples = 1\noptim.▸lr = { uniform = [0, 1] }", "unknown parameter `optim.lr`"),
    ("[▸repeat]", "needs a list of seeds"),
    ("[repeat]\nseeds = ▸0", "seeds = [0, 1, 2]"),
    ("[repeat]\nseeds = ▸[]", "needs a list of seeds"),
    ("[repeat]\nseeds = [0, ▸-1]", "a seed must be at least 0"),
    ("[repeat]\n▸seed = [1]", "unknown key `seed` in [repeat]; did you mean `seeds`?"),
    ("[repeat]\nseeds = [1]\n[params]\n▸seed = 1", "[repeat] sets the seeds"),
    ("[repeat]\nseeds = [1]\n[grid]\n▸seed = [1]", "[repeat] sets the seeds"),
    ("[repeat]\nseeds = [1]\n[[exclude]]\n▸seed = 1", "[repeat] sets the seeds"),
    ("▸[[exclude]]", "would exclude every run"),
    ("[[exclude]]\n▸lrr = 1", "unknown parameter `lrr`"),
    ("[[exclude]]\nlr = [0.1, ▸'x']", "lr must be a number"),
    ("▸[[exclude]]\nlr = 0.01", "excludes every run of the grid"),
    ("▸[[include]]", "this [[include]] is empty"),
    ("[[include]]\nlr = ▸-1", "lr must be at least 0"),
    ("▸[[set]]\nlr = 0.1", "[[set]] needs a condition"),
    ("[[set]]\nwhen = ▸'sgd'\nlr = 0.1", "[[set]] needs a condition"),
    ("▸[[set]]\nwhen = { lr = 0.01 }", "this [[set]] sets nothing"),
    ("[[set]]\nwhen = { optimizer = ▸'sdg' }\nlr = 0.1", "did you mean `sgd`?"),
    ("[[set]]\nwhen = { ▸optimiser = 'sgd' }\nlr = 0.1", "did you mean `optimizer`?"),
    ("[[set]]\nwhen = { optimizer = 'sgd' }\nlr = ▸-0.1", "at least 0"),
    ("[metrics]\nloss = ▸'minimum'", "the goal of loss must be one of min, max"),
    ("[metrics]\n▸val.loss = 'min'", "in quotes"),
    ("[▸stop]\npatience = 1", "needs a `metric`"),
    ("[▸stop]\nmetric = 'a'", "either `patience`"),
    ("[stop]\nmetric = 'a'\npatience = 1\n▸target = 1", "either `patience`"),
    ("[stop]\nmetric = 'a'\npatience = ▸0", "patience must be at least 1"),
    ("[stop]\nmetric = 'a'\ntarget = ▸nan", "finite"),
    ("[stop]\nmetric = 'a'\n▸patiens = 1", "did you mean `patience`?"),
    ("[metrics]\na = 'max'\n[stop]\nmetric = 'a'\npatience = 1\ngoal = ▸'min'", 'the goal of a as "max"'),
    ("[runtime]\nlog_every = ▸'often'", '"auto"'),
    ("[runtime]\nlog_every = ▸0", "at least 1"),
    ("[runtime]\nkeep = ▸'lst'", "did you mean `last`?"),
    ("[runtime]\nprecision = ▸'fp32'", "must be one of float32"),
    ("[resources]\ngpus = ▸-1", "at least 0"),
    ("[resources]\ntimeout = ▸'2 hours'", '"2h"'),
    ("[resources]\ntimeout = ▸0", "above 0"),
    ("[resources]\n▸gpu = 1", "did you mean `gpus`?"),
    ("task = 'digits'\n▸command = ['a']", "both given"),
    ("[params]\nlr = ▸= 1", "TOML: invalid value"),
    ("[grid]\nlr = [1▸", "unclosed array"),
    ("task = ▸'digit'", "did you mean `digits`?"),
    ("task = ▸'qq'", '"file.py:Class"'),
    ("task = ▸1", "task must be a string"),
    ("task = ▸'absent.py:Task'", "no such file: /"),
    ("task = ▸'absent.py'", '"absent.py:MyTask"'),
    ("task = ▸'absent.py:'", '"absent.py:MyTask"'),
    ("command = ▸'python train.py'", "list of words"),
    ("command = ▸[]", "list of words"),
    ("command = ['a', ▸1]", "a word of command"),
    ("command = ['a',\n '▸{lr}']\n[params]\nlrr = 1", "no run has `lr`; did you mean `lrr`?"),
    ("command = ['▸{b}']\n[grid]\na = [1]\n[[include]]\nb = 1", "not every run has `b`"),
    ("command = ['a']\n[params]\nx = [1, { y = ▸07:32:00 }]", "x cannot be a date or a time"),
]


@pytest.mark.parametrize(("marked", "message"), BAD, ids=[marked.replace("\n", " ")[:60] for marked, _ in BAD])
def test_an_error_has_the_position_of_the_mistake(write: Any, marked: str, message: str) -> None:
    head = "" if marked.startswith(("task", "command")) else 'task = "digits"\n'
    before, _, after = (head + marked).partition("▸")
    path = write(before + after)
    with pytest.raises(GridError) as caught:
        expanded(path)
    error = caught.value
    assert message in error.message
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n") - 1
    assert (error.file, error.line, error.column) == (str(path), line, column + 1)
    quoted = (before + after).split("\n")[line - 1]
    assert str(error).split("\n") == [
        f"{path}:{line}:{column + 1}: {error.message}",
        "    " + (quoted if len(quoted) <= 72 else quoted[:72] + "…"),
        "    " + " " * column + "^",
    ]


def test_a_grid_without_a_task_is_an_error(write: Any) -> None:
    with pytest.raises(GridError, match="a grid needs a task"):
        read_grid(write(""))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.py", b"import torch", "a Python script: labbench new --from .*train.py writes a grid of it"),
        ("sweep.yaml", b"method: grid", "a YAML file"),
        ("runs.db", b"SQLite format 3\0\xff", "a database: labbench --db .*runs.db shows its runs"),
    ],
)
def test_another_file_in_place_of_a_grid_is_answered_with_what_takes_it(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GridError, match=f"not a grid file, but {message}"):
        read_grid(tmp_path / name)


def test_a_missing_file_is_answered_with_the_task_or_the_files_that_there_are(write: Any, tmp_path: Path) -> None:
    with pytest.raises(GridError, match="no such grid file; digits is a task: labbench new --task digits"):
        read_grid(Path("digits"))
    with pytest.raises(GridError, match="no such grid file; a first one is written by labbench new"):
        read_grid(tmp_path / "mine.toml")
    for name, text in (("b.toml", 'task = "digits"'), ("a.toml", 'command = ["x"]'), ("pyproject.toml", "[project]")):
        write(text, name)
    with pytest.raises(GridError, match=r"no such grid file; grid files here: a.toml, b.toml$"):
        read_grid(tmp_path / "mine.toml")


def test_an_unreadable_file_is_an_error(write: Any, tmp_path: Path) -> None:
    write('task = "digits"', "widths.toml")
    with pytest.raises(GridError, match=r"no such grid file; did you mean `widths\.toml`\?"):
        read_grid(tmp_path / "width.toml")
    with pytest.raises(GridError, match="cannot be read: Is a directory"):
        read_grid(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b'task = "\xff"')
    with pytest.raises(GridError, match="not UTF-8 text"):
        read_grid(tmp_path / "binary.toml")
    for absurd in ("[" * 5000 + "]" * 5000, "9" * 5000):
        with pytest.raises(GridError, match=r"nested|thousands"):
            read_grid(write(f"a = {absurd}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=-1", "--set lr=-1: lr must be at least 0, not -1"),
        ("lr=x", 'lr must be a number, not "x"'),
        ("lr=[0.1, 'x']", "lr must be a number"),
        ("hidden=[64, 0]", "each item of hidden must be at least 1"),
        ("lrr=1", "did you mean `lr`?"),
        ("optimizer=adm", "did you mean `adam`?"),
        ("epochs=1979-05-27", "cannot be a date"),
        ("epochs=1\nlr=2", "epochs must be a whole number"),
        ("seed=-1", "seed must be at least 0"),
        ("lr", "write it as key=value"),
        ("=1", "write it as key=value"),
        ("lr=", "write it as key=value"),
    ],
)
def test_an_error_in_an_override_quotes_it(write: Any, override: str, message: str) -> None:
    path = write('task = "digits"\n[grid]\nlr = [0.1, 0.2]\n[repeat]\nseeds = [0, 1]')
    with pytest.raises(GridError) as caught:
        expanded(path, "momentum=0.5", override)
    assert str(caught.value).startswith(f"--set {override}: ")
    assert message in str(caught.value)


def test_rules_that_match_no_run_are_warnings(write: Any) -> None:
    path = write(
        """task = "digits"
[[exclude]]
optimizer = "adam"
[[set]]
when = { optimizer = "adam" }
lr = 0.1
[[set]]
when = { optimizer = "sgd" }
momentum = 0.9
"""
    )
    expansion = expanded(path)[1]
    assert expansion.warnings == [
        f"{path}:2:1: this [[exclude]] matches no run",
        f"{path}:5:1: this `when` matches no run",
    ]
    assert expanded(path, "optimizer=sgd")[1].warnings == []


@pytest.mark.parametrize(
    ("text", "position", "hint"),
    [
        ("[grid]\ndropout = 0.0, 0.3  # two", "2:14", "a statement: write a list, dropout = [0.0, 0.3]"),
        ("[grid]\noptimizer = 'sgd', 'adam'", "2:18", "write a list, optimizer = ['sgd', 'adam']"),
        ("[params]\nepochs = 3x", "2:11", 'write a number alone, or text in quotes, "3x"'),
        ("[grid]\nlr = (0.1, 0.2)", "2:6", "invalid value: write [0.1, 0.2]"),
        ("[grid]\nlr = [0.1 0.2]", "2:11", "put a comma between the items"),
        ("[params]\nlr: 0.1", "2:3", "write lr = 0.1"),
    ],
)
def test_a_slip_of_toml_is_answered_with_the_valid_line(tmp_path: Path, text: str, position: str, hint: str) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(GridError) as raised:
        read_grid(path)
    first_line = str(raised.value).splitlines()[0]
    assert first_line.startswith(f"{path}:{position}: TOML: ")
    assert first_line.endswith(hint)


def test_a_misspelled_grid_file_is_answered_with_the_name_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "first.toml").write_text('task = "digits"')
    for name in ("firts.toml", "firts"):
        with pytest.raises(GridError, match=r"no such grid file; did you mean `first\.toml`\?"):
            read_grid(tmp_path / name)
