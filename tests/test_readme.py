"""The README's commands exist, and the cheap ones run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
EDGEKD = [words[1:] for words in LINES if words[0].endswith("edgekd")]
CHEAP = ("--help", "init", "methods", "spaces", "scorers", "targets")


def test_every_line_is_make_or_edgekd() -> None:
    assert EDGEKD and all(words[0] in ("make", ".venv/bin/edgekd") for words in LINES)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {words[1] for words in LINES if words[0] == "make"}
    assert targets == {"demo", "test"}
    for target in targets | {"lint"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_cheap_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for words in EDGEKD:
        if words[0] in CHEAP or (words[0] == "compress" and "--dry-run" in words):
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, (words, done.output)
            ran.append(words[0])
    assert {*CHEAP, "compress"} - {"scorers"} <= set(ran)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("words", EDGEKD, ids=" ".join)
def test_options_exist(words: list[str]) -> None:
    command, *rest = words
    if command == "--help":
        return
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0, f"no command {command}"
    for option in (word for word in rest if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", done.output), f"{command} has no {option}"


def test_links_and_folders_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    tree = re.search(r"## The tree\n\n```text\n(.*?)```", README, re.DOTALL)
    assert tree is not None
    for line in tree[1].splitlines():
        name = line.split()[0]
        folder = ROOT / "edgekd" / name if line.startswith(" ") else ROOT / name
        assert folder.is_dir(), f"the README's tree names {name}"


def test_python_blocks_compile_and_use_public_names() -> None:
    import edgekd

    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
        assert set(re.findall(r"edgekd\.(\w+)", block)) <= set(edgekd.__all__)


def test_results_have_a_place() -> None:
    assert README.count("<!-- results -->") == README.count("<!-- /results -->") == 1
