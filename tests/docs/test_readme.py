"""What the README shows works, to the letter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from kmsplug_host import Host

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_screen_has_one_sentence_two_short_programs_and_the_two_commands() -> None:
    embed, driver = (block.strip().splitlines() for block in BLOCKS[:2])

    assert len([line for line in embed if line]) <= 8
    assert len([line for line in driver if line]) <= 8
    assert "make demo" in README
    assert "make test" in README


def test_the_embedding_program_runs(tmp_path: Path) -> None:
    (tmp_path / "plugins.toml").write_text((ROOT / "plugins.toml").read_text())

    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[0]], cwd=tmp_path, capture_output=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr.decode()


def test_the_driver_program_serves_and_describes_itself(tmp_path: Path) -> None:
    program = tmp_path / "dice.py"
    program.write_text(BLOCKS[1] + 'import kmsplug_sdk\nkmsplug_sdk.serve("__main__:Dice")\n')
    settings = {"plugins": {"dice": {"command": [sys.executable, str(program)], "isolation": "process"}}}

    with Host.open(settings) as host:
        assert len(host.keystore("dice").random(32)) == 32
    described = subprocess.run(
        [sys.executable, str(program), "--describe"], capture_output=True, timeout=60, check=True
    )
    assert b"crypto.random" in described.stdout


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("protocol/*.md")])
)
def test_no_link_of_a_page_leads_nowhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if not target.startswith("http")]

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_commands_of_the_readme_exist() -> None:
    shown = re.findall(r"^\$ kmsplug ((?:--json )?[a-z]+(?: [a-z]+)?)", README, re.MULTILINE)
    script = Path(sys.executable).with_name("kmsplug")
    assert shown
    for line in shown:
        words = [word for word in line.split() if word not in ("--json", "local")]
        done = subprocess.run([script, *words, "--help"], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, line


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for target in re.findall(r"\bmake ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
