"""What the README shows runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_writes_an_image(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = code.replace('"assets/', f'"{ROOT}/assets/').replace('"schedules/', f'"{ROOT}/schedules/')
    script = tmp_path / "example.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "house.png").stat().st_size > 1000


def test_every_command_that_the_readme_names_exists():
    from ecad.__main__ import commands

    named = set(re.findall(r"python -m ecad ([a-z]+)", README))
    assert named and named <= set(commands())


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!https?:)[^)#]+)\)", README))
def test_every_file_that_the_readme_links_is_there(path):
    assert (ROOT / path).exists()


def test_the_space_header_pins_the_gradio_of_the_requirements():
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^sdk_version: (\S+)$", README, re.MULTILINE)
    assert f"gradio=={version}\n" in requirements
