"""Eleven architectures in miniature: random weights, a small tokenizer of the right kind, the published chat template.

Templates are read from TRL's folder, which keeps them byte for byte as the models' repositories ship them (its README
names each repository); Mistral's and Mixtral's are not there and stand here, with their source.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from flywheel_assets_tests.models.chat_templates import MISTRAL_V3_TEMPLATE

# mistralai/Mixtral-8x7B-Instruct-v0.1, tokenizer_config.json
_MIXTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
_TEXTS = ["Turn on the lights in the living room.\n\n", "Be kind. Done! The lights are on now.\n", "user assistant\n"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One family of models: how its tokenizer works, what its template writes, and how a tiny one is made."""

    name: str
    bos: str | None
    eos: str
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    """Tokens that are no special ones, such as <think>."""
    pieces: str | None = None
    """A tokenizer of SentencePiece's kind: "prepend" puts a space before every stretch of text between control tokens,
    "first" only at the very start, "plain" nowhere."""
    template: str | None = None
    """None: the base is published without one."""
    is_eating_spaces: bool = False
    """Its special tokens swallow the white space behind them (`rstrip`)."""
    generation_ends: tuple[str, ...] = ()
    """Of generation_config.json, where there is more than the tokenizer's own."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    completion: str
    """The text of the answer "Done!" as the template writes it, up to and with the end of the turn."""
    make: Callable[[int, Any], Any]
    """Makes the model from the size of the vocabulary and the tokenizer."""


def _read_published(name: str) -> str:
    import trl

    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


_SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_SIZE, "num_key_value_heads": 2, "max_position_embeddings": 1024}


def _make(kind: str, **sizes: Any) -> Callable[[int, Any], Any]:
    def make(vocabulary: int, tokenizer: Any) -> Any:
        import torch
        import transformers

        torch.manual_seed(0)
        ends = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        config = transformers.AutoConfig.for_model(kind, vocab_size=vocabulary, **sizes, **ends)
        return transformers.AutoModelForCausalLM.from_config(config)

    return make


@cache
def list_architectures() -> dict[str, Architecture]:
    """List the eleven by name."""
    chatml = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    tools = ("<think>", "</think>", "<tool_call>", "</tool_call>")
    listed = [
        Architecture(
            name="gpt2",
            bos="<|endoftext|>",
            eos="<|endoftext|>",
            completion="Done!<|endoftext|>",
            make=_make("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=1024),
        ),
        Architecture(
            name="llama3",
            bos="<|begin_of_text|>",
            eos="<|eot_id|>",
            special=("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
            template=_read_published("llama3_2"),
            generation_ends=("<|eot_id|>", "<|end_of_text|>"),
            completion="Done!<|eot_id|>",
            make=_make("llama", **_GROUPED),
        ),
        Architecture(
            name="qwen2",
            bos=None,
            eos="<|im_end|>",
            special=chatml,
            added=tools[2:],
            template=_read_published("qwen2_5"),
            generation_ends=("<|im_end|>", "<|endoftext|>"),
            completion="Done!<|im_end|>",
            make=_make("qwen2", **_GROUPED),
        ),
        Architecture(
            name="qwen3",
            bos=None,
            eos="<|im_end|>",
            special=chatml,
            added=tools,
            template=_read_published("qwen3"),
            kwargs={"enable_thinking": False},
            generation_ends=("<|im_end|>", "<|endoftext|>"),
            completion="Done!<|im_end|>",
            make=_make("qwen3", head_dim=8, **_GROUPED),
        ),
        Architecture(
            name="gemma3",
            bos="<bos>",
            eos="<eos>",
            special=("<start_of_turn>", "<end_of_turn>"),
            pieces="plain",
            template=_read_published("gemma3"),
            generation_ends=("<eos>", "<end_of_turn>"),
            completion="Done!<end_of_turn>",
            make=_make("gemma3_text", head_dim=8, sliding_window=64, **_GROUPED),
        ),
        Architecture(
            name="mistral",
            bos="<s>",
            eos="</s>",
            special=("[INST]", "[/INST]", "[TOOL_CALLS]"),
            pieces="first",
            template=MISTRAL_V3_TEMPLATE,
            completion="Done!</s>",
            make=_make("mistral", sliding_window=64, **_GROUPED),
        ),
        Architecture(
            name="phi3",
            bos="<s>",
            eos="<|endoftext|>",
            special=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
            pieces="prepend",
            is_eating_spaces=True,
            template=_read_published("phi3"),
            generation_ends=("<|endoftext|>", "<|end|>"),
            completion="Done!<|end|>",
            make=_make("phi3", **_GROUPED),
        ),
        Architecture(
            name="gpt_neox",
            bos="<|endoftext|>",
            eos="<|endoftext|>",
            completion="Done!<|endoftext|>",
            make=_make("gpt_neox", max_position_embeddings=1024, **_SIZE),
        ),
        Architecture(
            name="mixtral",
            bos="<s>",
            eos="</s>",
            pieces="prepend",
            template=_MIXTRAL_TEMPLATE,
            completion="Done!</s>",
            make=_make("mixtral", num_local_experts=4, **_GROUPED),
        ),
        Architecture(
            name="qwen3_moe",
            bos=None,
            eos="<|im_end|>",
            special=chatml,
            added=tools,
            template=_read_published("qwen3_instruct_2507"),
            generation_ends=("<|im_end|>", "<|endoftext|>"),
            completion="Done!<|im_end|>",
            make=_make(
                "qwen3_moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, **_GROUPED
            ),
        ),
        Architecture(
            name="gpt_oss",
            bos="<|startoftext|>",
            eos="<|return|>",
            special=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|endoftext|>"),
            template=_read_published("gptoss"),
            generation_ends=("<|return|>", "<|call|>", "<|endoftext|>"),
            completion="<|channel|>final<|message|>Done!<|return|>",
            make=_make(
                "gpt_oss", head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=64, **_GROUPED
            ),
        ),
    ]
    return {each.name: each for each in listed}


NAMES = ("gpt2", "llama3", "qwen2", "qwen3", "gemma3", "mistral", "phi3", "gpt_neox", "mixtral", "qwen3_moe", "gpt_oss")


@cache
def make_tokenizer(name: str) -> Any:
    """A small tokenizer of an architecture's kind, with its control tokens and its template; no padding token."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    of = list_architectures()[name]
    backend = _make_bytes() if of.pieces is None else _make_pieces(of.pieces)
    ends = tuple(token for token in (of.bos, of.eos) if token)
    special = dict.fromkeys([*ends, *of.special])
    backend.add_special_tokens(
        [AddedToken(text, special=True, normalized=False, rstrip=of.is_eating_spaces) for text in special]
    )
    backend.add_tokens([AddedToken(text, normalized=False) for text in of.added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=of.bos, eos_token=of.eos)
    tokenizer.chat_template = of.template
    return tokenizer


def _make_bytes() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _TEXTS * 20, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    return backend


def _make_pieces(kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    characters = sorted({*"".join(_TEXTS).replace(" ", "▁"), *map(chr, range(33, 127)), "\n", "▁"})
    merges = [("\n", "\n"), ("▁", "D"), ("o", "n"), ("▁D", "on"), ("▁", "l"), ("▁", "▁")]
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), *characters, *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    spaces = normalizers.Replace(" ", "▁")
    if kind == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif kind == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        backend.normalizer = spaces
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    if kind != "plain":
        back.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(back)
    return backend


def save(name: str, folder: Path) -> Path:
    """Save the tiny model of an architecture with its tokenizer, as a base model's folder."""
    of, tokenizer = list_architectures()[name], make_tokenizer(name)
    model = of.make(len(tokenizer), tokenizer)
    if of.generation_ends:
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(of.generation_ends))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
