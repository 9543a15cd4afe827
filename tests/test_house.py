"""The arrows of the house: which folder may import which. They keep a schedule file readable without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# folder of ecad/ -> the folders of ecad/ it may import
ARROWS = {
    "schedule": set(),
    "metrics": set(),
    "execution": {"schedule"},
    "models": {"execution", "schedule"},
    "storybook": {"models", "metrics"},
    "search": {"schedule", "execution", "models.protocol", "metrics.protocol"},
}
TOP_LEVEL = {"app", "ecad", "schedules", "assets", "tests"}


def imports_of(file: Path) -> list[tuple[str, str | None]]:
    """(module, name) of every import statement of a file, relative ones resolved."""
    package = list(file.relative_to(ROOT).with_suffix("").parts[:-1])
    found: list[tuple[str, str | None]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(module, alias.name) for alias in node.names]
    return found


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", sorted(ARROWS))
def test_a_folder_of_the_library_imports_only_what_lies_below_it(folder):
    allowed = ARROWS[folder] | {folder}
    wrong = []
    for file in python_files(f"ecad/{folder}"):
        for module, name in imports_of(file):
            if module == "ecad" and name is not None:
                module = f"ecad.{name}"
            if not module.startswith("ecad."):
                continue
            inner = module.removeprefix("ecad.")
            if not any(inner == one or inner.startswith(one + ".") for one in allowed):
                wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert not wrong, wrong


def test_the_page_uses_only_the_public_names_and_never_torch():
    import ecad

    wrong = []
    for file in [ROOT / "app.py", *python_files("app")]:
        for module, name in imports_of(file):
            if module.split(".")[0] in {"torch", "diffusers", "transformers", "open_clip"}:
                wrong.append(f"{file.relative_to(ROOT)} imports {module}")
            if module.startswith("ecad.") or (
                module == "ecad" and name is not None and name not in ecad.__all__
            ):
                wrong.append(f"{file.relative_to(ROOT)} imports {module} {name or ''}")
    assert not wrong, wrong


def test_every_public_name_exists():
    import ecad

    for name in ecad.__all__:
        assert getattr(ecad, name) is not None


def test_costing_a_schedule_loads_neither_torch_nor_diffusers():
    code = (
        "import sys, ecad\n"
        "s = ecad.heuristics.fora(ecad.layout('storybook'), 20, 3)\n"
        "assert ecad.cost_table('storybook').macs(s).total > 0\n"
        "assert not {'torch', 'diffusers', 'gradio'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tree_has_no_other_top_level_folder():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: the folder list cannot be asked for")
    folders = {line.split("/")[0] for line in listed.stdout.splitlines() if "/" in line}
    assert {folder for folder in folders if not folder.startswith(".")} <= TOP_LEVEL


def test_no_file_of_the_tree_holds_a_merge_mark_or_a_stub():
    for folder in ("ecad", "app"):
        for file in python_files(folder):
            text = file.read_text(encoding="utf-8")
            assert "<<<<<<< " not in text, file
            assert "raise NotImplementedError" not in text, file
