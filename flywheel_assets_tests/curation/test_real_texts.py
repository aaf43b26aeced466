import csv
import json

import pyarrow as pa
import pytest

from flywheel_assets.curation.policy import default_policy
from flywheel_assets.curation.verdicts import TEXTS, Verdict
from flywheel_assets_tests.real_data import REAL_DATA, needs_real_data, real_edits

pytestmark = pytest.mark.realdata


def audit(chosen: list[str]) -> dict[int, Verdict]:
    rows = {"prompt": [""] * len(chosen), "chosen": chosen, "rejected": [None] * len(chosen)}
    return default_policy().audit(pa.table(rows, schema=TEXTS))


@needs_real_data("xstest")
def test_prompts_that_only_look_unsafe_pass() -> None:
    with open(REAL_DATA / "xstest" / "xstest_prompts.csv") as file:
        assert audit([row["prompt"] for row in csv.DictReader(file)]) == {}


@needs_real_data("mlqe_pe")
def test_nothing_is_found_in_encyclopedia_sentences() -> None:
    edits = list(real_edits())
    assert audit(["\n".join((edit["prompt"], edit["final_user_edit"])) for edit in edits]) == {}


@needs_real_data("presidio_pii")
def test_forms_with_a_checksum_or_a_frame_are_found() -> None:
    rows = json.loads((REAL_DATA / "presidio_pii" / "synth_dataset_v2.json").read_text())
    framed = {"IBAN_CODE", "EMAIL_ADDRESS", "US_SSN"}
    with_data = [row["full_text"] for row in rows if framed & {span["entity_type"] for span in row["spans"]}]
    assert len(with_data) > 80
    assert audit(with_data).keys() == set(range(len(with_data)))
