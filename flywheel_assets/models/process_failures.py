"""Describes why a training or evaluation process failed: what happened, whether it may pass, and what helps.

Our own errors and the system's are repeated. A library's message may quote a user's text, so only those words of it
are kept that stand in the library's own code.

A process out of memory asks for the same memory again: permanent, unless other processes held much of the GPU. A disk
may be full for an hour: transient, also where a library has an error of its own for it.
"""

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, TracebackType

_PACKAGE = "flywheel_assets"
_MOST_WORDS = 300  # characters of a library's message
_PLACEHOLDER = re.compile(r"%[-#0 +]*\d*(?:\.\d+)?[sdrfgix]|\{[^{}]*\}")
_TWO_WORDS = re.compile(r"[A-Za-z]{2,}\W+[A-Za-z]{2,}")
_HIDDEN = "…"

# torch allocates for a CPU with a RuntimeError, LightGBM repeats C++'s name of the error.
_MEMORY_WORDS = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "bad_alloc")
_WRITE_WORDS = (
    "PytorchStreamWriter failed writing",
    "unexpected pos",
    "No space left on device",
    "os error 28",
    "code: 28, kind",
)
_MEMORY_SPEAKERS, _WRITE_SPEAKERS = {"torch", "lightgbm"}, {"torch", "safetensors", "safetensors_rust"}
_HELD_BY_OTHERS = re.compile(r"Process \d+ has ([\d.]+) ([KMGT]iB) memory in use")
_CAPACITY = re.compile(r"total capacity of ([\d.]+) ([KMGT]iB)")
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_MUCH = 0.1
"""Share of a GPU that other processes hold from which waiting may help; a context alone takes less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the process ran out of its machine's or its accelerator's memory."""
    # torch's own error is no MemoryError, and this module does not import torch.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)
    if _is_from(error, _MEMORY_SPEAKERS, "[enforce fail at alloc_cpu.cpp") and any(w in said for w in _MEMORY_WORDS):
        return True
    return type(error).__module__.partition(".")[0] == "torch" and "out of memory" in said


def is_failed_write(error: BaseException) -> bool:
    """Return whether a library could not write a file and says so in an error that is no `OSError`."""
    return _is_from(error, _WRITE_SPEAKERS, "[enforce fail at inline_container.cc") and any(
        word in str(error) for word in _WRITE_WORDS
    )


def is_held_by_others(error: BaseException) -> bool:
    """Return whether other processes held much of the GPU that had no memory left."""
    capacity = _CAPACITY.search(str(error))
    if capacity is None:
        return False
    return sum(map(_to_bytes, _HELD_BY_OTHERS.findall(str(error)))) >= _MUCH * _to_bytes(capacity.groups())


def describe_shortage(error: BaseException, request: object) -> str:
    """Describe an exhausted memory with the setting that helps; the numbers of torch's message are repeated."""
    where = "the GPU's memory" if "GPU" in str(error) or "CUDA" in str(error) else "memory"
    numbers = re.search(r"tried to allocate ([\d.]+ ?\w+)|Unable to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
    asked = f" when it asked for {numbers[1] or numbers[2]}" if numbers else ""
    held = sum(map(_to_bytes, _HELD_BY_OTHERS.findall(str(error)))) / 2**30
    why = f"of which other processes held {held:.1f} GiB" if is_held_by_others(error) else "and would again"
    return f"it ran out of {where}{asked}, {why}. {advise_on_memory(request)}"


def advise_on_memory(request: object) -> str:
    """Return the sentence that names the settings by which a request needs less memory, with their values.

    Args:
        request: of a training or an evaluation; its recipe is asked first.
    """
    if (options := getattr(request, "options", None)) is not None:
        names = ("generation_tokens_per_batch", "scoring_tokens_per_batch")
        listed = " and ".join(f"`{name}` (now {getattr(options, name):,})" for name in names)
        return f"Lower {listed} of the application's `evaluation`, or give it more memory."
    recipe = getattr(request, "recipe", None)
    batch_size = getattr(recipe, "batch_size", None)
    lengths = ("max_length", "max_tokens")
    limits = [recipe, getattr(request, "rendering", None)]
    known = [(name, getattr(each, name)) for each in limits for name in lengths if getattr(each, name, None)]
    shorter = f"`{known[0][0]}` (now {known[0][1]})" if known else ""
    if batch_size is None:
        return f"Lower the recipe's {shorter}, or give it more memory." if shorter else "Give it more memory."
    if batch_size > 1:
        steps = getattr(recipe, "accumulation_steps", None)
        kept = f" and raise `accumulation_steps` (now {steps}) as much" if steps else ""
        return f"Lower the recipe's `batch_size` (now {batch_size}){kept}; then {shorter}."
    spared = "set `gradient_checkpointing=True`, " if getattr(recipe, "gradient_checkpointing", None) is False else ""
    return f"The recipe's `batch_size` is 1 already: {spared}lower {shorter}, or give it more memory."


def describe_library_error(error: BaseException) -> str:
    """Describe a library's error by its kind, its place, our line that led there, and the library's own words."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    described = f"{type(error).__name__} in {_name_place(last)}"
    ours = [each for each in frames if f"/{_PACKAGE}/" in each.filename and each.name != "run_process"]
    if ours and ours[-1] is not last:
        described += f", called in {_name_place(ours[-1])}"
    # A module's name is never a user's text.
    words = f"no module {error.name}" if isinstance(error, ModuleNotFoundError) else keep_library_words(error)
    return f"{described}: {words}" if words else described


def keep_library_words(error: BaseException) -> str:
    """Return an error's message, of which only the words are left that stand in the code that raised it.

    An f-string's literal parts are constants of that code; whatever was put between them becomes "…". A constant of
    fewer than two words is not looked for: a user may have written it as well. Empty where nothing is left.
    """
    innermost = _find_last(error.__traceback__)
    if innermost is None:
        return ""
    said = " ".join(str(error).split())
    spans: list[tuple[int, int]] = []
    for constant in sorted(set(_list_constants(innermost.tb_frame.f_code)), key=len, reverse=True):
        for found in re.finditer(re.escape(constant), said):
            if all(found.end() <= start or end <= found.start() for start, end in spans):
                spans.append(found.span())
    if not spans:
        return ""
    kept, reached = [], 0
    for start, end in sorted(spans):
        kept += [_HIDDEN if said[reached:start].strip() else "", said[start:end]]
        reached = end
    kept.append(_HIDDEN if said[reached:].strip() else "")
    return " ".join(each for each in kept if each)[:_MOST_WORDS]


def _list_constants(code: CodeType) -> Iterator[str]:
    for constant in code.co_consts:
        if isinstance(constant, str):
            for piece in _PLACEHOLDER.split(constant):
                literal = " ".join(piece.split())
                if _TWO_WORDS.search(literal):
                    yield literal


def _find_last(found: TracebackType | None) -> TracebackType | None:
    while found is not None and found.tb_next is not None:
        found = found.tb_next
    return found


def _name_place(frame: traceback.FrameSummary) -> str:
    return f"{frame.name}, line {frame.lineno} of {Path(frame.filename).name}"


def _is_from(error: BaseException, speakers: set[str], beginning: str) -> bool:
    """Return whether a library raised it: by the module of its class, or by how torch's `RuntimeError` begins."""
    return type(error).__module__.partition(".")[0] in speakers or (
        type(error) is RuntimeError and "torch" in sys.modules and str(error).startswith(beginning)
    )


def _to_bytes(amount: tuple[str, ...]) -> float:
    return float(amount[0]) * _UNITS[amount[1]]
