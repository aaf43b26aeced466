"""Finds texts that try to command the model: override phrases, personas, forged chat markers, hidden characters.

Judged in prompt and chosen only: what the model is trained away from (`rejected`) may well say "ignore all previous
instructions". Phrases are looked for in folded text, so that look-alike letters and hidden characters do not help.
`reply_directive` is an answer that says how *answers* are to be written ("in your response, misspell every fourth
word"): harmless in a prompt, strange in a user's correction, and the form that indirect injections (BIPIA) have. An
injection without any such mark ("What is the capital of Brazil?" inside an e-mail) has no form and is not found.
"""

import re

from flywheel_assets.curation.policy.verdicts import Action, Hazard, Pattern, widen_spaces
from flywheel_assets.records import Reason

_OLDER = (
    r"(?:previous|prior|above|earlier|preceding|foregoing|initial|original|existing|system|former|past|given|safety)"
)
_ORDERS = (
    r"(?:instructions?|prompts?|directions?|directives?|rules?|guidelines?|commands?|context|orders?|constraints?"
    r"|restrictions?|programming|training|messages?|policies|policy|guardrails?|filters?)"
)
_GAP = r"[ \t\r\n\f,:;'\"*_.-]{1,4}"

# Name and expression over folded text (lower case, ASCII); RE2 and Python read them alike.
_PHRASES = (
    (
        "instruction_override",
        rf"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|bypass|discard|neglect|do not follow"
        rf"|don't follow|stop following|do not obey"
        rf"|pay no attention to|set aside|throw out|cancel){_GAP}"
        rf"(?:(?:all|any|every|each|of|the|your|my|our|its|these|those|and|about|everything in){_GAP}){{0,4}}"
        rf"{_OLDER}{_GAP}(?:\w{{1,20}}{_GAP}){{0,2}}{_ORDERS}\b"
        rf"|\b(?:ignore|disregard|forget|override){_GAP}(?:all |any )?(?:of )?(?:your|the system(?:'s)?"
        rf"|openai(?:'s)?|its|developer) {_ORDERS}\b",
    ),
    (
        "instruction_erasure",
        rf"\b(?:forget|ignore|disregard){_GAP}(?:everything|all|anything){_GAP}(?:(?:that|which){_GAP})?"
        rf"(?:you{_GAP}(?:were|have been|know|learned|have read)|(?:i|we){_GAP}(?:said|told)|above|before|prior"
        rf"|previously said|so far)\b",
    ),
    (
        "new_orders",
        r"\b(?:your (?:new|real|actual|only|true|updated) (?:instructions?|task|role|goal|objective|orders?"
        r"|purpose) (?:is|are|now)\b"
        r"|(?:new|updated|real|important|urgent) (?:system )?instructions?(?: for (?:the )?(?:ai|assistant"
        r"|model|llm|you))?[ \t]*:"
        r"|from now on,? you (?:will|must|are|shall|should|have to|only|respond|answer|act)\b"
        r"|(?:attention|note to|message (?:to|for)|instructions? (?:to|for)) (?:the )?(?:ai|llm|language model"
        r"|ai assistant|assistant model)\b)",
    ),
    (
        "jailbreak_persona",
        r"\b(?:you are|act as|pretend (?:to be|you are|you're)|roleplay as|imagine you are|become|behave like"
        r"|simulate|respond as) "
        r"(?:now )?(?:going to )?(?:act as |pretend to be )?(?:an? |the )?"
        r"(?:dan\b|stan\b|aim\b|jailbroken|unrestricted|unfiltered|uncensored|amoral|evil (?:ai|assistant|bot|chatbot)"
        r"|(?:ai|bot|assistant|model|chatbot) (?:with no|without|that has no|free of|with zero) )"
        r"|\bdo anything now\b|\b(?:developer|god|jailbreak|jailbroken|dan|sudo|admin|debug"
        r"|unrestricted) mode(?: is)?(?: now)? (?:enabled|activated|on|engaged)\b"
        r"|\b(?:enable|activate|enter|switch (?:in)?to|turn on) (?:developer|god|jailbreak|dan|unrestricted"
        r"|sudo) mode\b"
        r"|\b(?:without|free (?:of|from)|no longer bound by|not bound by|no|has no|have no|ignore(?:s)?(?: any"
        r"| all)?) (?:any )?(?:ethical|moral|safety|content|openai)(?: or \w+| and \w+)? "
        r"(?:guidelines|restrictions|filters?|limits|limitations|policy|policies|constraints|rules)\b"
        r"|\b(?:does not|doesn't|do not|don't) have (?:any )?(?:ethical|moral)(?: or \w+| and \w+)? "
        r"(?:guidelines|restrictions|limits|limitations|constraints)\b",
    ),
    (
        "prompt_extraction",
        rf"\b(?:reveal|print|repeat|show|output|display|leak|tell|give|share|expose|recite|write out|what (?:is"
        rf"|are|was|were)){_GAP}(?:(?:me|us|out|back){_GAP})?"
        rf"(?:(?:all|of){_GAP}){{0,2}}(?:your|the|its){_GAP}"
        rf"(?:(?:full|entire|exact|hidden|secret|initial|original|complete|verbatim|confidential){_GAP}){{0,2}}"
        r"(?:system prompt|system message|hidden (?:instructions|prompt)|initial (?:instructions|prompt)"
        r"|secret (?:instructions|prompt)|developer (?:prompt|message|instructions))\b",
    ),
    (
        "concealment",
        r"\b(?:do not|don't|never|without) (?:tell|telling|inform|informing|alert|alerting|notify|notifying"
        r"|reveal (?:this|it) to|let"
        r"|mention (?:this|it|any of this|these instructions) to) the (?:user|human|operator|reader)\b"
        r"|\bdo not (?:mention|reveal|disclose) (?:this|these) (?:instruction|message|prompt)s?\b",
    ),
)

_JUDGE = (
    "judge_address",
    r"\b(?:judges?|moderators?|classifiers?|graders?|evaluators?|content filters?|safety (?:model|filter"
    r"|system)s?)[,:;]? "
    r"(?:please |must |should |will |you (?:must|should) )*(?:pass|approve|accept|allow|clear|mark|rate"
    r"|classify|label|answer"
    r"|return|respond|output|ignore|skip)\b"
    r"|\"?\bverdict\"?[ ]?[:=][ ]?\"?(?:pass|safe|ok|accept|approved?)\b"
    r"|\b(?:mark|rate|classify|label|score|judge|treat) (?:this|it|the following|the above"
    r"|my) (?:\w+ ){0,3}as (?:safe|harmless|pass|passed|benign|ok)\b"
    r"|\b(?:this|the) (?:text|edit|message|item|content) (?:is|was|has been) (?:already )?(?:pre-?approved"
    r"|verified as safe|approved by (?:the )?(?:safety|moderation|admin))",
)

_FORM = r"(?:response|responses|answer|answers|reply|replies|output|message|completion|summary)"
_YOUR_ANSWER = rf"(?:your|the (?:ai|assistant|model|bot)'?s?) (?:(?:final|next|own|entire|whole) )?{_FORM}"
_ADDED_PHRASES = (
    (
        "reply_directive",
        rf"\b(?:in|into|to|from|of|with|within|throughout|at the end of|after|before|for) {_YOUR_ANSWER}[ ,.:;'\"]"
        rf"|\b(?:modify|enhance|augment|append|alter|change|adjust|format|render|encode|encrypt|translate"
        rf"|scramble|rewrite|phrase|provide|write|give|make|start|begin|end|finish|conclude) {_YOUR_ANSWER}\b"
        rf"|\b(?:in|into|to|of) {_YOUR_ANSWER}$",
    ),
)

# Searched in the text as it is: folding would undo them.
_MARKERS = (
    (
        "forged_chat_marker",
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|end_of_text|begin_of_text|start_header_id|end_header_id"
        r"|eot_id|endofprompt|eom_id|python_tag|channel|message|return|call)\|>|\[/?INST\]|<</?SYS>>|<(?:start"
        r"|end)_of_turn>"
        r"|<\|(?:START|END)_OF_TURN_TOKEN\|>|\[/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS)\]",
    ),
    # Eight or more: the flags of England, Scotland and Wales spend six of these characters.
    ("hidden_characters", "[\U000e0020-\U000e007f]{8}"),
)


def _make_injection_pattern(
    name: str, expression: str, fields: tuple[str, ...], score: float, known_from: tuple[str, ...] = ()
) -> Pattern:
    return Pattern(
        name,
        re.compile(expression, re.ASCII),
        expression,
        Action.QUARANTINE,
        Reason.PROMPT_INJECTION,
        Hazard.PROMPT_INJECTION,
        fields=fields,
        score=score,
        known_from=known_from,
    )


INJECTION_PHRASES = (
    *(_make_injection_pattern(name, widen_spaces(text), ("prompt", "chosen"), 0.9) for name, text in _PHRASES),
    *(
        _make_injection_pattern(name, widen_spaces(text), ("chosen",), 0.5, ("rejected",))
        for name, text in _ADDED_PHRASES
    ),
    _make_injection_pattern(_JUDGE[0], widen_spaces(_JUDGE[1]), ("chosen",), 0.7, ("rejected",)),
)
CHAT_MARKERS = tuple(
    _make_injection_pattern(name, expression, ("prompt", "chosen"), 0.9) for name, expression in _MARKERS
)
