"""`python -m flywheel_assets.screening.local_model_process MODEL`: a line of JSON texts in, a line of their scores out.

Ends when its input ends. A text that is longer than the model reads is cut into overlapping windows and gets the
highest score of any: harm behind the 512th token counts as well.
"""

import sys

from flywheel_assets.screening.serving import serve_batches

_OVERLAP_TOKENS = 32
_WINDOWS_AT_ONCE = 32
_LONGEST_WINDOW_TOKENS = 512


def main() -> int:
    """Serve standard input; answer an error of one batch, and try the next batch."""
    return serve_batches(lambda: Scorer(sys.argv[1]).score, "loading the model", "scoring")


class Scorer:
    """A loaded model and its tokenizer."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()
        positions = getattr(self.model.config, "max_position_embeddings", None) or _LONGEST_WINDOW_TOKENS
        # RoBERTa's positions begin behind its padding token.
        spare = 2 if "roberta" in self.model.config.model_type else 0
        self.window_tokens = min(positions - spare, self.tokenizer.model_max_length, _LONGEST_WINDOW_TOKENS)

    def score(self, texts: list[str]) -> list[dict[str, float]]:
        """Score per label, 0 to 1, for every text."""
        import torch

        encoded = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.window_tokens,
            stride=min(_OVERLAP_TOKENS, self.window_tokens // 4),
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        )
        owner = encoded.pop("overflow_to_sample_mapping").tolist()
        labels = self.model.config.id2label
        is_multi_label = self.model.config.problem_type == "multi_label_classification" or len(labels) == 1
        scores: list[dict[str, float]] = [dict.fromkeys(labels.values(), 0.0) for _ in texts]
        with torch.inference_mode():
            for start in range(0, len(owner), _WINDOWS_AT_ONCE):
                window = {name: values[start : start + _WINDOWS_AT_ONCE] for name, values in encoded.items()}
                logits = self.model(**window).logits.float()
                shares = logits.sigmoid() if is_multi_label else logits.softmax(-1)
                for text, values in zip(owner[start : start + _WINDOWS_AT_ONCE], shares.tolist(), strict=True):
                    for index, value in enumerate(values):
                        scores[text][labels[index]] = max(scores[text][labels[index]], value)
        return scores


if __name__ == "__main__":
    sys.exit(main())
