"""Which applications there are: named by a setting or an entry point, else the examples; errors name the module."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flywheel_assets.cli.init import Kind, write_project
from flywheel_assets.discovery import Place, find_applications, load_application, load_definitions
from flywheel_assets.errors import SettingsError, UnknownNameError
from flywheel_assets.settings import read_settings
from flywheel_assets.startup.checks import check_workspace
from flywheel_assets_tests.command_line import ROOT, flywheel

APPLICATION = """
from datetime import date
from flywheel_assets.config import PreferenceApplication
APPLICATION = PreferenceApplication(
    name={name!r}, description="Of a test.", start_date=date(2026, 9, 1), base_model="base"
)
"""

Offer = Callable[..., None]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Offer]:
    """Puts `tmp_path` on the path and names modules of it in the setting; nothing of it stays imported."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def offer(*modules: str) -> None:
        monkeypatch.setenv("FLYWHEEL_APPLICATIONS", ",".join(modules))
        read_settings.cache_clear()

    yield offer
    read_settings.cache_clear()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def write_entry_point(site: Path, distribution: str, name: str, module: str) -> None:
    folder = site / f"{distribution}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[flywheel_assets.applications]\n{name} = {module}\n")


def test_the_examples_are_offered_while_nothing_else_is_named() -> None:
    assert {place.module for place in find_applications().values()} == {
        "flywheel_assets.applications.assistant",
        "flywheel_assets.applications.fraud",
    }


def test_a_named_application_replaces_the_examples_and_costs_no_import(offer: Offer) -> None:
    offer(" team.support ", "")
    assert find_applications() == {"support": Place("support", "team.support", "FLYWHEEL_APPLICATIONS")}
    assert "team" not in sys.modules
    with pytest.raises(UnknownNameError, match="unknown application 'fraud'; known: support"):
        load_application("fraud")


def test_an_example_can_be_named_together_with_an_own_one(offer: Offer, tmp_path: Path) -> None:
    (tmp_path / "support.py").write_text(APPLICATION.format(name="support"))
    offer("flywheel_assets.applications.fraud", "support")
    assert list(find_applications()) == ["fraud", "support"]
    assert load_application("support").name == "support"
    assert load_application("fraud").score_contract is not None


def test_an_entry_point_is_found_and_may_repeat_the_setting(offer: Offer, tmp_path: Path) -> None:
    write_entry_point(tmp_path, "team", "support", "team.support")
    assert find_applications() == {"support": Place("support", "team.support", "entry point of team")}
    offer("team.support", "team.refunds")
    assert list(find_applications()) == ["refunds", "support"]


def test_two_modules_with_one_name_are_refused_with_both(offer: Offer, tmp_path: Path) -> None:
    write_entry_point(tmp_path, "other", "support", "other.support")
    offer("team.support")
    with pytest.raises(SettingsError, match=r"'support': team.support \(FLYWHEEL_APP.*other.support \(entry point of"):
        find_applications()


def test_a_setting_that_is_no_module_is_refused(offer: Offer) -> None:
    offer("my-team.support")
    with pytest.raises(SettingsError, match=r"holds 'my-team.support', which is no module; valid: package.module"):
        find_applications()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no module support; run in the project's folder, or install it"),
        (
            "import nowhere_at_all",
            "support failed with ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        ("def (", "importing support failed with SyntaxError"),
        ("raise RuntimeError('no network')", "importing support failed with RuntimeError: no network"),
        ("", "must hold APPLICATION, .* and holds nothing of that name"),
        ("APPLICATION = 'support'", "must hold APPLICATION, .* and holds a str"),
        (APPLICATION.format(name="other"), "is offered as 'support', but its APPLICATION is called 'other'"),
    ],
)
def test_a_module_that_cannot_be_used_is_named_with_its_cause(
    offer: Offer, tmp_path: Path, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "support.py").write_text(content)
    offer("support")
    with pytest.raises(SettingsError, match=complaint) as raised:
        load_application("support")
    assert "FLYWHEEL_APPLICATIONS" in str(raised.value)


def test_definitions_are_in_the_module_or_in_its_package(offer: Offer, tmp_path: Path) -> None:
    write_project(tmp_path, "support", Kind.CLASSIFICATION)
    (tmp_path / "refunds.py").write_text(APPLICATION.format(name="refunds"))
    sys.path.append(str(tmp_path / "support"))
    offer("support", "refunds")
    assert load_definitions("support").resolve_job_def("support_daily").name == "support_daily"
    with pytest.raises(
        SettingsError, match=r"refunds .* must hold defs, Dagster definitions; write `defs = preference_"
    ):
        load_definitions("refunds")


def test_a_broken_application_stops_capture_and_no_command_about_another(offer: Offer, tmp_path: Path) -> None:
    """Capture takes no event for an application that it has not seen, so it does not start with the rest."""
    (tmp_path / "support.py").write_text(APPLICATION.format(name="support"))
    (tmp_path / "refunds.py").write_text("raise RuntimeError('no network')")
    offer("support", "refunds")
    capture = flywheel(tmp_path / "home", "capture")
    assert capture.returncode == 1
    assert "error: SettingsError: application 'refunds' (FLYWHEEL_APPLICATIONS) cannot be loaded" in capture.stderr
    assert flywheel(tmp_path / "home", "gold", "list", "-a", "support").returncode == 0
    assert flywheel(tmp_path / "home", "keys", "create", "refunds", "--holder", "a test").returncode == 0
    doctor = flywheel(tmp_path / "home", "doctor")
    assert doctor.returncode == 1
    assert "application support" in doctor.stdout
    assert "RuntimeError: no network" in doctor.stdout.replace("\n", " ")


def test_a_command_takes_the_only_application_there_is(offer: Offer, tmp_path: Path) -> None:
    for name in ("support", "refunds"):
        (tmp_path / f"{name}.py").write_text(APPLICATION.format(name=name))
    offer("support")
    assert flywheel(tmp_path / "home", "gold", "list").returncode == 0
    offer("support", "refunds")
    several = flywheel(tmp_path / "home", "gold", "list")
    assert several.returncode == 2
    assert "there are several applications: refunds, support; choose one" in several.stderr


@pytest.mark.parametrize(
    ("workspace", "is_fine"),
    [
        ("load_from:\n  - python_module:\n      module_name: team.support\n", True),
        ("load_from:\n  - python_module: 'team.support.definitions'\n", True),
        ("load_from:\n  - grpc_server:\n      location_name: support\n", True),
        ("load_from:\n  - python_module: team.support_desk\n", False),
        ("# module_name: team.support\nload_from: []\n", False),
    ],
)
def test_dev_refuses_a_workspace_without_an_application(
    offer: Offer, tmp_path: Path, workspace: str, is_fine: bool
) -> None:
    """The team's events would land and never be read, because no code location reads them."""
    offer("team.support")
    file = tmp_path / "workspace.yaml"
    file.write_text(workspace)
    if is_fine:
        check_workspace(file)
        return
    with pytest.raises(SettingsError, match=r"no code location for application 'support' \(team.support, FLYW"):
        check_workspace(file)


def test_this_repository_s_workspace_has_the_examples() -> None:
    check_workspace(ROOT / "workspace.yaml")


def test_doctor_says_which_tokenizer_and_template_rows_are_judged_with(offer: Offer, tmp_path: Path) -> None:
    """It found nothing wrong with an application whose base model was missing, or a folder without a model."""
    (tmp_path / "support.py").write_text(APPLICATION.format(name="support"))
    offer("support")
    home = tmp_path / "home"
    base = home / "models" / "base"

    def examine() -> tuple[int, str]:
        finished = flywheel(home, "doctor")
        return finished.returncode, "".join(line for line in finished.stdout.splitlines() if "─" not in line)

    code, missing = examine()
    assert code == 0, "events can be captured without it"
    assert "base model of support" in missing
    base.mkdir(parents=True)
    code, empty = examine()
    assert code == 1
    assert "is no model" in empty
    (base / "config.json").write_text("{}")
    (base / "tokenizer.json").write_text("{}")
    (base / "model.safetensors").touch()
    code, plain = examine()
    assert code == 0
    assert "has no chat" in plain
    assert "chat_template.jinja" in plain, "the remedy"
    (base / "chat_template.jinja").write_text("{{ messages }}")
    code, fine = examine()
    assert code == 0
    assert "one user turn" in fine
