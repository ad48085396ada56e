"""What a run says of its origin: the source is restored from it, and no secret stands in it."""

import json
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from srp_exp.runs.folder import provenance as module
from srp_exp.runs.folder.provenance import device_name, provenance

CPU = torch.device("cpu")
SOURCE = Path("srp_exp") / "runs" / "folder" / "provenance.py"


def git(folder: Path, *arguments: str, stdin: str | None = None) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, from which srp_exp seems to run."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # as a hook of git sets them
    root = tmp_path / "checkout"
    (root / SOURCE).parent.mkdir(parents=True)
    (root / SOURCE).write_text("one\ntwo\nthree\n")
    (root / "README.md").write_text("A readme\n\nof three lines\n\n")
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(module, "__file__", str(root / SOURCE))
    return root


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    found = provenance(CPU)
    assert found["commit"] == git(checkout, "rev-parse", "HEAD").strip()
    assert found["diff"] == ""


def test_the_diff_restores_the_uncommitted_source(checkout: Path, tmp_path: Path) -> None:
    (checkout / SOURCE).write_text("one\n2\nthree\n")
    (checkout / "README.md").write_text("Another readme\n\nof three lines\n\n")  # ends with an empty line of context
    (checkout / "staged.py").write_text("print()\n")
    git(checkout, "add", "staged.py")
    found = provenance(CPU)
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "--quiet", str(checkout), str(copy))
    git(copy, "checkout", "--quiet", found["commit"])
    git(copy, "apply", stdin=found["diff"])
    for name in (SOURCE, Path("README.md"), Path("staged.py")):
        assert (copy / name).read_text() == (checkout / name).read_text()


def test_a_change_that_is_not_utf8_stops_nothing(checkout: Path) -> None:
    (checkout / SOURCE).write_bytes("größer\n".encode("latin-1"))
    found = provenance(CPU)
    assert "+gr" in found["diff"]
    json.dumps(found).encode()


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / SOURCE))
    (tmp_path / "site-packages" / SOURCE).parent.mkdir(parents=True)
    found = provenance(CPU)
    assert found["commit"] is None
    assert found["diff"] is None


def test_an_installation_inside_another_repository_is_not_its_commit(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = checkout / ".venv" / "site-packages" / SOURCE
    installed.parent.mkdir(parents=True)
    installed.write_text("one\n")
    (checkout / "README.md").write_text("somebody else's change\n")
    monkeypatch.setattr(module, "__file__", str(installed))
    found = provenance(CPU)
    assert found["commit"] is None
    assert found["diff"] is None


def test_without_git_there_is_no_commit(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    assert provenance(CPU)["commit"] is None


def test_no_value_of_an_environment_variable_is_told(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_TOKEN", "AWS_SECRET_ACCESS_KEY", "PASSWORD", "SOMETHING"):
        monkeypatch.setenv(name, f"tellme-{name}-7f3a")
    (checkout / SOURCE).write_text("changed\n")
    text = json.dumps(provenance(CPU))
    assert "tellme" not in text
    assert "AWS_SECRET_ACCESS_KEY" not in text


def test_the_rest_describes_this_process(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/srp-exp", "dataset=cifar10", "srp.last=0.4"])
    found = provenance(CPU)
    assert found["command"] == ["srp-exp", "dataset=cifar10", "srp.last=0.4"]
    assert found["python"] == platform.python_version()
    assert found["host"] == platform.node()
    assert found["threads"] == torch.get_num_threads()
    for name in ("torch", "timm", "pyarrow"):
        assert found["packages"][name] == metadata.version(name)
    assert found["device"] == device_name(CPU)
    assert json.loads(json.dumps(found)) == found


def test_a_device_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(device_name(CPU), str)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cuda", 1)) == "GPU 1"


def test_a_processor_without_cpuinfo_is_named_by_python(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = SimpleNamespace(exists=lambda: False)
    monkeypatch.setattr(module, "Path", lambda _: absent)
    assert device_name(CPU) == platform.processor()
