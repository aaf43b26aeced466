"""Finds out which weights of a base model an adapter changes.

"all-linear" means PEFT's idea of a linear layer: of the experts of a mixture it knows some models' and not others'
(gpt-oss's have none), and says nothing.
"""

from typing import Any

from flywheel_assets.training.requests import AdapterCoverage

_NOT_IN_A_KIND = {"weight", "base_layer"}


def measure_coverage(model: Any) -> AdapterCoverage:
    """Count a model's weight matrices, by whether the adapter that is loaded has weights for them.

    Norms, biases and embeddings, the output layer among them, are left out: adapters leave them alone on purpose.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    of_adapters: set[int] = set()
    adapted: set[int] = set()
    embeddings: set[int] = set()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            # A layer for experts is one for a single parameter of the module that it wraps.
            name = getattr(module, "parameter_name", "weight")
            adapted.add(id(getattr(module.get_base_layer(), name)))
            of_adapters.update(id(each) for key, each in module.named_parameters() if "lora_" in key)
        elif isinstance(module, nn.Embedding):
            embeddings.update(map(id, module.parameters()))
    output = model.get_base_model().get_output_embeddings()
    if output is not None:
        embeddings.update(map(id, output.parameters()))
    counts: dict[str, int] = {}
    left_alone: dict[str, int] = {}
    total = 0
    for name, weights in model.named_parameters():
        if weights.ndim < 2 or name.endswith("bias") or id(weights) in of_adapters | embeddings:
            continue
        total += weights.numel()
        kind = ".".join([part for part in name.split(".") if part not in _NOT_IN_A_KIND and not part.isdigit()][-2:])
        if id(weights) in adapted:
            counts[kind] = counts.get(kind, 0) + 1
        else:
            left_alone[kind] = left_alone.get(kind, 0) + weights.numel()
    share = sum(left_alone.values()) / total if total else 0.0
    return AdapterCoverage(adapted=counts, left_alone=left_alone, share_left_alone=share)
