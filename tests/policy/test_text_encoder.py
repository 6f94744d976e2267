"""Sentence encoders. A tiny BERT is built here, so that its code runs without the hub."""

import subprocess
import sys

import numpy as np
import pytest

from m2distill_policy.language import text_encoder
from m2distill_policy.language.text_encoder import BERT, MINILM, TextEncoderError, load_text_encoder


@pytest.fixture(scope="module")
def minilm():
    return load_text_encoder(MINILM)


def test_importing_the_module_imports_neither_torch_nor_transformers():
    code = (
        "import sys, m2distill_policy.language.text_encoder; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_loading_and_encoding_print_nothing_and_do_not_import_transformers():
    code = (
        "from m2distill_policy.language.text_encoder import *; load_text_encoder('all-MiniLM-L6-v2').encode(['go'])\n"
        "import sys; assert not {'transformers', 'torchvision', 'torch._dynamo'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_similar_instructions_have_similar_embeddings(minilm):
    near, also_near, far = minilm.encode(
        [
            "pick up the milk and place it in the basket",
            "grab the milk carton and put it into the basket",
            "open the middle drawer",
        ]
    )
    assert near @ also_near == pytest.approx(0.89, abs=0.01)
    assert near @ far < 0.35


def test_embeddings_have_unit_length_and_the_documented_shape(minilm):
    embeddings = minilm.encode(["open the drawer", "close it", "open the drawer"])
    assert (minilm.name, minilm.width) == (MINILM, 384)
    assert embeddings.shape == (3, 384)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(embeddings[0], embeddings[2])


def test_an_embedding_equals_that_of_sentence_transformers(minilm, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    sentence = "pick up the alphabet soup and place it in the basket"
    reference = sentence_transformers.SentenceTransformer(str(text_encoder._packaged_minilm()), device="cpu").encode(
        sentence
    )
    np.testing.assert_allclose(minilm.encode([sentence])[0], reference, atol=1e-5)


def test_an_embedding_is_that_of_transformers_bit_by_bit(minilm):
    import torch

    from m2distill_policy.language.torchvision_workaround import patch_torchvision

    patch_torchvision()
    from transformers import AutoTokenizer, BertModel

    folder = text_encoder._packaged_minilm()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    for text in ("open the drawer", "", "Öffne die Schublade! 日本語 🙂", "a\tb\nc", "[MASK] [PAD]", "word " * 300):
        words = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**words).last_hidden_state[0].mean(0)
        np.testing.assert_array_equal(minilm.encode([text])[0], (mean / mean.norm()).numpy(), text)


@pytest.mark.parametrize("absent", ["model.safetensors", "tokenizer.json"])
def test_a_folder_of_minilm_without_a_file_is_rejected_in_one_line(absent, tmp_path):
    for file in text_encoder._packaged_minilm().iterdir():
        if file.name != absent:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(TextEncoderError, match=f"cannot be loaded from {tmp_path} .*{absent}"):
        load_text_encoder(MINILM, tmp_path)


def test_a_sentence_is_computed_once():
    calls = []

    def embed(sentence):
        calls.append(sentence)
        return np.full(384, len(sentence), np.float32)

    encoder = text_encoder.TextEncoder(MINILM, embed)
    encoder.encode(["a", "bb", "a"])
    assert encoder.encode(["bb"])[0, 0] == 2
    assert calls == ["a", "bb"]


def test_the_cache_does_not_grow_with_received_texts():
    known, calls = ["a", "bb"], []

    def embed(sentence):
        calls.append(sentence)
        return np.zeros(384, np.float32)

    encoder = text_encoder.TextEncoder(MINILM, embed)
    for i in range(100):
        encoder.encode([f"new text {i}", *known])
    assert len(calls) == 102 and len(encoder._cache) <= 3


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """Return a folder with a BERT of width 768, one layer and a vocabulary of a few words."""
    import torch

    from m2distill_policy.language.torchvision_workaround import patch_torchvision

    patch_torchvision()
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "open", "close", "the", "drawer"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(words), hidden_size=768, num_hidden_layers=1, num_attention_heads=12, intermediate_size=32
        )
    ).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return folder


def test_bert_embeds_as_libero_does(tiny_bert):
    import torch
    from transformers import AutoModel, AutoTokenizer

    sentences = ["open the drawer", "close the drawer"]
    tokens = AutoTokenizer.from_pretrained(tiny_bert)(
        text=sentences,
        add_special_tokens=True,
        max_length=25,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    assert tokens["input_ids"].shape == (2, 25)
    model = AutoModel.from_pretrained(tiny_bert).eval()
    with torch.no_grad():
        expected = model(tokens["input_ids"], tokens["attention_mask"])["pooler_output"].numpy()
    encoder = load_text_encoder(BERT, tiny_bert)
    assert (encoder.name, encoder.width) == (BERT, 768)
    np.testing.assert_allclose(encoder.encode(sentences), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_the_default_is_the_packaged_encoder_if_the_hub_cache_is_empty(tmp_path):
    """In a separate process, because the client of the hub reads its cache folder once."""
    code = "from m2distill_policy.language.text_encoder import default_text_encoder; print(default_text_encoder().name)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": ""},
    )
    assert (run.stdout, run.stderr) == (MINILM + "\n", "")


def test_an_unreachable_hub_is_an_error_within_seconds(tmp_path):
    code = (
        "from m2distill_policy.language.text_encoder import *\n"
        "try: load_text_encoder(BERT)\n"
        "except TextEncoderError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "PATH": ""},
    )
    assert "is not in the local hub cache and the hub is unreachable" in run.stdout
    assert MINILM in run.stdout
    assert run.stderr == ""


def test_an_unknown_encoder_is_rejected_with_a_suggestion():
    with pytest.raises(TextEncoderError, match="did you mean 'bert-base-cased'"):
        load_text_encoder("bert-base-case")


def test_a_folder_without_a_model_is_rejected(tmp_path):
    with pytest.raises(TextEncoderError, match=r"has no config\.json"):
        load_text_encoder(BERT, tmp_path)


def test_a_model_of_another_width_is_rejected():
    with pytest.raises(TextEncoderError, match=r"width 384, bert-base-cased has 768"):
        load_text_encoder(BERT, text_encoder._packaged_minilm())
