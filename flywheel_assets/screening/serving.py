"""Serves a model over standard input and output: what the other end of a `Worker` runs. Imports no model library."""

import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec


def serve_batches(load: Callable[[], Callable[[list[str]], list[Any]]], loading: str, working: str) -> int:
    """Answer each line of texts on standard input; an error is answered, and the next line tried.

    Args:
        load: loads the model at the first batch and returns what answers for texts.
        loading: names that step in an error.
        working: names the answering in an error.
    """
    answers = os.fdopen(os.dup(1), "wb")
    # Libraries print; only answers may stand on the stream that is read.
    os.dup2(2, 1)
    answer_texts: Callable[[list[str]], list[Any]] | None = None
    for line in sys.stdin.buffer:
        try:
            answer_texts = answer_texts or load()
            answer: dict[str, Any] = {"results": answer_texts(msgspec.json.decode(line, type=list[str]))}
        except Exception as error:
            # Never the error's message, which may quote a text.
            answer = {"error": f"{working if answer_texts else loading} failed ({type(error).__name__})"}
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()
    return 0
