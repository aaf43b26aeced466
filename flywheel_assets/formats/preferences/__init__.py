"""Reads comparison sets: each record holds two or more answers to one prompt, or one answer that was judged."""

from flywheel_assets.formats.format import Format
from flywheel_assets.formats.preferences.chosen_messages import CHOSEN_MESSAGES
from flywheel_assets.formats.preferences.demonstrations import ALPACA, PROMPT_COMPLETION, SFT_MESSAGES
from flywheel_assets.formats.preferences.distilabel import DISTILABEL
from flywheel_assets.formats.preferences.gemini_preference import GEMINI_PREFERENCE
from flywheel_assets.formats.preferences.hh_rlhf import HH_RLHF
from flywheel_assets.formats.preferences.llama_factory import ALPACA_PREFERENCE, LLAMA_FACTORY_KTO, SHAREGPT_DPO
from flywheel_assets.formats.preferences.lmsys_arena import LMSYS_ARENA
from flywheel_assets.formats.preferences.openai_preference import OPENAI_PREFERENCE
from flywheel_assets.formats.preferences.trl import TRL_PREFERENCE, TRL_UNPAIRED
from flywheel_assets.formats.preferences.ultrafeedback import ULTRAFEEDBACK, ULTRAFEEDBACK_BINARIZED

FORMATS: tuple[Format, ...] = (
    HH_RLHF,
    ULTRAFEEDBACK_BINARIZED,
    ULTRAFEEDBACK,
    DISTILABEL,
    SHAREGPT_DPO,
    ALPACA_PREFERENCE,
    LLAMA_FACTORY_KTO,
    CHOSEN_MESSAGES,
    OPENAI_PREFERENCE,
    GEMINI_PREFERENCE,
    LMSYS_ARENA,
    TRL_PREFERENCE,
    TRL_UNPAIRED,
    SFT_MESSAGES,
    ALPACA,
    PROMPT_COMPLETION,
)
