"""`python -m flywheel_assets.models.trainability_process`: a line of rows in, a line of the refused ones out.

The first line names the tokenizer and is answered when it is loaded. No torch is imported here, though it may be
installed: the tokenizer's library would import it, for a second and 300 MB, and use nothing of it.
"""

import os
import sys
from typing import BinaryIO

import msgspec

from flywheel_assets.errors import FlywheelError
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.models.rendering import Refusal, RowEncoder, load_tokenizer
from flywheel_assets.models.trainability import Answer, Question


def main() -> int:
    """Answer on standard output until standard input ends."""
    # To Python a module that is None here is one that is not installed.
    sys.modules["torch"] = None  # type: ignore[assignment]
    # Libraries may print: what they print must not get between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = sys.stdin.buffer.readline()
    if not first:
        return 0
    question = msgspec.json.decode(first, type=Question)
    try:
        encoder = RowEncoder(load_tokenizer(question.base_model), question.rendering)
    except FlywheelError as error:
        _answer(answers, Answer(error=str(error)))
        return 1
    _answer(answers, Answer(has_template=encoder.has_template))
    decoder = msgspec.json.Decoder(list[ExportedRow])
    for line in sys.stdin.buffer:
        _answer(answers, Answer(refused=list_refusals(encoder, decoder.decode(line))))
    return 0


def list_refusals(encoder: RowEncoder, rows: list[ExportedRow]) -> list[tuple[int, str, str]]:
    """List (place, reason, sentence) of the rows that cannot be encoded."""
    encoded = encoder.encode(rows)
    return [(place, each.reason, each.sentence) for place, each in enumerate(encoded) if isinstance(each, Refusal)]


def _answer(answers: BinaryIO, answer: Answer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
