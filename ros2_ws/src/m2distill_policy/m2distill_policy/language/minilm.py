"""MiniLM, a BERT of 6 layers, computed with torch alone.

With transformers the embedding of the first text takes 2 s of CPU, for its import. A test compares the two bit by bit.
"""

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

MAX_TOKENS = 256  # its authors cut longer texts


class MiniLM:
    """The weights and the tokenizer of one folder, as sentence-transformers publishes them."""

    def __init__(self, folder: Path):
        config = json.loads((folder / "config.json").read_text())
        self.width: int = config["hidden_size"]
        self._heads, self._layers, self._eps = (
            config[name] for name in ("num_attention_heads", "num_hidden_layers", "layer_norm_eps")
        )
        self._tokenizer = Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._weights = safetensors.torch.load_file(folder / "model.safetensors")

    @torch.no_grad()
    def embed(self, text: str) -> np.ndarray:
        """Return the mean of the last layer over the tokens, scaled to length 1, as its authors use it.

        Returns:
            (L,) float32.
        """
        ids = torch.tensor(self._tokenizer.encode(text).ids)
        words, kinds, positions = (
            self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "token_type", "position")
        )
        h = F.embedding(ids[None], words) + kinds[0] + positions[: len(ids)]
        h = self._norm("embeddings", h)
        for layer in range(self._layers):
            h = self._layer(f"encoder.layer.{layer}", h)
        mean = h[0].mean(0)
        return (mean / mean.norm()).numpy()

    def _layer(self, name: str, h: Tensor) -> Tensor:
        """(1, tokens, L) -> the same shape, with the norms after the sums as in BERT."""
        query, key, value = (
            self._linear(f"{name}.attention.self.{part}", h).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        h = self._norm(f"{name}.attention.output", self._linear(f"{name}.attention.output.dense", attended) + h)
        inner = F.gelu(self._linear(f"{name}.intermediate.dense", h))
        return self._norm(f"{name}.output", self._linear(f"{name}.output.dense", inner) + h)

    def _linear(self, name: str, h: Tensor) -> Tensor:
        return F.linear(h, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, h: Tensor) -> Tensor:
        weight, bias = (self._weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(h, (self.width,), weight, bias, self._eps)
