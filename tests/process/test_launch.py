"""How a driver is launched: variables, limits, levels that must be said, executables that can be trusted."""

import hashlib
import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import zipapp
from pathlib import Path
from typing import Any

import pytest
from kmsplug_host import Host, Isolation
from kmsplug_host._guardian import landlock
from kmsplug_host.config import PluginSettings
from kmsplug_host.errors import ConfigurationError, PluginUnavailable
from msgspec.structs import asdict
from support.host import DRIVERS, LONG_S, bad_driver, bench, misbehaving, nothing_left, wait_until
from support.isolation import require

MINIMAL = (DRIVERS / "hostile_sibling.py").read_text()
"""A driver of one file, in Python, without anything beside it."""


def refusal(**plugin: Any) -> str:
    """Return why a plugin is refused before anything is started."""
    with nothing_left(), pytest.raises(ConfigurationError) as caught:
        Host.open({"plugins": {"main": plugin}})
    return str(caught.value)


def opens(**plugin: Any) -> None:
    """Open a host with this plugin, whose driver is the minimal one."""
    with nothing_left(), Host.open({"plugins": {"main": plugin}}) as host:
        assert host.plugins()[0].identity == "hostile:1"


def executable(path: Path, text: str | bytes) -> Path:
    """Write an executable file."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o755)
    return path


def script(folder: Path) -> Path:
    """Write the minimal driver as a script."""
    return executable(folder / "driver", f"#!{sys.executable} -I\n{MINIMAL}")


def sha256(path: Path) -> str:
    """Return the pin of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", [
    "LD_PRELOAD", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "NODE_OPTIONS", "GODEBUG", "OPENSSL_CONF",
    "OPENSSL_MODULES", "GCONV_PATH", "SSLKEYLOGFILE", "BASH_ENV", "ENV", "AWS_ENDPOINT_URL_KMS",
])  # fmt: skip
def test_variables_that_load_code_or_reveal_secrets_are_refused(name: str) -> None:
    for given in ({"env": [name]}, {"set_env": {name: "x"}}):
        assert f"{name} is never handed on" in refusal(driver="local", **given)


def test_a_driver_has_limits_no_core_dumps_and_cannot_gain_privileges(tmp_path: Path) -> None:
    limits = {"data_mb": 300, "open_files": 99, "file_mb": 5}
    with bad_driver(tmp_path, "looks_around", limits=limits) as bad:
        found = json.loads(bad.keystore.mac("k", b"look").mac)["limits"]

    assert found["CORE"] == [0, 0]
    assert found["DATA"] == [300 * 2**20] * 2
    assert found["NOFILE"] == [99, 99]
    assert found["FSIZE"] == [5 * 2**20] * 2
    assert found["NoNewPrivs"] == "1"
    for never in ("AS", "NPROC"):  # the one breaks Go and Node, the other counts all processes of the user
        assert found[never] == list(resource.getrlimit(getattr(resource, f"RLIMIT_{never}")))


def test_a_command_must_say_its_isolation(tmp_path: Path) -> None:
    said = refusal(command=[str(script(tmp_path))])

    assert "plugins.main: a command needs isolation =" in said
    assert '"process", which protects from faults and not from malice' in said


def test_nothing_weaker_is_chosen_for_a_command_where_the_kernel_has_no_landlock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    for level in ("auto", "landlock"):
        assert "plugins.main.isolation: this kernel has no Landlock" in refusal(
            command=[str(script(tmp_path))], isolation=level
        )


def test_an_installed_driver_runs_without_landlock_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr("kmsplug_host._isolation._warned", set())
    plugins = {
        name: {"driver": "local", "config": {"path": str(tmp_path / name)}} for name in ("first", "second")
    }
    with nothing_left(), Host.open({"plugins": plugins}) as host:
        assert {plugin.isolation for plugin in host.plugins()} == {Isolation.PROCESS}

    assert sum("no Landlock" in record.getMessage() for record in caplog.records) == 1


def test_an_installed_driver_is_confined_by_default_and_says_so(tmp_path: Path) -> None:
    require("landlock")
    plugins = {"main": {"driver": "local", "config": {"path": str(tmp_path / "deep" / "store")}}}
    with nothing_left(), Host.open({"plugins": plugins}) as host:
        assert host.plugins()[0].isolation is Isolation.LANDLOCK
        assert len(host.keystore("main").random(8)) == 8

    assert stat.S_IMODE((tmp_path / "deep" / "store").stat().st_mode) == 0o700


def test_bwrap_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmsplug_host._isolation.SYSTEM_PATH", str(tmp_path))

    assert "plugins.main.isolation: there is no program bwrap" in refusal(driver="local", isolation="bwrap")


def test_a_confined_driver_writes_only_where_its_settings_say(tmp_path: Path) -> None:
    require("landlock")
    given, folder = tmp_path / "given", tmp_path / "journal-of-the-test"
    given.mkdir()
    folder.mkdir()
    for paths, reached in (([], "starts"), ([str(folder)], "")):
        plugin = misbehaving(folder, "good", isolation="landlock", write_paths=paths)
        if reached:  # it counts its starts in the folder
            with bench(folder), pytest.raises(Exception, match="exit status 1"):
                Host.open({"plugins": {"bad": plugin}})
            shutil.rmtree(folder)
            folder.mkdir()
        else:
            with bench(folder), Host.open({"plugins": {"bad": plugin}}) as host:
                assert len(host.keystore("bad").random(8)) == 8


def test_the_folder_of_a_driver_goes_even_when_its_guardian_is_killed(tmp_path: Path) -> None:
    with bad_driver(tmp_path, "looks_around") as bad:
        folder = Path(json.loads(bad.keystore.mac("k", b"look").mac)["cwd"])
        assert folder.is_dir()
        process = bad.host._plugins["bad"]._fleet.replicas[0].process
        assert process is not None
        process._popen.kill()

        wait_until(lambda: not folder.exists(), "the folder to go")
        assert len(bad.keystore.random(8)) == 8


def test_a_driver_cannot_make_the_host_delete_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    links = f"ln -s {precious} link; mkdir sub; ln -s {precious}/file sub/link"
    program = f"#!/bin/sh\n{links}; exec {script(tmp_path)}\n"
    opens(command=[str(executable(tmp_path / "links", program))], isolation="process")

    assert (precious / "file").exists()


@pytest.mark.parametrize("what", ["file", "folder", "target", "link's folder"])
def test_an_executable_that_others_can_change_is_refused(tmp_path: Path, what: str) -> None:
    real, linked = tmp_path / "real", tmp_path / "linked"
    real.mkdir()
    linked.mkdir()
    path = script(real)
    link = linked / "driver"
    link.symlink_to(path)
    wrong = {"file": path, "folder": real, "target": path, "link's folder": linked}[what]
    wrong.chmod(0o777)
    chosen = path if what in ("file", "folder") else link

    assert f"plugins.main.command: others can write to {wrong}" in refusal(
        command=[str(chosen)], isolation="process"
    )
    wrong.chmod(0o755)
    opens(command=[str(chosen)], isolation="process")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_executable_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = script(tmp_path)
    os.chown(path, 4242, 4242)

    assert "belongs to uid 4242, who could change what is run" in refusal(
        command=[str(path)], isolation="process"
    )


def test_an_executable_that_is_changed_while_the_host_runs_is_not_started_again(tmp_path: Path) -> None:
    path = script(tmp_path)
    with (
        nothing_left(),
        Host.open(
            {"plugins": {"main": {"command": [str(path)], "isolation": "process", "sha256": sha256(path)}}}
        ) as host,
    ):
        path.write_text(path.read_text() + "# changed\n")
        os.kill(host.plugins()[0].replicas[0].pid or 0, 9)
        wait_until(lambda: "not the pinned one" in str(host.plugins()[0].last_error), "the refusal")

        with pytest.raises(PluginUnavailable, match="ready"):
            host.keystore("main").mac("k", b"message", timeout=0.1)


def shell_driver(folder: Path) -> Path:
    return executable(folder / "shell", f"#!/bin/sh\nexec {script(folder)}\n")


def archive_driver(folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    (source / "__main__.py").write_text("import inside\n")
    (source / "inside.py").write_text(MINIMAL)
    zipapp.create_archive(source, folder / "archive", sys.executable)
    return folder / "archive"


def console_driver(folder: Path) -> Path:
    return executable(folder / "console", f"#!{sys.executable}\nimport kmsplug_protocol\n{MINIMAL}")


def compiled_driver(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("COMPILED DRIVER NOT CHECKED: there is no C compiler")
    source = folder / "driver.c"
    path = json.dumps(str(script(folder)))
    source.write_text(f"#include <unistd.h>\nint main(void) {{ return execl({path}, {path}, (char *)0); }}\n")
    subprocess.run([compiler, "-o", folder / "compiled", source], check=True, timeout=60)
    return folder / "compiled"


@pytest.mark.parametrize("kind", [shell_driver, archive_driver, console_driver, compiled_driver, script])
@pytest.mark.parametrize("level", ["process", "landlock", "bwrap"])
def test_a_pinned_executable_runs_from_sealed_memory(tmp_path: Path, kind: Any, level: str) -> None:
    require(level)
    path = kind(tmp_path)
    needs = [sys.prefix, sys.base_prefix, str(tmp_path / "driver"), str(DRIVERS.parents[1] / "protocol")]
    opens(command=[str(path)], isolation=level, sha256=sha256(path).upper(), read_paths=needs)


def test_a_pin_that_does_not_fit_is_told_and_nothing_runs(tmp_path: Path) -> None:
    path = script(tmp_path)
    with nothing_left(), pytest.raises(PluginUnavailable, match="which is not the pinned one") as caught:
        Host.open({"plugins": {"main": {"command": [str(path)], "isolation": "process", "sha256": "0" * 64}}})
    assert sha256(path) in str(caught.value)


@pytest.mark.parametrize(("text", "reason"), [
    ("#!/usr/bin/env node\nrequire('./other')\n", "runs by its path only"),
    (f"#!{sys.executable}\nimport neighbour\n", "imports 'neighbour' from beside it"),
    (f"#!{sys.executable}\nfrom neighbour.part import thing\n", "imports 'neighbour' from beside it"),
])  # fmt: skip
def test_a_script_that_needs_its_neighbours_cannot_be_pinned_alone(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "neighbour.py").touch()
    path = executable(tmp_path / "driver", text)

    said = refusal(command=[str(path)], isolation="process", sha256=sha256(path))
    assert reason in said
    assert 'pin files = { "/path" = "sha256" } instead' in said


def test_an_interpreter_cannot_be_pinned_for_its_script(tmp_path: Path) -> None:
    command = [sys.executable, str(script(tmp_path))]

    assert "is an interpreter" in refusal(command=command, isolation="process", sha256="0" * 64)


def test_files_that_are_pinned_are_checked_before_each_start(tmp_path: Path) -> None:
    path = script(tmp_path)
    plugin = {"command": [sys.executable, "-I", str(path)], "isolation": "process"}
    opens(**plugin, files={str(path): sha256(path)})

    path.write_text(path.read_text() + "\n")
    with nothing_left(), pytest.raises(PluginUnavailable, match="which is not the pinned one"):
        Host.open({"plugins": {"main": {**plugin, "files": {str(path): "0" * 64}}}})


def test_an_installed_driver_cannot_be_pinned() -> None:
    for pins in ({"sha256": "0" * 64}, {"files": {"/x": "0" * 64}}):
        assert "a driver is code of this Python environment" in refusal(driver="local", **pins)


GO = """\
package main

import ("bufio"; "encoding/json"; "fmt"; "os")

func main() {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var request struct { Id *int; Method string }
		if json.Unmarshal(in.Bytes(), &request) != nil || request.Id == nil { continue }
		result := "{}"
		switch request.Method {
		case "plugin.initialize":
			result = `{"protocol_version": "1", "driver": {"name": "go", "version": "1"},
				"max_frame_bytes": 65536, "config_schema": {"type": "object"}, "capabilities": []}`
		case "plugin.configure":
			memory := make([]byte, 100 << 20)
			for i := range memory { memory[i] = 1 }
			result = `{"identity": "hostile:1"}`
		}
		var flat map[string]any
		json.Unmarshal([]byte(result), &flat)
		line, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": *request.Id, "result": flat})
		fmt.Println(string(line))
	}
}
"""

NODE = """\
const memory = Buffer.alloc(100 << 20, 1);
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method } = JSON.parse(line);
  if (id === undefined) return;
  const results = {
    'plugin.initialize': { protocol_version: '1', driver: { name: 'node', version: '1' },
      max_frame_bytes: 65536, config_schema: { type: 'object' }, capabilities: [] },
    'plugin.configure': { identity: 'hostile:1' },
  };
  console.log(JSON.stringify({ jsonrpc: '2.0', id, result: results[method] ?? {} }));
});
"""


@pytest.mark.parametrize("level", ["process", "landlock", "bwrap"])
def test_a_go_program_runs_under_the_default_limits(tmp_path: Path, level: str) -> None:
    require(level)
    if shutil.which("go") is None:
        pytest.skip("GO NOT CHECKED: there is no Go compiler")
    (tmp_path / "driver.go").write_text(GO)
    subprocess.run(
        ["go", "build", "-o", tmp_path / "driver", tmp_path / "driver.go"],
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(tmp_path.parent / "go-cache")},
        check=True, timeout=300,
    )  # fmt: skip
    opens(command=[str(tmp_path / "driver")], isolation=level, sha256=sha256(tmp_path / "driver"))


@pytest.mark.parametrize("level", ["process", "landlock", "bwrap"])
def test_a_node_program_runs_under_the_default_limits(tmp_path: Path, level: str) -> None:
    require(level)
    node = shutil.which("node")
    if node is None:
        pytest.skip("NODE NOT CHECKED: there is no Node")
    path = tmp_path / "driver.js"
    path.write_text(NODE)
    opens(command=[node, str(path)], isolation=level, files={str(path): sha256(path)})


def test_the_default_limits_are_what_the_documentation_says() -> None:
    text = (DRIVERS.parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name, value in asdict(PluginSettings(driver="local").limits).items():
        assert f"| `{name}` | {value} |" in text


def test_a_stop_is_obeyed_by_the_driver_itself(tmp_path: Path) -> None:
    """SIGTERM reaches the driver, not only its guardian."""
    with bad_driver(tmp_path, "stubborn") as bad:
        process = bad.host._plugins["bad"]._fleet.replicas[0].process
        assert process is not None
        bad.host.close()
        assert process.wait(LONG_S) == -9
