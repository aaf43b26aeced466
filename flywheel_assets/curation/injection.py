"""Texts that try to command the model: override phrases, jailbreak personas, forged chat markers, hidden characters.

Judged in prompt and chosen only: what the model is trained away from (`rejected`) may well say "ignore all previous
instructions". An injection without any such mark, for example a polite request inside a quoted e-mail, is not found.
"""

import re

from flywheel_assets.curation.patterns import Pattern
from flywheel_assets.curation.verdicts import Action
from flywheel_assets.records import Reason

_OLDER = r"(?:previous|prior|above|earlier|preceding|foregoing|initial|original|existing|system)"
_ORDERS = r"(?:instructions?|prompts?|directions?|directives?|rules|guidelines|commands|context)"
_SPACE = r"[ \t\r\n\f]{1,3}"  # RE2 and Python disagree about \s
_GAP = r"[ \t\r\n\f,:;'\"*_-]{1,4}"

# Name and expression; both engines read them the same way, so that each is its own prefilter.
_EXPRESSIONS = (
    (
        "instruction_override",
        rf"(?i:\b(?:ignore|disregard|forget|override|bypass|discard|do not follow|don't follow|stop following){_GAP}"
        rf"(?:(?:all|any|every|each|of|the|your|my|our|these|those|and){_GAP}){{0,4}}{_OLDER}{_GAP}"
        rf"(?:\w{{1,20}}{_GAP}){{0,2}}{_ORDERS}\b)",
    ),
    (
        "instruction_erasure",
        rf"(?i:\b(?:forget|ignore|disregard){_SPACE}(?:everything|all|anything){_SPACE}(?:(?:that|which){_SPACE})?"
        rf"(?:you{_SPACE}(?:were|have been|know|learned)|(?:i|we){_SPACE}(?:said|told)|above|before)\b)",
    ),
    (
        "jailbreak_persona",
        r"(?i:\byou are (?:now )?(?:going to )?(?:act as |pretend to be )?"
        r"(?:dan\b|stan\b|jailbroken|unrestricted|unfiltered)"
        r"|\bdo anything now\b|\b(?:developer|god|jailbreak|dan) mode (?:is )?(?:enabled|activated|on)\b"
        r"|\b(?:without|free of|no longer bound by) (?:any )?(?:ethical|moral|safety|content) "
        r"(?:guidelines|restrictions|filters|limits)\b)",
    ),
    (
        "prompt_extraction",
        rf"(?i:\b(?:reveal|print|repeat|show|output|display|leak|tell){_SPACE}(?:me{_SPACE})?"
        rf"(?:(?:all|of){_SPACE}){{0,2}}(?:your|the){_SPACE}"
        rf"(?:(?:full|entire|exact|hidden|secret|initial|original){_SPACE}){{0,2}}"
        r"(?:system prompt|system message|hidden instructions|initial instructions)\b)",
    ),
    (
        "concealment",
        r"(?i:\b(?:do not|don't|never) (?:tell|inform|alert|notify|reveal (?:this|it) to"
        r"|mention (?:this|it|any of this) to) the (?:user|human|operator)\b)",
    ),
    (
        "forged_chat_marker",
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|end_of_text|begin_of_text|start_header_id|end_header_id"
        r"|eot_id|endofprompt)\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>",
    ),
    # Eight or more: the flags of England, Scotland and Wales spend six of these characters.
    ("hidden_characters", "[\U000e0020-\U000e007f]{8}"),
)

INJECTION = tuple(
    Pattern(
        name,
        re.compile(expression, re.ASCII),
        expression,
        Action.QUARANTINE,
        Reason.PROMPT_INJECTION,
        "prompt_injection",
        fields=("prompt", "chosen"),
        score=0.9,
    )
    for name, expression in _EXPRESSIONS
)
