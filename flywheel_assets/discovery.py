"""Finds the applications of this installation by name, without importing them, and loads one when asked.

A team's own applications replace the examples of this package: a capture service must not accept events for
`assistant` and `fraud` because a package happens to hold them.
"""

import re
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from flywheel_assets import applications
from flywheel_assets.application import FlywheelApplication, begin_with_history
from flywheel_assets.errors import SettingsError, UnknownNameError
from flywheel_assets.settings import read_settings
from flywheel_assets.stores import Stores

ENTRY_POINT_GROUP = "flywheel_assets.applications"

_MODULE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")
_NEXT_ACTION = "`flywheel doctor` shows every application and its module."


@dataclass(frozen=True)
class Place:
    """Names one application of this installation, and the module that holds its configuration."""

    name: str
    """Name of the application; `APPLICATION.name` in the module must be the same."""
    module: str
    """Holds `APPLICATION`, and `defs` in itself or in its submodule `definitions`."""
    origin: str
    """Says in messages where the module was named."""


def find_applications() -> dict[str, Place]:
    """Return the applications on offer by name, in alphabetical order, without importing them.

    They come from FLYWHEEL_APPLICATIONS and the entry points together; the examples of this package count only where
    neither names one.

    Raises:
        SettingsError: two different modules claim one name, or an address is no module.
    """
    named = [*_list_from_setting(read_settings().list_named_applications()), *_list_from_entry_points()]
    places: dict[str, Place] = {}
    for place in named or _list_examples():
        other = places.setdefault(place.name, place)
        if other.module != place.module:
            raise SettingsError(
                f"two applications are called {place.name!r}: {other.module} ({other.origin}) and {place.module} "
                f"({place.origin}); rename one, or take one of them out"
            )
    return dict(sorted(places.items()))


def load_application(name: str) -> FlywheelApplication:
    """Import one application's module and return its configuration; no other application is imported.

    Its first day is the one on which imported history begins, where that is earlier than the configured one.

    Raises:
        UnknownNameError: no application of that name is on offer.
        SettingsError: its module cannot be imported or holds no `APPLICATION` of that name.
        LandingError: the file that says where imported history begins is damaged.
    """
    return begin_with_history(read_configuration(name), Stores())


def read_configuration(name: str) -> FlywheelApplication:
    """Import one application's module and return its configuration as it stands there; no data are looked at.

    Raises:
        UnknownNameError: no application of that name is on offer.
        SettingsError: its module cannot be imported or holds no `APPLICATION` of that name.
    """
    place = _find_place(name)
    application = getattr(_import_module(place, place.module), "APPLICATION", None)
    if not isinstance(application, FlywheelApplication):
        found = "nothing of that name" if application is None else f"a {type(application).__name__}"
        raise SettingsError(
            f"{place.module} ({place.origin}) must hold APPLICATION, a PreferenceApplication or a "
            f"ClassificationApplication, and holds {found}; assign one, as `flywheel init` writes it"
        )
    if application.name != name:
        raise SettingsError(
            f"{place.module} ({place.origin}) is offered as {name!r}, but its APPLICATION is called "
            f"{application.name!r}; give both one name"
        )
    return application


def load_definitions(name: str) -> Any:
    """Import one application's Dagster definitions, as its code location does.

    Raises:
        UnknownNameError: no application of that name is on offer.
        SettingsError: neither its module nor the submodule `definitions` holds `defs`.
    """
    place = _find_place(name)
    module = _import_module(place, place.module)
    if not hasattr(module, "defs") and hasattr(module, "__path__"):
        module = _import_module(place, f"{place.module}.definitions")
    definitions = getattr(module, "defs", None)
    # `isinstance` is not used, because this module loads without Dagster.
    if not hasattr(definitions, "resolve_job_def"):
        raise SettingsError(
            f"{module.__name__} ({place.origin}) must hold defs, Dagster definitions; write "
            "`defs = preference_flywheel(APPLICATION)` or `defs = classification_flywheel(APPLICATION)` there"
        )
    return definitions


def _find_place(name: str) -> Place:
    places = find_applications()
    if name not in places:
        raise UnknownNameError(
            "application",
            name,
            places,
            f"Name its module in FLYWHEEL_APPLICATIONS, or install the project with an entry point of the group "
            f"{ENTRY_POINT_GROUP}.",
        )
    return places[name]


def _list_examples() -> list[Place]:
    return [
        Place(module.name, f"{applications.__name__}.{module.name}", "an example of this package")
        for module in iter_modules(applications.__path__)
    ]


def _list_from_setting(modules: tuple[str, ...]) -> list[Place]:
    for module in modules:
        if not _MODULE.match(module):
            raise SettingsError(
                f"FLYWHEEL_APPLICATIONS holds {module!r}, which is no module; valid: package.module, separated by "
                "commas, for instance FLYWHEEL_APPLICATIONS=my_flywheel"
            )
    # The last word is the name, so that a list of names costs no import.
    return [Place(module.rpartition(".")[2], module, "FLYWHEEL_APPLICATIONS") for module in modules]


def _list_from_entry_points() -> list[Place]:
    return [
        Place(point.name, point.module, f"entry point of {point.dist.name if point.dist else 'a distribution'}")
        for point in entry_points(group=ENTRY_POINT_GROUP)
    ]


def _import_module(place: Place, module: str) -> ModuleType:
    # A project is found in its folder before it is installed, as Dagster does for workspace.yaml. The folder is last on
    # the path, so that its files shadow no installed package.
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _build_error(place, module, error) from error
        raise SettingsError(
            f"application {place.name!r} ({place.origin}) cannot be loaded: there is no module {error.name}; run in "
            f"the project's folder, or install it there with `pip install -e .`. {_NEXT_ACTION}"
        ) from error
    except Exception as error:
        raise _build_error(place, module, error) from error


def _build_error(place: Place, module: str, error: Exception) -> SettingsError:
    return SettingsError(
        f"application {place.name!r} ({place.origin}) cannot be loaded: importing {module} failed with "
        f"{type(error).__name__}: {error}. Try `python -c 'import {module}'`. {_NEXT_ACTION}"
    )
