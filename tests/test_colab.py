"""The notebooks: clean files, and each one runs as it is, but for its size."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
import types

import pytest

from helpers.paths import ROOT

nbformat = pytest.importorskip("nbformat", reason="the extra `test` is missing")

COLAB = ROOT / "colab"
NAMES = (
    "01_embed_and_search",
    "02_train_dual_encoder_and_export",
    "03_pretrain_with_stacking",
    "04_evaluate_and_mine",
    "05_tpu",
)
SIZE = re.compile(r'^SIZE = "full"', re.MULTILINE)


def read(name: str):
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def code_cells(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_these_are_all():
    assert [path.stem for path in sorted(COLAB.glob("*.ipynb"))] == list(NAMES)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert f"(colab/{name}.ipynb)" in readme


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata == {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    assert len(notebook.cells) <= 25
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert (COLAB / f"{name}.ipynb").stat().st_size < 50_000
    for cell in notebook.cells:
        assert not cell.metadata
        assert cell.source == cell.source.strip()
        assert not re.search(r"[ \t]$", cell.source, re.MULTILINE)
        # A path of this or another machine.
        assert not re.search(
            r"""["'`( ]/(home|root|tmp|work|content|Users|mnt|opt)\b""", cell.source
        )
        if cell.cell_type == "code":
            assert cell.execution_count is None and cell.outputs == []
            compile(cell.source, name, "exec")
    title, settings = notebook.cells[:2]
    assert title.source.startswith("# ")
    # A badge opens this notebook, or there is none.
    for target in re.findall(r"colab-badge\.svg\)\]\((.*?)\)", title.source):
        assert re.search(rf"/github/.+/colab/{name}\.ipynb$", target)
    # How labse_tf gets here is said before the first cell of code.
    assert "`REPOSITORY`" in title.source
    assert re.search("pip wheel --no-deps|checkout", title.source)
    # The first cell of code has the size, the address and the models, and nothing else.
    assert all(re.match(r"[A-Z_]+ = ", line) for line in settings.source.splitlines())
    assert 'REPOSITORY = ""' in settings.source
    source = "\n".join(code_cells(notebook))
    assert len(SIZE.findall(source)) == len(re.findall(r"\bSIZE = ", source)) == 1
    assert 'SIZE == "small"' in source


@pytest.mark.parametrize("status", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_installing_shows_a_line_of_progress(name, status, tmp_path, capsys):
    """The notebook's own function, with a program in the place of pip."""
    cell = next(c for c in code_cells(read(name)) if "def install(" in c)
    tree = ast.parse(cell)
    body = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "install"
    ]
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert "install" in {ast.unparse(call.func) for call in calls}
    assert "--quiet" not in cell
    program = tmp_path / "python"
    program.write_text(
        f"#!/bin/sh\necho Collecting $4\necho Error >&2\nexit {status}\n"
    )
    program.chmod(0o755)
    names = {
        "sys": types.SimpleNamespace(executable=str(program)),
        "subprocess": subprocess,
        "time": time,
    }
    exec(compile(ast.Module(body, []), name, "exec"), names)
    if status:
        with pytest.raises(RuntimeError, match="Collecting wheel\nError"):
            names["install"]("wheel")
    else:
        names["install"]("wheel")
    shown = capsys.readouterr().out.split("\r")
    assert re.match(r"installing, 0 s: Collecting wheel +$", shown[1])
    assert shown[-1].startswith("installed in " if not status else "installing, ")


def test_the_tpu_list_keeps_tensorflow_out():
    """What asks for `tensorflow` stands behind the mark; the notebook reads both."""
    lines = (COLAB / "requirements-tpu.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("# ")]
    first, second = lines[: (cut := lines.index("#--no-deps"))], lines[cut + 1 :]
    assert any(re.fullmatch(r"tensorflow-tpu==2\.20\.\d", line) for line in first)
    assert not any(re.match(r"tensorflow(-text|-cpu|[=<>])", line) for line in first)
    assert not any(line.startswith("keras-hub") for line in first)
    assert [line.partition("==")[0] for line in second] == [
        "tensorflow-text",
        "keras-hub",
    ]
    assert '"#--no-deps"' in "\n".join(code_cells(read("05_tpu")))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run(name, tmp_path, monkeypatch):
    """Every cell as it is, but for the one assignment of the size."""
    nbclient = pytest.importorskip("nbclient", reason="the extra `test` is missing")
    pytest.importorskip("ipykernel", reason="the extra `test` is missing")
    for module in ("django", "tensorflow_hub", "matplotlib"):
        pytest.importorskip(
            module, reason="the extra `quickstart` or `plots` is missing"
        )
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = SIZE.sub('SIZE = "small"', cell.source)
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    # The kernel of this interpreter, whatever "python3" is in the user's folder.
    client.km = client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    assert re.search(r"running on: (TPU|GPU|CPU|\d+ (TPU|GPU))", printed)
    images = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(images) == sum("plt.show()" in cell for cell in code_cells(notebook))
