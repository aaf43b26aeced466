"""Finds words that hurt, and words that take sides.

Both only ask a person to look: no word list knows what was meant.

Toxic language counts in the chosen text, whether the user or the model wrote it: an attacker can have the model say it
and keep it through an edit. Partiality is judged on what the edit *adds*: a text about a prejudice may well name it,
and the model's own wording is not the user's doing.

The word lists were written for this project and are short on purpose: every entry is a word or phrase that is rarely
used without harm, not a topic. "kill", "gay", "bomb" or "hack" are topics and are not here. All entries are regular
expressions over *folded* text (see `fold`): ASCII, lower case. The lists are offensive by nature.
"""

import re
from collections.abc import Iterable

from flywheel_assets.curation.policy.verdicts import Action, Hazard, Pattern, widen_spaces
from flywheel_assets.records import Reason

# Written with their letters spelled out: the forms in which people hide them are made by `write_disguises`.
SLURS = (
    "nigger", "nigga", "faggot", "kike", "wetback", "raghead", "towelhead", "tranny", "trannie", "shemale", "beaner",
    "gook", "jigaboo", "pickaninny", "zipperhead", "subhuman", "feminazi", "retard", "coonass", "dothead", "halfbreed",
)  # fmt: skip
PROFANITY = (
    "fuck", "motherfucker", "cunt", "bitch", "asshole", "arsehole", "whore", "slut", "bastard", "cocksucker",
    "dickhead", "shithead", "dipshit", "dumbass", "jackass", "douche", "douchebag", "scumbag", "wanker", "twat",
    "pussy", "dumbshit", "shitshow", "shitbag", "fucktard", "clusterfuck", "skank", "asshat", "asswipe",
)  # fmt: skip

GROUPS = (
    r"(?:(?:wo)?men|girls|females|males|mothers|wives|blondes|(?:black|white|brown|asian|jewish|muslim|arab|african"
    r"|mexican|chinese|indian|trans|transgender|gay|disabled|autistic|old|young|poor|homeless|fat|foreign|indigenous"
    r"|native|gypsy|roma|latino|hispanic|polish|russian|turkish|german|french|american) "
    r"(?:people|persons?|folks|(?:wo)?men|kids|families|students|workers|immigrants|drivers)"
    r"|blacks|whites|asians|jews|muslims|christians|catholics|mormons|hindus|sikhs|buddhists|atheists|arabs|africans"
    r"|mexicans|indians|pakistanis|poles|turks|russians|ukrainians|germans|americans|albanians|romanians|nigerians"
    r"|somalis|syrians|afghans|gypsies|roma|latinos|hispanics|immigrants|migrants|refugees|foreigners|asylum seekers"
    r"|gays|lesbians|homosexuals|bisexuals|transgenders|queers|disabled people|the (?:disabled|elderly|poor"
    r"|homeless|jews"
    r"|blacks|muslims)|old people|boomers|millennials|zoomers|liberals|conservatives|leftists|democrats|republicans"
    r"|feminists|muzzies|redheads)"
)
"""Words for people by what they are rather than by what they do; plural, because one person is no generalisation."""

_PERSON = (
    r"(?:man|woman|men|women|people|person|guy|girl|boy|kid|fool|cow|pig|bitch|clown|idiot|liar|loser|hag|creep"
    r"|politician|crook|excuse)s?"
)
_VILE = (
    r"(?:stupid|dumb|worthless|pathetic|disgusting|filthy|ugly|useless|brainless|braindead|brain dead|idiotic|moronic"
    r"|ignorant|lying|corrupt|evil|vile|despicable|spineless|cowardly|senile|incompetent|illegitimate"
    r"|delusional|racist)"
)
_VILE_NOUN = (
    r"(?:idiots?|morons?|imbeciles?|cretins?|dimwits?|dumb(?:ass)?(?:es)?|scum(?:bags?)?|vermin|parasites?|clowns?"
    r"|liars?|losers?|pigs?|rats?|snakes?|cockroach(?:es)?|trash|garbage|filth|pos|creeps?|perverts?|coward?s?"
    r"|hypocrites?|traitors?|thugs?|crooks?|fools?|tools?|douche|buffoons?|degenerates?|lunatics?|psycho(?:path)?s?)"
)
_BEING = r"(?:you|he|she|they|u|these people|this (?:guy|man|woman|clown|person|idiot))"
_BE = r"(?:(?:'?re| are|'s| is| was| were| r) )"
_SO = (
    r"(?:(?:a|an|the|all|both|just|such|so|too|very|really|such a|just a|nothing but|absolute|total|complete|real"
    r"|fucking|damn) ){0,4}"
)

INSULTS = (
    rf"\b{_BEING}{_BE}{_SO}(?:{_VILE}|{_VILE_NOUN})\b",
    rf"\b{_VILE} (?:little |old |fat |fucking |ass )?(?:{_PERSON}|{_VILE_NOUN})\b",
    rf"\byou (?:little |fucking |damn |total |complete |absolute |sick )*(?:{_VILE_NOUN}|{_VILE})\b",
    r"\b(?:what an? |such an? |bunch of |pack of |gang of )(?:fucking |total |complete |absolute |bloody )*"
    rf"{_VILE_NOUN}\b",
    r"\b(?:idiots?|morons?|imbeciles?|cretins?|scumbags?|assholes?|dumbass(?:es)?|lowlifes?|retards?|simpletons?)\b",
    r"\b(?:(?:worthless )?piece of (?:shit|crap|garbage|trash)|sack of shit|full of shit|eat shit"
    r"|waste of (?:space|skin|oxygen|air))\b",
    r"\b(?:go to hell|screw you|shut (?:the (?:fuck|hell) )?up(?: you| and)|stfu|gtfo|suck (?:my|his"
    r"|a) (?:dick|cock|balls)"
    r"|kiss my ass|son of a bitch|kick (?:your|his|her|their) ass|nobody (?:likes|wants) you|drop dead)\b",
    rf"\b\w+ (?:is|are|was|were) {_SO}(?:idiots?|morons?|imbeciles?|scum|liars?|losers?|hypocrites?|cowards?"
    rf"|perverts?|creeps?"
    r"|thugs?|crooks?|buffoons?|degenerates?|psychos?|traitors?|pedophiles?|maggots?|vermin|braindead|brain dead"
    r"|(?:so|too|that|really|just|such) (?:stupid|dumb|pathetic|disgusting))\b",
    rf"\b(?:stupidest|dumbest|ugliest|nastiest|vilest|most (?:{_VILE})) (?:\w+ )?{_PERSON}\b",
    r"\b(?:stupid|dumb|dense|thick) as (?:a )?(?:fuck|shit|hell|rocks?|dirt|bricks?|a box of)\b",
    rf"\b{_BEING}(?: people)? (?:sucks?|disgusts? me|can go to hell)\b",
    r"\b(?:lib|dem|demo|repub|rep|trump|obama|conserv|biden|putin)[a-z]{0,4}(?:tard(?:s|ed|ation|ism)?|turds?"
    r"|pukes?)\b",
    r"\b(?:up (?:your|his|her|their|my) ass|ass ?holes?|shit ?heads?|dumb ?(?:fucks?|shits?)|(?:this|that"
    r"|what) shit ?hole|pile of (?:shit|garbage|crap)"
    r"|full of (?:crap|hate and lies)|load of (?:garbage|crap|bullshit)|die already|pigs? in lipstick"
    r"|trailer trash|white trash|gold ?diggers?|crack ?heads?)\b",
    r"\b(?:makes me (?:sick|puke|want to (?:puke|vomit))|rot in (?:hell|prison|jail)|burn in hell)\b",
)
THREATS = (
    r"\b(?:i|we)(?:'ll| will|'m going to| am going to|'m gonna|'re going to| are going to| gonna| want to|'d love to) "
    r"(?:fucking |personally |find and |hunt (?:down )?and )*(?:kill|murder|shoot|stab|strangle|hang|behead"
    r"|rape|beat|slaughter"
    r"|hurt|burn|smash|skin|gut) (?:you|him|her|them all|your|every|all of (?:you|them)|those|these"
    r"|that (?:bitch|bastard))\b",
    rf"\b(?:you|he|she|{GROUPS}) (?:should|must|needs? to|deserves? to|ought to|have to|has to) "
    r"(?:all )?(?:be (?:killed|shot|hanged|hung|executed|exterminated|gassed|lynched|beheaded|raped|burned|slaughtered"
    r"|put down|eradicated)|die\b|hang\b|burn\b|suffer\b|rot\b)",
    r"\bthey (?:should|must|deserve to) (?:all )?(?:be (?:hanged|gassed|lynched|exterminated|slaughtered)"
    r"|die\b|hang\b|burn in)",
    rf"\b(?:kill|murder|shoot|gas|exterminate|hang|lynch|behead|slaughter|death to|get rid of) (?:all |every "
    rf"|off )?(?:the |those |these )?{GROUPS}\b",
    r"\b(?:hope|wish) (?:that )?(?:you|he|she|they|your (?:kids|family|mother)) (?:all )?(?:dies?"
    r"|gets? (?:cancer|raped|shot|killed)|chokes?|rots?)\b",
)
SELF_HARM = (
    r"\b(?:(?:go |just |please |should |why (?:do not|don't) you )(?:and )?(?:kill|hang|shoot|hurt|cut) yourself"
    r"|kys|neck yourself|go die|drink bleach and|(?:the world|everyone) would be better (?:off )?without you"
    r"|end your (?:own )?(?:miserable |pathetic |worthless )?life|slit your wrists)\b",
)
SEXUAL = (
    r"\b(?:blow ?jobs?|hand ?jobs?|cum ?shots?|cream ?pies? (?:her|him)|gang ?bang(?:s|ed|ing)?"
    r"|deep ?throat(?:ed|ing)?|bukkake|hentai"
    r"|milfs?|wet pussy|(?:her|your|my|tight|lick\w*|eat\w*) pussy|titty|titties|big tits|her tits|nice tits"
    r"|hard cock|(?:his|my|your|huge|big|suck\w*) cock|jerk(?:ed|ing)? (?:me|him|it) off|cum (?:on|in"
    r"|inside) (?:me|her|him|my)"
    r"|fuck me|send (?:me )?nudes|spread (?:your|her) legs|horny)\b",
)
CHILD_SEXUAL = (
    r"\b(?:child porn|kiddie porn\w*|lolicon|jailbait|(?:underage|preteen|little|young|minor) (?:girls?|boys?"
    r"|kids?|children)"
    r" (?:naked|nude|nudes|sex|porn|sexually|undress\w*)|sexy (?:child|children|preteens?|little (?:girl|boy)s?))\b",
)

_NEGATIVE = (
    r"(?:lazy|stupid|dumb|dirty|filthy|greedy|violent|aggressive|dangerous|inferior|superior|criminals?"
    r"|thie(?:f|ves)|liars?"
    r"|terrorists?|rapists?|drug dealers|parasites?|animals|savages|vermin|cockroaches|apes|evil|disgusting"
    r"|crazy|hysterical"
    r"|emotional|irrational|weak|incompetent|untrustworthy|dishonest|uncivili[sz]ed|backwards?|primitive|unintelligent"
    r"|illiterate|promiscuous|(?:less|more) (?:intelligent|capable|rational|violent|emotional|competent"
    r"|trustworthy|civilized|likely to (?:steal|lie|cheat))"
    r"|smarter|dumber|lazier|(?:bad|terrible|awful|hopeless|useless|worse|worst|better|good|great) (?:at"
    r"|drivers?|with (?:money|numbers|computers))"
    r"|terrible drivers|not (?:as )?(?:smart|intelligent|capable|suited|fit|rational|human|trustworthy|cut out"
    r"|good at|good with)"
    r"|(?:naturally|genetically|biologically|inherently|born) \w+|sick|mentally ill|perverts?|predators"
    r"|snowflakes|a (?:burden|plague|disease|threat|problem))"
)
_HEDGE = (
    r"(?:(?:always|never|just|only|simply|really|all|usually|typically|generally|mostly|often|too|very|so|far|much"
    r"|known to be|such|nothing but) ){0,3}"
)

GENERALISATIONS = (
    rf"\b{GROUPS} (?:{_HEDGE})(?:are|were|tend to be|seem to be|will always be) {_HEDGE}{_NEGATIVE}\b",
    rf"\b{GROUPS} (?:{_HEDGE})(?:can'?t|cannot|can not|don'?t|do not|shouldn'?t|should not|should never"
    rf"|must not|never should|aren'?t able to"
    r"|are unable to|are not able to) (?:even )?(?:be (?:trusted|allowed|leaders|engineers|in charge)|drive"
    r"|think|lead|belong|control them|handle|assimilate"
    r"|integrate|deserve|understand|do (?:math|science)|have (?:jobs|rights)|behave|govern|learn|work (?:as"
    r"|in)|vote)\b",
    rf"\b{GROUPS} (?:should|need to|must|ought to|have to|belong) (?:just |all |only )?(?:stay (?:home|at home"
    rf"|in the|out)|go back|be (?:deported|banned"
    r"|sterili[sz]ed|removed|locked up|expelled|segregated|kept (?:out|away))|know their place|obey|submit"
    r"|serve|in the kitchen|at home|leave (?:the|our|this))\b",
    rf"\b{GROUPS} (?:always|never|only|all) (?:lie|cheat|steal|complain|want|care|think|act|try|get|take|commit"
    rf"|smell|exaggerate|gossip|overreact|nag|listen"
    r"|work|play the|breed|abuse|demand|expect)\b",
    rf"\b(?:typical|just like (?:all|most|every)|you know how|like all|as (?:all"
    rf"|most)) (?:of )?(?:the )?(?:those )?{GROUPS}\b",
    r"\b(?:a|every|any|no) (?:real |true |normal )?(?:woman|man|girl|jew|muslim|immigrant|black person|gay man"
    r"|boomer|foreigner)(?:'s| is|s) "
    r"(?:only |always |never |just |really |too )?(?:place is|job is|good for|naturally|inherently|bad at"
    r"|to be trusted|emotional|inferior)\b",
)
LOADED = (
    r"\b(?:lamestream media|mainstream media lies|fake news|plandemic|scamdemic|sheeple|deep state|illegals"
    r"|illegal aliens?|anchor bab(?:y|ies)"
    r"|welfare queens?|social justice warriors?|sjws?|libtards?|trumpanzees?|demon ?rats|republicunts?"
    r"|rethuglicans?|woke (?:mob|agenda|nonsense|ideology|left|crowd"
    r"|garbage|bullshit|propaganda)|radical (?:left|right|leftists?)|(?:gay|trans|jewish|globalist|communist"
    r"|feminist|liberal) agenda|great replacement"
    r"|baby ?killers?|globalist (?:elites?|cabal)|cultural marxis(?:m|ts?)|big pharma shills?|paid shills?"
    r"|puppet (?:regime|government)|climate (?:hoax|alarmis(?:m|ts?)|scam)"
    r"|witch hunt|tree ?huggers?|bleeding hearts?|nanny state|gender ideology|race baiters?|virtue signal\w*"
    r"|corrupt (?:elites?|regime|media)|crooked (?:politicians|media|joe|hillary)"
    r"|brainwashed (?:masses|idiots|sheep|by)|(?:hordes?|swarms?|floods?|invasion|tidal wave"
    r"|army) of (?:illegal )?(?:immigrants|migrants|refugees|foreigners|muslims)"
    r"|(?:so-called|self-proclaimed|wannabe|self-styled) (?:experts?|scientists?|journalists?|president"
    r"|feminists?|refugees|intellectuals?|elites?|christians?|muslims?)"
    r"|evil (?:regime|corporations?|empire|elites?|socialists?)|enem(?:y|ies) of the people"
    r"|traitors? to (?:the|our|their) (?:country|nation|people)|blood on (?:his|her|their) hands"
    r"|(?:any|every) (?:idiot|fool) (?:knows|can see|could)|no sane person|only an? (?:idiot|fool|moron))\b",
)


def write_disguises(word: str) -> str:
    """Write an expression for a word, its inflections and its disguises: letters repeated, masked or set apart.

    "fuck" also finds fuuuck, f*ck, f**k, f.u.c.k and "f u c k"; a word with all letters apart needs the same kind of
    gap between all of them, so that ordinary text with one space too many is left alone.
    """
    first, middle, last = word[0], word[1:-1], word[-1]
    masked = "".join(rf"(?:{letter}+|[*#&%@])" for letter in middle)
    apart = "[ ._*-]".join(rf"{letter}" for letter in word)
    return rf"\b(?:{first}+{masked}{last}+(?:e?s|e?d|ing|in|ers?|y|ies|ish|face|head|tard)?|{apart}s?)\b"


_TOXIC = (
    ("slur", map(write_disguises, SLURS), Hazard.HATE, 0.9),
    ("profanity", map(write_disguises, PROFANITY), Hazard.HARASSMENT, 0.6),
    ("insult", INSULTS, Hazard.HARASSMENT, 0.7),
    ("threat", THREATS, Hazard.VIOLENT_CRIMES, 0.8),
    ("self_harm_urging", SELF_HARM, Hazard.SUICIDE_AND_SELF_HARM, 0.9),
    ("sexual_language", SEXUAL, Hazard.SEXUAL_CONTENT, 0.7),
    ("child_sexual_language", CHILD_SEXUAL, Hazard.CHILD_SEXUAL_EXPLOITATION, 0.9),
)
_PARTIAL = (
    ("generalisation", GENERALISATIONS, Hazard.HATE, 0.7),
    ("loaded_language", LOADED, Hazard.NEUTRALITY, 0.5),
)


def _make_pattern(
    name: str, parts: Iterable[str], hazard: Hazard, score: float, reason: Reason, known: tuple[str, ...]
) -> Pattern:
    expression = widen_spaces("|".join(parts))
    return Pattern(
        name,
        re.compile(expression, re.ASCII),
        expression,
        Action.QUARANTINE,
        reason,
        hazard,
        fields=("chosen",),
        score=score,
        known_from=known,
    )


TOXIC_LANGUAGE = tuple(
    _make_pattern(name, parts, hazard, score, Reason.TOXIC_LANGUAGE, ()) for name, parts, hazard, score in _TOXIC
)
GRAVE_LANGUAGE = tuple(
    pattern for pattern in TOXIC_LANGUAGE if pattern.name in ("self_harm_urging", "child_sexual_language")
)
"""Those whose words are enough, also where a screening head decides about the rest."""
NEUTRALITY = tuple(
    _make_pattern(name, parts, hazard, score, Reason.NEUTRALITY, ("rejected",))
    for name, parts, hazard, score in _PARTIAL
)
