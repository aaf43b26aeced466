"""Examines everything that a start needs, for `flywheel doctor`."""

from contextlib import suppress
from pathlib import Path

from flywheel_assets.application import FlywheelApplication, PreferenceApplication
from flywheel_assets.capture.doctor import Finding, Verdict, examine_service
from flywheel_assets.discovery import find_applications, load_application
from flywheel_assets.errors import FlywheelError, SettingsError
from flywheel_assets.extras import find_missing, write_install_command
from flywheel_assets.models.base_model import PLAIN_TURNS, SET_A_TEMPLATE, examine_base_model
from flywheel_assets.settings import read_settings
from flywheel_assets.startup.checks import check_places, check_workspace
from flywheel_assets.stores import Stores


def examine_everything() -> list[Finding]:
    """Examine applications, workspace, Dagster, places and the capture service by this process's settings."""
    try:
        return [
            *_check_applications(),
            *_check_workspace(),
            *_check_launcher(),
            *_check_places(),
            *examine_service(read_settings()),
        ]
    except SettingsError as error:
        return [Finding("settings", Verdict.BROKEN, str(error))]


def _check_launcher() -> list[Finding]:
    from flywheel_assets.defs.launcher import explain_unsupervised

    problem = explain_unsupervised(read_settings().resolve_dagster_home())
    remedy = "copy `run_launcher` and `run_monitoring` from the project's dagster.yaml, and restart Dagster"
    return [] if problem is None else [Finding("dagster", Verdict.LOOK, problem, remedy)]


def _check_workspace() -> list[Finding]:
    """Say whether Dagster would load every application that capture takes events for."""
    workspace = Path("workspace.yaml")
    if not workspace.exists():
        problem = f"{workspace.absolute()} does not exist, so `flywheel dev` does not start here"
        return [Finding("workspace", Verdict.LOOK, problem, "run from the project's folder")]
    try:
        check_workspace(workspace)
    except SettingsError as error:
        # Capture works without it, and so does Dagster where another workspace is served.
        return [Finding("workspace", Verdict.LOOK, f"`flywheel dev` does not start here: {error}")]
    return [Finding("workspace", Verdict.FINE, f"{workspace.absolute()} names every application")]


def _check_places() -> list[Finding]:
    stores, names = Stores(), []
    with suppress(SettingsError):  # `_check_applications` has reported it
        names = list(find_applications())
    mlflow = [] if find_missing("tracking", ("mlflow",)) else [("mlflow", 5000)]
    return check_places(stores, names, [("dagster", 3000), *mlflow])


def _check_applications() -> list[Finding]:
    """Report on each application, for capture starts only where every one of them loads, and on its base model."""
    try:
        places = find_applications()
    except SettingsError as error:
        return [Finding("applications", Verdict.BROKEN, str(error))]
    findings = []
    for name, place in places.items():
        try:
            application = load_application(name)
        except SettingsError as error:
            findings.append(Finding(f"application {name}", Verdict.BROKEN, str(error)))
        else:
            findings.append(Finding(f"application {name}", Verdict.FINE, f"{place.module}, {place.origin}"))
            if isinstance(application, PreferenceApplication):
                findings.append(_check_base_model(application))
            findings.append(_check_training_packages(application))
            findings.append(_check_feasibility(application))
    return findings


def _check_training_packages(application: FlywheelApplication) -> Finding:
    """Say whether this machine could train and record the application's models."""
    subject = f"training of {application.name}"
    extras = ["train" if isinstance(application, PreferenceApplication) else "classifier", "tracking"]
    missing = [module for extra in extras for module in find_missing(extra)]
    if not missing:
        return Finding(subject, Verdict.FINE, f"the packages of the extra `{extras[0]}` are installed")
    sentence = f"{', '.join(missing)} are not installed: events become gold here, and no model is trained or recorded"
    return Finding(subject, Verdict.LOOK, sentence, f"where models are trained: `{write_install_command(extras[0])}`")


def _check_feasibility(application: FlywheelApplication) -> Finding:
    """Say whether the promotion gate could decide about a version that is cut now; of no lake nothing is read."""
    from flywheel_assets.defs.automation.feasibility import foresee_decision

    subject, stores, name = f"promotion of {application.name}", Stores(), application.name
    try:
        lake = stores.lake(name)
        if not (lake.is_begun and lake.has_table(application.tables.gold)):
            return Finding(subject, Verdict.FINE, "there are no tables yet, so nothing can be foreseen")
        outlook = foresee_decision(application, lake, stores.versions(name))
    except FlywheelError as error:
        return Finding(subject, Verdict.BROKEN, str(error))
    verdict = Verdict.FINE if outlook.can_decide else Verdict.LOOK
    return Finding(subject, verdict, outlook.sentence, outlook.remedy)


def _check_base_model(application: PreferenceApplication) -> Finding:
    """Say which tokenizer and chat template the application's versions are judged and trained with."""
    subject, name, stores = f"base model of {application.name}", application.base_model, Stores()
    found = stores.base_model(name)
    try:
        files = examine_base_model(found)
    except SettingsError as error:
        return Finding(subject, Verdict.BROKEN, str(error))
    if not files.is_local and stores.where.hub_offline:
        models = stores.where.resolve_models_dir()
        problem = f"{name!r} is not in {models}, and FLYWHEEL_HUB_OFFLINE keeps trainings away from the hub"
        return Finding(subject, Verdict.BROKEN, problem, f"put the model into {models / name}")
    if not files.is_local:
        models = stores.where.resolve_models_dir()
        return Finding(
            subject,
            Verdict.LOOK,
            f"{name!r} is not in {models}, so the first version looks for it on the hub; which chat template it has is "
            "seen then",
            f"put the model into {models / name}, or check that {name!r} is its id on the hub",
        )
    if files.chat_template is None:
        return Finding(
            subject,
            Verdict.LOOK,
            f"the tokenizer in {found} has no chat template: prompts that are text are sent as they are, and "
            f"{PLAIN_TURNS}",
            SET_A_TEMPLATE,
        )
    text = "become one user turn" if application.recipe.wrap_text_prompts else "are sent as they are"
    sentence = (
        f"the tokenizer in {found}, with the chat template of {files.chat_template}; prompts that are text {text}"
    )
    return Finding(subject, Verdict.FINE, sentence)
