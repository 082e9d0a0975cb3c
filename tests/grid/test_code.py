"""Code versions: they change if and only if the result of a task's files may have changed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbench.errors import InputError
from labbench.grid.code import changed_files, command_code, task_code, tree_digest

SAMPLE = '''
"""Module with one of each construct that Python versions parse differently."""
from __future__ import annotations
import os.path as path, sys  # a comment
from . import sibling
from .package.module import name as other, another

CONSTANTS = [1, -2, 0x10, 1_000, 1.5, 1e400, 2j, True, None, ..., b"bytes\\x00", "text \\u00e9 \\ud800", u"kind"]

@decorated(argument=1)
class Base(object, metaclass=type):
    """A docstring."""
    field: int = 3
    slot: "str"

    async def method(self, a, /, b=1, *args: int, c, d=None, **kwargs) -> str:
        """Another."""
        async with open(a) as f, b:
            pass
        async for x in await a:
            yield x
        return f"{a!r:>{b}} {a=} {{}} {a:%Y-%m-%d}" "joined" f"{b:.3f}{c}" rf"\\d{d}"

def function(x: int = 0, *, key=lambda y, *z: (y, *z)):
    global CONSTANTS
    "a string that is never used"
    match x:
        case [1, 2, *rest] if rest:
            pass
        case {"a": 1, **others} | Base(field=3) as whole:
            return whole
        case None | -1 | _:
            ...
    try:
        raise ValueError from None
    except* (TypeError, ValueError) as error:
        del error
    else:
        assert x, "message"
    finally:
        while (n := len(x)) > 10 and not x or ~n:
            x @= x[1:2, ::3, ...]
            continue
    return {**{}, "k": [*x], **dict(a=1)}, {i: j for i, j in x if i for k in j}, {*x}, (i async for i in x)
'''


def digest(source: str) -> str:
    return tree_digest(ast.parse(source))


def test_the_digest_of_a_file_is_the_same_on_every_python() -> None:
    """CI runs this on 3.11 to 3.13, since another digest would train every grid again after an upgrade of Python."""
    assert digest("") == "01edc8223b6745d8270ca41d81bff6ec7ae9403c2f2e102848750f3e8b38c602"
    assert digest("x = 1") == "1748c9702d1c4e2c0ab6f69955b7930126d1866086923262bd114b42a3c7e30e"
    assert digest(SAMPLE) == "1a5115202ed71cac1a38568cb3ca5a777218adc269d2778f06099fdf3bc9bfd1"


@pytest.mark.parametrize(
    "same",
    [
        "def f(x):\n    return x + 1  # a comment\n",
        "def f(x):\n\n    # a comment\n    return (x + 1)\n",
        'def f(x):\n    """A docstring."""\n    return x + 1\n',
        '"""Of the module."""\ndef f(x): return x + 0x1\n',
        "def f(\n    x,\n):\n    return x \\\n        + 1\n",
        "def f(x):\n    return x + 1\n'never used'\n",
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_digest(same: str) -> None:
    assert digest(same) == digest("def f(x):\n    return x + 1\n")


@pytest.mark.parametrize(
    "other",
    [
        "def f(x):\n    return x + 2\n",
        "def f(x):\n    return x + 1.0\n",
        "def f(x):\n    return x + True\n",
        "def f(x):\n    return x - 1\n",
        "def f(x=None):\n    return x + 1\n",
        "def f(*, x):\n    return x + 1\n",
        "def f(x, /):\n    return x + 1\n",
        "def g(x):\n    return x + 1\n",
        "def f(x):\n    x + 1\n",
        "async def f(x):\n    return x + 1\n",
        "def f(x):\n    return '''x''' + 1\n",
    ],
)
def test_every_change_of_the_computation_changes_the_digest(other: str) -> None:
    assert digest(other) != digest("def f(x):\n    return x + 1\n")


def test_a_string_that_is_used_is_part_of_the_digest() -> None:
    assert digest("x = 'a'") != digest("x = 'b'")
    assert digest("f('a')") != digest("f('b')")
    assert digest("x = f'{y} a'") != digest("x = f'{y} b'")
    assert digest("x = f'{y:a}'") != digest("x = f'{y:b}'")
    assert digest("x = f'a' 'b' f'{y}'") == digest("x = f'ab{y}'")


names = st.sampled_from("abc")
expressions = st.recursive(
    names | st.integers(0, 9).map(str) | st.text(max_size=2).map(repr),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.tuples(names, st.lists(inner, max_size=3)).map(lambda call: f"{call[0]}({', '.join(call[1])})")
        | st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda term: f"({' '.join(term)})")
    ),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a machine that is busy
@given(expressions, expressions)
def test_two_expressions_have_the_same_digest_exactly_if_they_parse_alike(left: str, right: str) -> None:
    alike = ast.dump(ast.parse(f"x = {left}")) == ast.dump(ast.parse(f"x = {right}"))
    assert (digest(f"x = {left}") == digest(f"x = {right}")) == alike


def test_a_sum_of_a_thousand_terms_has_a_digest() -> None:
    assert digest(" + ".join("a" * 1000)) != digest(" + ".join("a" * 1001))


def test_the_code_of_a_task_is_its_file_and_the_modules_beside_it_that_it_imports(tmp_path: Path) -> None:
    files = {
        "task.py": "import torch, layers.dense\nfrom sizes import WIDTH\ndef f():\n    from late import thing\n",
        "sizes.py": "import deeper",
        "deeper.py": "import task",
        "late.py": "",
        "layers/__init__.py": "from . import norm",
        "layers/dense.py": "from .norm import Norm\nfrom ..outside import x\nfrom layers import *",
        "layers/norm.py": "",
        "layers/unused.py": "",
        "unused.py": "",
        "spaces/deep/module.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    code = task_code(tmp_path / "task.py")
    expected = [
        "task.py",
        "deeper.py",
        "late.py",
        "layers/__init__.py",
        "layers/dense.py",
        "layers/norm.py",
        "sizes.py",
    ]
    assert next(iter(code.files)) == "task.py"
    assert sorted(code.files) == sorted(expected)
    (tmp_path / "unused.py").write_text("x = 1")
    (tmp_path / "late.py").write_text("# a comment")
    assert task_code(tmp_path / "task.py") == code
    (tmp_path / "task.py").write_text(files["task.py"] + "import spaces.deep.module\n")
    now = task_code(tmp_path / "task.py")
    assert changed_files(code.files, now.files) == ["spaces/deep/module.py", "task.py"]
    assert now.version != code.version
    (tmp_path / "late.py").write_text("x = 2")
    assert changed_files(now.files, task_code(tmp_path / "task.py").files) == ["late.py"]


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("from importlib import import_module\nnets = import_module('nets')", "nets.py"),
        ("nets = __import__('nets')", "nets.py"),
        ("import importlib\nlib = importlib.import_module('lib.nets')", "lib/nets.py"),
        ("from lib import *", "lib/nets.py"),
        ("import sys\nsys.path.insert(0, 'lib')\nimport nets", "lib/nets.py"),
        (
            "import os, sys\nsys.path.append(os.path.join(os.path.dirname(__file__), 'src'))\nimport a.nets",
            "src/a/nets.py",
        ),
        ("import sys\nsys.path[:0] = ['./src/../src']\nimport a.nets", "src/a/nets.py"),
        ("import paths\nimport a.nets", "src/a/nets.py"),
    ],
)
def test_modules_are_found_by_other_ways_to_import_them(tmp_path: Path, text: str, module: str) -> None:
    for name in ("nets.py", "lib/nets.py", "src/a/nets.py", "src/a/unused.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("WIDTH = 3")
    (tmp_path / "lib/__init__.py").write_text("__all__ = ['nets']")
    (tmp_path / "paths.py").write_text(
        "import sys\nfrom pathlib import Path\nsys.path += [str(Path(__file__).parent / 'src')]"
    )
    (tmp_path / "task.py").write_text(text)
    code = task_code(tmp_path / "task.py")
    assert module in code.files
    assert "src/a/unused.py" not in code.files
    (tmp_path / module).write_text("WIDTH = 4")
    assert changed_files(code.files, task_code(tmp_path / "task.py").files) == [module]


def test_a_module_that_python_cannot_parse_is_identified_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("try:\n    import old\nexcept SyntaxError:\n    pass\n")
    (tmp_path / "old.py").write_text("print 1")
    before = task_code(tmp_path / "task.py")
    (tmp_path / "old.py").write_text("print 1 # a comment")
    assert changed_files(before.files, task_code(tmp_path / "task.py").files) == ["old.py"]


def test_a_command_is_identified_by_its_words_and_the_bytes_of_its_script(tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_bytes(b"#!/bin/sh\n")
    before = command_code(["sh", "train.sh"], script)
    script.write_bytes(b"#!/bin/sh\n# \xff\n")
    now = command_code(["sh", "train.sh"], script)
    assert changed_files(before.files, now.files) == ["train.sh"]
    assert changed_files(now.files, command_code(["sh", "train.sh", "-v"], script).files) == ["the command"]
    assert command_code(["true"], None).version != command_code(["false"], None).version
    script.unlink()
    with pytest.raises(InputError, match=r"train\.sh cannot be read: No such file"):
        command_code(["sh"], script)


def test_invalid_escapes_give_no_warning(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(r"x = '\d'")
    file = str(tmp_path / "task.py")
    program = f"from pathlib import Path\nfrom labbench.grid.code import task_code\ntask_code(Path({file!r}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True)
    assert done.stderr == ""
