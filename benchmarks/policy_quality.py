"""What the default policy finds, and what it wrongly finds, on public data.

Claim: the checksummed and framed forms (cards, IBANs, e-mail) are found nearly always, and ordinary text nearly never
fires; attacks without any lexical mark (BIPIA) are not found at all, and this table says so.
Data: presidio_pii (1,500 synthetic sentences with spans), bipia (75 injection texts, 50 e-mails), xstest (450 prompts),
mlqe_pe (16,000 edits), realhumaneval (chat turns of programmers), defacto (486 summaries with articles).
Command: python -m benchmarks.policy_quality [--show CHECK]   (--show prints what one check found, to judge it by eye)
"""

import argparse
import ast
import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from flywheel_assets.curation.policy import default_policy
from flywheel_assets.curation.verdicts import TEXTS, Evidence
from flywheel_assets_tests.real_data import REAL_DATA, real_edits

ENTITIES = {
    "CREDIT_CARD": "payment_card",
    "IBAN_CODE": "iban",
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "US_SSN": "us_social_security",
}


def audit(texts: Iterable[str]) -> list[tuple[Evidence, ...]]:
    """The evidence that the default policy has against each text, judged as a chosen text."""
    chosen = list(texts)
    table = pa.table({"prompt": [""] * len(chosen), "chosen": chosen, "rejected": [None] * len(chosen)}, schema=TEXTS)
    verdicts = default_policy().audit(table)
    return [verdicts[row].evidence if row in verdicts else () for row in range(len(chosen))]


def json_lines(*parts: str) -> list[dict[str, str]]:
    """Every object of a JSON-lines file."""
    return [json.loads(line) for line in Path(REAL_DATA, *parts).read_text().splitlines()]


def ordinary_texts() -> dict[str, list[str]]:
    """Texts in which findings are false, or true by accident: real articles do print phone numbers."""
    with open(REAL_DATA / "xstest" / "xstest_prompts.csv") as file:
        prompts = [(row["label"], row["prompt"]) for row in csv.DictReader(file)]
    csv.field_size_limit(10**7)
    with open(REAL_DATA / "realhumaneval" / "chat_data.csv") as file:
        chats = [
            "\n".join([*(message["content"] for message in ast.literal_eval(row["request"])), row["response"]])
            for row in csv.DictReader(file)
        ]
    return {
        "xstest, safe prompts": [text for label, text in prompts if label == "safe"],
        "xstest, unsafe prompts": [text for label, text in prompts if label != "safe"],
        "mlqe_pe, source + output + edit": [
            "\n".join((edit["prompt"], edit["original_llm_output"], edit["final_user_edit"])) for edit in real_edits()
        ],
        "realhumaneval, chat turns": chats,
        "defacto, article + summaries + feedback": [
            "\n".join(value for value in row.values() if isinstance(value, str))
            for row in json_lines("defacto", "val.jsonl")
        ],
        "bipia, e-mail contexts": [row["context"] for row in json_lines("bipia", "train.jsonl")],
    }


def print_recall() -> None:
    """Found spans by entity type; a span counts as found where any evidence of its check touches it."""
    rows = json.loads((REAL_DATA / "presidio_pii" / "synth_dataset_v2.json").read_text())
    found, total, plain = Counter[str](), Counter[str](), 0
    for row, evidence in zip(rows, audit(row["full_text"] for row in rows), strict=True):
        spans = [span for span in row["spans"] if span["entity_type"] in ENTITIES]
        for span in spans:
            total[span["entity_type"]] += 1
            found[span["entity_type"]] += any(
                ENTITIES[span["entity_type"]] in finding.check
                and (finding.start or 0) < span["end_position"]
                and (finding.end or 0) > span["start_position"]
                for finding in evidence
            )
        plain += bool(evidence) and not spans
    print("recall on presidio_pii")
    for entity, count in total.items():
        print(f"  {entity:16}{found[entity]:5} of {count:4}  {found[entity] / count:6.1%}")
    without = sum(not any(span["entity_type"] in ENTITIES for span in row["spans"]) for row in rows)
    print(f"  sentences without any of these that were refused: {plain} of {without}")
    attacks = json.loads((REAL_DATA / "bipia" / "text_attack_train.json").read_text())
    texts = [text for group in attacks.values() for text in group]
    print(f"recall on bipia's injection texts: {sum(map(bool, audit(texts)))} of {len(texts)}")


def main() -> None:
    """Print recall, then findings per ordinary data set and check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", help="print the text around everything that this check found")
    shown = parser.parse_args().show
    print(f"policy {default_policy().version}")
    print_recall()
    print("rows with findings in ordinary text")
    for name, texts in ordinary_texts().items():
        answers = audit(texts)
        checks = Counter(check for evidence in answers for check in {finding.check for finding in evidence})
        refused = sum(map(bool, answers))
        print(f"  {name:42}{refused:5} of {len(texts):6,}  {refused / len(texts):7.3%}  {dict(checks.most_common())}")
        for text, evidence in zip(texts, answers, strict=True):
            for finding in evidence:
                if finding.check == shown and finding.start is not None and finding.end is not None:
                    print("    ", repr(text[max(0, finding.start - 30) : finding.end + 20]))


if __name__ == "__main__":
    main()
