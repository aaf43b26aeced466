"""What the default policy finds, and what it wrongly finds, on public data, beside a naive logger's word list.

Claim: of XSTest's safe prompts at least 98 % are not rejected and 90 % not quarantined; cards, IBANs, e-mail and social
security numbers are found nearly always; toxic words are found where there are toxic words, which is in two of five
toxic comments; ordinary text rarely fires. The word list finds next to nothing.
Data: xstest (450 prompts), surge_toxicity (1,000 comments), presidio_pii (1,500 synthetic sentences with spans), bipia
(75 injection texts, 50 e-mails), mlqe_pe (16,000 edits), realhumaneval (chat turns of programmers), defacto (486
articles). Every text is judged as a chosen text that nobody proposed, so that everything in it counts as added.
Command: .venv/bin/python -m benchmarks.policy [--show CHECK] [--examples 5]

Half of surge_toxicity (even rows) was looked at while the lexicon was written, the other half never: both are shown.
BIPIA's 75 texts were read before `reply_directive` was written, so its recall there is optimistic.
"""

import argparse
import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flywheel_assets.curation.policy.policy import build_default_policy
from flywheel_assets.curation.policy.verdicts import TEXTS, Action, Evidence, Verdict
from flywheel_assets_tests.real_data import REAL_DATA, real_edits

ENTITIES = {
    "CREDIT_CARD": "payment_card",
    "IBAN_CODE": "iban",
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "US_SSN": "us_social_security",
    "IP_ADDRESS": "ip_address",
}
NAIVE_WORDS = re.compile(r"hack|bypass|toxic_slur", re.IGNORECASE)
"""What a plain logger checks for before it appends a pair."""
NOT_LOOKED_FOR = ("PERSON", "STREET_ADDRESS", "GPE", "ORGANIZATION", "DATE_TIME", "TITLE", "AGE", "NRP", "ZIP_CODE")


@dataclass(frozen=True)
class Outcome:
    """How many of some texts were stopped, and by whom."""

    texts: Sequence[str]
    verdicts: Sequence[Verdict | None]

    @property
    def stopped(self) -> int:
        """Quarantined or rejected by the policy."""
        return sum(verdict is not None for verdict in self.verdicts)

    @property
    def rejected(self) -> int:
        """Rejected by the policy."""
        return sum(verdict is not None and verdict.action is Action.REJECT for verdict in self.verdicts)

    @property
    def naive(self) -> int:
        """Stopped by the word list."""
        return sum(bool(NAIVE_WORDS.search(text)) for text in self.texts)

    @property
    def checks(self) -> Counter[str]:
        """Texts per check that found something."""
        return Counter(
            check
            for verdict in self.verdicts
            if verdict
            for check in {finding.check for finding in verdict.evidence} or {verdict.detail}
        )


def audit(texts: Iterable[str]) -> Outcome:
    """What the default policy says about each text."""
    chosen = list(texts)
    table = pa.table({"prompt": [""] * len(chosen), "chosen": chosen, "rejected": [None] * len(chosen)}, schema=TEXTS)
    verdicts = build_default_policy().audit(table)
    return Outcome(chosen, [verdicts.get(row) for row in range(len(chosen))])


def json_lines(*parts: str) -> list[dict[str, str]]:
    """Every object of a JSON-lines file."""
    return [json.loads(line) for line in Path(REAL_DATA, *parts).read_text().splitlines()]


def xstest(label: str) -> list[str]:
    """XSTest's prompts, safe or unsafe."""
    with open(REAL_DATA / "xstest" / "xstest_prompts.csv") as file:
        return [row["prompt"] for row in csv.DictReader(file) if row["label"] == label]


def surge(*, toxic: bool, half: int) -> list[str]:
    """Surge's comments: the half that was looked at (0) or the other (1)."""
    with open(REAL_DATA / "surge_toxicity" / "toxicity_en.csv") as file:
        rows = list(csv.DictReader(file))[half::2]
    return [row["text"] for row in rows if (row["is_toxic"] == "Toxic") is toxic]


def bipia() -> list[str]:
    """The 75 indirect injections."""
    attacks = json.loads((REAL_DATA / "bipia" / "text_attack_train.json").read_text())
    return [text for group in attacks.values() for text in group]


def chats() -> list[str]:
    """Chat turns of programmers, request and response."""
    csv.field_size_limit(10**7)
    with open(REAL_DATA / "realhumaneval" / "chat_data.csv") as file:
        return [
            "\n".join([*(message["content"] for message in ast.literal_eval(row["request"])), row["response"]])
            for row in csv.DictReader(file)
        ]


def articles() -> list[str]:
    """News articles with summaries and feedback."""
    return [
        "\n".join(value for value in row.values() if isinstance(value, str))
        for row in json_lines("defacto", "val.jsonl")
    ]


HARMFUL: dict[str, Callable[[], list[str]]] = {
    "surge, toxic, looked at": lambda: surge(toxic=True, half=0),
    "surge, toxic, never looked at": lambda: surge(toxic=True, half=1),
    "bipia, indirect injections": bipia,
    "xstest, unsafe prompts (topics, no words)": lambda: xstest("unsafe"),
}
HARMLESS: dict[str, Callable[[], list[str]]] = {
    "xstest, safe prompts": lambda: xstest("safe"),
    "surge, not toxic, looked at": lambda: surge(toxic=False, half=0),
    "surge, not toxic, never looked at": lambda: surge(toxic=False, half=1),
    "mlqe_pe, source + output + edit": lambda: [
        "\n".join((edit["prompt"], edit["original_llm_output"], edit["final_user_edit"])) for edit in real_edits()
    ],
    "realhumaneval, chat turns": chats,
    "defacto, article + summaries": articles,
    "bipia, e-mail contexts": lambda: [row["context"] for row in json_lines("bipia", "train.jsonl")],
}


def print_personal_data() -> None:
    """Found spans by entity type; a span counts as found where any evidence of its check touches it."""
    rows = json.loads((REAL_DATA / "presidio_pii" / "synth_dataset_v2.json").read_text())
    found, naive, total, plain = Counter[str](), Counter[str](), Counter[str](), 0
    outcome = audit(row["full_text"] for row in rows)
    for row, verdict in zip(rows, outcome.verdicts, strict=True):
        evidence: tuple[Evidence, ...] = verdict.evidence if verdict else ()
        spans = [span for span in row["spans"] if span["entity_type"] in ENTITIES]
        for span in spans:
            total[span["entity_type"]] += 1
            naive[span["entity_type"]] += bool(NAIVE_WORDS.search(row["full_text"]))
            found[span["entity_type"]] += any(
                ENTITIES[span["entity_type"]] in finding.check
                and (finding.start or 0) < span["end_position"]
                and (finding.end or 0) > span["start_position"]
                for finding in evidence
            )
        plain += bool(evidence) and not spans
    print("\npersonal data (presidio_pii)           found  word list")
    for entity, count in total.items():
        print(
            f"  {entity:28}{found[entity]:5} of {count:4}  {found[entity] / count:6.1%}  {naive[entity] / count:6.1%}"
        )
    without = sum(not any(span["entity_type"] in ENTITIES for span in row["spans"]) for row in rows)
    print(f"  sentences without any of these that were stopped: {plain} of {without}")
    print(f"  not looked for, 0 % by design: {', '.join(NOT_LOOKED_FOR)}")


def print_examples(outcome: Outcome, wanted: bool, count: int, shown: str | None) -> None:
    """Where the policy was wrong; with `shown`, what one check found."""
    if shown:
        for text, verdict in zip(outcome.texts, outcome.verdicts, strict=True):
            for finding in verdict.evidence if verdict else ():
                if finding.check == shown and finding.start is not None and finding.end is not None:
                    print("      ", repr(text[max(0, finding.start - 30) : finding.end + 20]))
        return
    wrong = [
        (text, verdict)
        for text, verdict in zip(outcome.texts, outcome.verdicts, strict=True)
        if bool(verdict) is not wanted
    ]
    for text, verdict in wrong[:: max(1, len(wrong) // count)][:count] if count else []:
        print(f"      {'missed' if wanted else verdict.detail if verdict else ''}: {text[:100]!r}")


def main() -> None:
    """Print the table of the docs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", help="print the text around everything that this check found")
    parser.add_argument("--examples", type=int, default=0, help="wrong answers to print per data set")
    options = parser.parse_args()
    print(
        f"policy {build_default_policy().version}\n{'':44}{'texts':>7}{'stopped':>9}{'rejected':>10}{'word list':>11}"
    )
    for title, data, wanted in (("harmful: the more the better", HARMFUL, True), ("harmless", HARMLESS, False)):
        print(title)
        for name, texts in data.items():
            outcome = audit(texts())
            size = len(outcome.texts)
            shares = f"{outcome.stopped / size:9.1%}{outcome.rejected / size:10.1%}{outcome.naive / size:11.1%}"
            print(f"  {name:42}{size:7,}{shares}  {dict(outcome.checks.most_common(5))}")
            print_examples(outcome, wanted, options.examples, options.show)
    print_personal_data()


if __name__ == "__main__":
    main()
