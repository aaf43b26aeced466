"""Writes a small project around one application of a team, outside this package: `flywheel init`."""

import keyword
from datetime import UTC, datetime
from enum import StrEnum
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from flywheel_assets.cli.terminal import app, console
from flywheel_assets.errors import SettingsError


class Kind(StrEnum):
    """Names the two kinds of flywheel."""

    PREFERENCE = "preference"
    CLASSIFICATION = "classification"


@app.command()
def init(
    name: Annotated[
        str, typer.Argument(help="Names the folder, its Python package and the application, for instance my_flywheel.")
    ],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind", help="The kind of data. preference: texts and edits; classification: scores and labels."
        ),
    ] = Kind.PREFERENCE,
) -> None:
    """Write a new project with one application of your own, ready for `flywheel dev` and `pytest`."""
    write_project(Path.cwd(), name, kind)
    console.print(f"wrote {name}/; edit the lines marked EDIT in {name}/{name}/application.py", soft_wrap=True)
    console.print(f"next: [bold]cd {name} && pytest && flywheel dev[/]", soft_wrap=True)


def write_project(parent: Path, name: str, kind: Kind) -> Path:
    """Write the files of a new project into `parent`/`name` and return that folder.

    Raises:
        SettingsError: the name is no usable package name, or the folder holds something already.
    """
    import jinja2

    _check_name(name)
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} exists and is not empty; choose another name, or move it away")
    templates = files("flywheel_assets.cli") / "init_templates"
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (it writes source files, from a name that was checked)
    )
    for target, template in _list_files(name, kind).items():
        text = environment.from_string((templates / template).read_text(encoding="utf-8")).render(
            name=name, kind=kind.value, start=datetime.now(UTC).date()
        )
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def _list_files(name: str, kind: Kind) -> dict[str, str]:
    """List the template of each file of a project, by the file's path."""
    return {
        "README.md": "README.md.jinja",
        "pyproject.toml": "pyproject.toml.jinja",
        "workspace.yaml": "workspace.yaml.jinja",
        "dagster.yaml": "dagster.yaml",
        ".env": "env.jinja",
        ".gitignore": "gitignore",
        f"{name}/__init__.py": "package.py.jinja",
        f"{name}/application.py": f"{kind}.py.jinja",
        f"{name}/definitions.py": "definitions.py.jinja",
        "tests/test_application.py": f"test_{kind}.py.jinja",
    }


def _check_name(name: str) -> None:
    from flywheel_assets.application import APPLICATION_NAME

    if not APPLICATION_NAME.match(name) or keyword.iskeyword(name):
        raise SettingsError(
            f"{name!r} cannot name a Python package and an application; valid: lower-case letters, digits and _, "
            "first a letter, at most 40 in all, no Python keyword; for instance `flywheel init my_flywheel`"
        )
    spec = find_spec(name)
    # A folder of that name in the current folder is a namespace package without an origin; it may stay.
    if name == "tests" or (spec is not None and spec.origin is not None):
        raise SettingsError(
            f"a Python package called {name!r} exists already, and one would hide the other; choose another name"
        )
