"""Versions of W&B's artifacts, and what scripts read again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from helpers.scripts import only_run
from helpers.wandb_scripts import run_script
from labbench.store.reader import Reader


def artifact_names(folder: Path) -> list[str]:
    with Reader(folder / "runs.db") as reader:
        return [artifact.name for artifact in reader.artifacts(only_run(folder).key)]


VERSIONS_SCRIPT = """
from labbench import wandb

run = wandb.init(project="art", id="first")
for value in (0, 1, 1, 2):
    with open("model.pt", "w") as file:
        file.write(f"weights {value}")
    artifact = wandb.Artifact("model", type="model", metadata={"acc": value})
    artifact.add_file("model.pt")
    artifact.add_file("train.py")
    run.log_artifact(artifact, aliases=["latest", "best"] if value == 1 else ["latest"])
    print(artifact.version)
wandb.save("model.pt")
"""


def test_each_version_of_an_artifact_is_kept_and_equal_content_stored_once(tmp_path: Path) -> None:
    result = run_script(tmp_path, VERSIONS_SCRIPT)
    assert (result.returncode, result.stderr, result.stdout.split()) == (0, "", ["v0", "v1", "v1", "v2"])
    run = only_run(tmp_path)
    folder = tmp_path / "runs.db.files" / run.key
    with Reader(tmp_path / "runs.db") as reader:
        paths = {artifact.name: artifact.path for artifact in reader.artifacts(run.key)}
    names = [f"model:v{number}/model.pt" for number in range(3)]
    assert [(folder / paths[name]).read_text() for name in names] == ["weights 0", "weights 1", "weights 2"]
    assert paths["model/model.pt"] == "model:v2/model.pt"
    assert {paths[f"model:v{number}/train.py"] for number in range(3)} == {"model:v0/train.py"}
    copies = [file for file in folder.rglob("*") if file.name in ("model.pt", "train.py")]
    assert len(copies) == 3 + 1 + 1  # three models, one script, and the file of `save`
    listed = json.loads((folder / "model:versions.json").read_text())
    assert listed["aliases"] == {"latest": 2, "best": 1}
    assert [version["metadata"] for version in listed["versions"]] == [{"acc": 0}, {"acc": 1}, {"acc": 2}]


def test_another_run_uses_an_artifact_by_its_alias_and_restores_files(tmp_path: Path) -> None:
    assert run_script(tmp_path, VERSIONS_SCRIPT).returncode == 0
    code = """
    from labbench import wandb
    run = wandb.init(project="fine-tuning")
    best = run.use_artifact("my-team/art/model:best", type="model")
    print(best.version, best.metadata["acc"], open(best.download() + "/model.pt").read())
    print(open(wandb.use_artifact("model:v0").download("old") + "/model.pt").read())
    print(wandb.restore("model.pt", run_path="my-team/art/first").read())
    """
    result = run_script(tmp_path, code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["v1 1 weights 1", "weights 0", "weights 2"]


def test_large_versions_without_an_alias_are_replaced(tmp_path: Path) -> None:
    code = """
    from labbench import wandb
    from labbench.wandb import artifact_versions
    artifact_versions.MAX_BYTES = 10
    run = wandb.init()
    for value in range(6):
        artifact = wandb.Artifact("model", type="model")
        with artifact.new_file("model.pt") as file:
            file.write(f"model {value}")
        run.log_artifact(artifact, aliases=["best"] if value in (1, 3) else None)
        print(artifact.version)
    """
    result = run_script(tmp_path, code)
    assert result.stdout.split() == ["v0", "v1", "v2", "v2", "v3", "v3"]
    assert result.stderr.count("a version without an alias of its own is replaced by the next one") == 1
    folder = tmp_path / "runs.db.files" / only_run(tmp_path).key
    contents = {path.parent.name: path.read_text() for path in folder.glob("model:v*/model.pt")}
    assert contents == {"model:v0": "model 0", "model:v1": "model 1", "model:v2": "model 3", "model:v3": "model 5"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("wandb.Api().runs('team/project')", "labbench.open()"),
        ("wandb.restore('ckpt.pt').name", "has no file ckpt.pt"),
        ("run.use_artifact('model:best').download()", "has recorded the artifact model:best"),
        ("run.use_model('model:best')", "labbench.open()"),
        ("wandb.Artifact('a', type='model').download()", "labbench.open()"),
    ],
)
def test_a_reading_call_without_a_result_raises(tmp_path: Path, call: str, words: str) -> None:
    result = run_script(tmp_path, f"from labbench import wandb\nrun = wandb.init()\n{call}\n")
    assert result.returncode == 1
    assert re.search(
        rf"^labbench\.(errors\.InputError|wandb\.reading\.NotRecorded): .*{re.escape(words)}", result.stderr, re.M
    )


def test_a_missing_artifact_is_an_error_of_wandb_and_logging_never_raises(tmp_path: Path) -> None:
    code = """
    from labbench import wandb
    run = wandb.init()
    for call in (lambda: run.use_artifact("model:best"), lambda: wandb.restore("ckpt.pt")):
        try:
            call()
        except (wandb.errors.CommError, ValueError):
            print("begin from scratch")
    artifact = wandb.Artifact("data", type="dataset")
    artifact.add_file("missing.bin")
    artifact.add_reference("s3://bucket/x")
    run.log_artifact(artifact)
    run.log_artifact(wandb.Artifact("..", type="dataset"))
    run.log_artifact("missing.bin", name="other")
    """
    result = run_script(tmp_path, code)
    assert (result.returncode, result.stdout) == (0, 2 * "begin from scratch\n"), result.stderr
    assert artifact_names(tmp_path) == []


def test_a_list_of_versions_by_others_reads_and_writes_within_the_folders(tmp_path: Path) -> None:
    assert run_script(tmp_path, VERSIONS_SCRIPT).returncode == 0
    listed = tmp_path / "runs.db.files" / only_run(tmp_path).key / "model:versions.json"
    content = json.loads(listed.read_text())
    file = content["versions"][1]["files"]["model.pt"]
    content["versions"][1]["files"] = {"../../escaped.pt": file, "other.pt": file | {"path": "../../train.py"}}
    content["aliases"] |= {"broken": 7, "worse": [1]}
    listed.write_text(json.dumps(content))
    code = """
    from labbench import wandb
    run = wandb.init(project="art")
    for alias in ("best", "broken"):
        try:
            print(run.use_artifact(f"model:{alias}").download("artifacts/in"))
        except wandb.Error as error:
            print(type(error).__name__)
    """
    result = run_script(tmp_path, code)
    assert (result.returncode, result.stdout.split()) == (0, ["NotRecorded", "NotRecorded"]), result.stderr
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*escaped*")]
    assert written == ["artifacts/in/escaped.pt"]
