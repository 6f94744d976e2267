"""The sentence encoder all-MiniLM-L6-v2 in torch alone.

It is a BERT of six layers (Devlin et al. 2019). The class computes what transformers' BertModel does, in the same order
and so to the same bits. Importing transformers would take two seconds of every training and of a node's first match.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer

MAX_TOKENS = 256  # as in the model's sentence_bert_config.json


class MiniLM:
    """A loaded model that embeds one sentence at a time."""

    def __init__(self, folder: Path):
        config = json.loads((folder / "config.json").read_text())
        self.width: int = config["hidden_size"]
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._eps: float = config["layer_norm_eps"]
        self._weights = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    @torch.no_grad()
    def embed(self, text: str) -> torch.Tensor:
        """Return the mean of the last layer over the tokens, scaled to length 1, as its authors use it: (L,)."""
        mean = self._last_layer(torch.tensor([self._tokenizer.encode(text).ids]))[0].mean(0)
        return mean / mean.norm()

    def _last_layer(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state (1, T, L) of the tokens (1, T)."""
        words, kinds, positions = (
            self._weights[f"embeddings.{table}_embeddings.weight"] for table in ("word", "token_type", "position")
        )
        x = F.embedding(tokens, words) + kinds[0] + positions[: tokens.shape[1]]
        x = self._norm("embeddings", x)
        for i in range(self._layers):
            layer = f"encoder.layer.{i}"
            x = self._norm(f"{layer}.attention.output", self._attention(f"{layer}.attention", x) + x)
            inner = F.gelu(self._linear(f"{layer}.intermediate.dense", x))
            x = self._norm(f"{layer}.output", self._linear(f"{layer}.output.dense", inner) + x)
        return x

    def _attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            self._linear(f"{name}.self.{part}", x).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self._linear(f"{name}.output.dense", mixed)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.LayerNorm.weight"], self._weights[f"{name}.LayerNorm.bias"]
        return F.layer_norm(x, (self.width,), weight, bias, self._eps)
