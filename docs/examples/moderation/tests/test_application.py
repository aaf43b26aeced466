"""Holds what this application promises: it loads, and it takes a comment as the filter logs it."""

from moderation import APPLICATION

from flywheel_assets.discovery import load_application, load_definitions


def test_flywheel_and_dagster_find_the_application() -> None:
    """A wrong name in the configuration fails here, not in the night."""
    assert load_application("moderation") is APPLICATION
    assert load_definitions("moderation").resolve_job_def("moderation_daily")


def test_the_contract_takes_a_comment_and_names_a_missing_text() -> None:
    """Capture refuses a comment without its text with this sentence."""
    assert APPLICATION.contract.find_problem({"text": "What a garbage take."}) is None
    assert "feature `text` is missing" in str(APPLICATION.contract.find_problem({}))
