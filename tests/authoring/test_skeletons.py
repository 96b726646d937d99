"""What ``kmsplug plugin new`` writes compiles, passes its own tests and the whole kit, as it stands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conformance.drivers import failures, skipped
from kmsplug_host.authoring.skeleton import Language, write
from kmsplug_host.conformance import run
from kmsplug_host.errors import ConfigurationError
from support.cli import Cli

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "host" / "kmsplug_host" / "authoring" / "templates"
NAME = "acme-box"

# As an installed package would be found; the kit starts it in other folders and environments.
RUN_PYTHON = """
import sys
sys.path.insert(0, {folder!r})
from kmsplug_driver_acme_box import main
sys.argv[1:] = []
main()
"""


def built(language: Language, folder: Path) -> list[str]:
    """Write a skeleton, build it, run its own tests, and return what starts it."""
    write(NAME, language, folder)
    program = folder / f"kmsplug-driver-{NAME}"
    match language:
        case Language.PYTHON:
            quick = ["-p", "no:cacheprovider", "-k", "not conforms"]  # the kit is run below
            run_tests([sys.executable, "-m", "pytest", "-q", *quick, "tests"], folder)
            return [sys.executable, "-c", RUN_PYTHON.format(folder=str(folder))]
        case Language.GO:
            if shutil.which("go") is None:
                pytest.skip("GO NOT CHECKED: there is no Go compiler")
            run_tests(["go", "vet", "."], folder)
            run_tests(["go", "test", "."], folder)
            run_tests(["go", "build", "-o", str(program), "."], folder)
        case Language.NODE:
            if shutil.which("node") is None:
                pytest.skip("NODE NOT CHECKED: there is no Node")
            run_tests(["node", "--test", "tests/"], folder)
    return [str(program)]


def run_tests(command: list[str], folder: Path) -> None:
    go = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}
    environment = {**os.environ, **go, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("language", Language)
def test_a_skeleton_builds_passes_its_tests_and_conforms(language: Language, tmp_path: Path) -> None:
    report = run(built(language, tmp_path / "driver"), strict=True, timeout_s=60)

    assert failures(report) == {}
    assert len(report.cases) - len(skipped(report)) > 120
    assert report.driver["name"] == NAME


@pytest.mark.parametrize("language", Language)
def test_a_skeleton_has_tests_ci_a_readme_and_no_word_of_the_template_left(
    language: Language, tmp_path: Path
) -> None:
    files = {str(path.relative_to(tmp_path)): path.read_text() for path in write(NAME, language, tmp_path)}

    assert {"README.md", ".gitignore", ".github/workflows/ci.yml", "plugins.toml"} <= files.keys()
    assert any("test" in name for name in files)
    assert "kmsplug conformance --strict" in files[".github/workflows/ci.yml"]
    assert not [name for name, text in files.items() if re.search("@[A-Z]+@", name + text)]


def test_what_skeletons_and_examples_share_is_the_same() -> None:
    """The protocol's half of a driver in Go or Node is written once, as an example, and copied here."""
    for language, names in {
        "go": ("wire.go", "params.go", "session.go", "dumps_linux.go", "dumps_other.go"),
        "node": ("wire.mjs", "params.mjs", "session.mjs"),
    }.items():
        for name in names:
            example = (ROOT / "examples" / "drivers" / language / name).read_text(encoding="utf-8")
            template = (TEMPLATES / language / f"{name}.tmpl").read_text(encoding="utf-8")
            assert template == example, f"copy examples/drivers/{language}/{name} into the templates"


@pytest.mark.parametrize(
    "name", ["", "Acme", "acme--x", "-acme", "../acme", "a b", "acme;rm", "x" * 41, "1acme"]
)
def test_a_name_that_no_package_could_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no name for a driver"):
        write(name, Language.GO, tmp_path / "driver")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(cli: Cli) -> None:
    (cli.folder / "mine").mkdir()
    (cli.folder / "mine" / "file").write_text("mine")

    done = cli("plugin", "new", "acme", "--folder", "mine", code=2)

    assert b"mine is not empty" in done.stderr
    assert [path.name for path in (cli.folder / "mine").iterdir()] == ["file"]


def test_a_new_driver_is_written_beside_and_its_files_are_told(cli: Cli) -> None:
    document = cli.json("plugin", "new", "acme", "--lang", "node")

    assert document["folder"] == "kmsplug-driver-acme"
    assert "driver.mjs" in document["files"]
    program = cli.folder / "kmsplug-driver-acme" / "kmsplug-driver-acme"
    assert os.access(program, os.X_OK)
    assert json.loads((program.parent / "package.json").read_text())["name"] == "kmsplug-driver-acme"
