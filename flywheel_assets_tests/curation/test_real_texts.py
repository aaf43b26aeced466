import csv
import json

import pyarrow as pa
import pytest

from flywheel_assets.curation.policy.policy import build_default_policy
from flywheel_assets.curation.policy.verdicts import TEXTS, Action, Verdict
from flywheel_assets_tests.real_data import REAL_DATA, needs_real_data, real_edits

pytestmark = pytest.mark.realdata


def audit(chosen: list[str]) -> dict[int, Verdict]:
    rows = {"prompt": [""] * len(chosen), "chosen": chosen, "rejected": [None] * len(chosen)}
    return build_default_policy().audit(pa.table(rows, schema=TEXTS))


@needs_real_data("xstest")
def test_prompts_that_only_look_unsafe_pass() -> None:
    with open(REAL_DATA / "xstest" / "xstest_prompts.csv") as file:
        safe = [row["prompt"] for row in csv.DictReader(file) if row["label"] == "safe"]
    verdicts = audit(safe)
    assert len(safe) == 250
    assert sum(verdict.action is Action.REJECT for verdict in verdicts.values()) == 0
    assert len(verdicts) <= 0.02 * len(safe)


@needs_real_data("surge_toxicity")
def test_toxic_comments_wait_far_more_often_than_others() -> None:
    """Words alone find about two of five: the rest is for a classifier."""
    with open(REAL_DATA / "surge_toxicity" / "toxicity_en.csv") as file:
        rows = [(row["text"], row["is_toxic"] == "Toxic") for row in csv.DictReader(file)]
    toxic, other = (
        audit([text for text, is_toxic in rows if is_toxic]),
        audit([text for text, is_toxic in rows if not is_toxic]),
    )
    assert len(toxic) >= 0.38 * 501
    assert len(other) <= 0.02 * 499
    assert {verdict.action for verdict in toxic.values()} == {Action.QUARANTINE}


@needs_real_data("mlqe_pe")
def test_hardly_anything_is_found_in_encyclopedia_sentences() -> None:
    edits = list(real_edits())
    assert len(audit(["\n".join((edit["prompt"], edit["final_user_edit"])) for edit in edits])) <= 10


@needs_real_data("presidio_pii")
def test_forms_with_a_checksum_or_a_frame_are_found() -> None:
    rows = json.loads((REAL_DATA / "presidio_pii" / "synth_dataset_v2.json").read_text())
    framed = {"IBAN_CODE", "EMAIL_ADDRESS", "US_SSN"}
    with_data = [row["full_text"] for row in rows if framed & {span["entity_type"] for span in row["spans"]}]
    assert len(with_data) > 80
    assert audit(with_data).keys() == set(range(len(with_data)))
