"""`python -m flywheel_assets.screening.heads.encoder_process FOLDER THREADS`: texts in, their vectors out.

One line of JSON for each batch.

The frozen encoder of a screening head. Ends when its input ends.
"""

import sys

from flywheel_assets.screening.serving import serve_batches

_LONGEST_TOKENS = 512  # pieces have at most 400 characters, and so fewer tokens: nothing is cut off
_TEXTS_AT_ONCE = 32


def main() -> int:
    """Serve standard input; answer an error of one batch, and try the next batch."""
    return serve_batches(lambda: Encoder(sys.argv[1], int(sys.argv[2])).encode, "loading the encoder", "encoding")


class Encoder:
    """A loaded sentence encoder. It is frozen: nothing here is ever trained."""

    def __init__(self, folder: str, threads: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
        self.longest_tokens = min(_LONGEST_TOKENS, self.model.config.max_position_embeddings)
        # Sentence encoders learn to forget tone, in their last layers first: two thirds up, "kind" and "vile" are
        # further apart than at the top (recall on unseen statements 77 % against 55 %).
        self.layer = round(self.model.config.num_hidden_layers * 2 / 3)

    def encode(self, texts: list[str]) -> list[bytes]:
        """Encode every text as one vector: float32, little endian.

        A vector is the mean, the maximum and the minimum over a text's tokens of one of the upper layers, and the
        mean of the last layer.
        """
        encoded = self.tokenizer(texts, truncation=True, max_length=self.longest_tokens)
        # Texts of equal length share a batch: padding costs as much as text.
        order = sorted(range(len(texts)), key=lambda number: len(encoded["input_ids"][number]))
        found: dict[int, bytes] = {}
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            some = order[start : start + _TEXTS_AT_ONCE]
            names = ("input_ids", "attention_mask")
            batch = {name: [encoded[name][number] for number in some] for name in names}
            found |= zip(some, self._encode_batch(batch), strict=True)
        return [found[number] for number in range(len(texts))]

    def _encode_batch(self, texts: dict[str, list[list[int]]]) -> list[bytes]:
        import torch

        batch = self.tokenizer.pad(texts, return_tensors="pt")
        with torch.inference_mode():
            states = self.model(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"].unsqueeze(-1).float()
            upper, last = states[self.layer].float(), states[-1].float()
            far = (1 - mask) * 1e4
            parts = (
                (upper * mask).sum(1) / mask.sum(1),
                (upper - far).amax(1),
                (upper + far).amin(1),
                (last * mask).sum(1) / mask.sum(1),
            )
            rows = torch.cat(parts, dim=1).numpy().astype("<f4")
        return [row.tobytes() for row in rows]


if __name__ == "__main__":
    sys.exit(main())
