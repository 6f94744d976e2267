"""Language: from an instruction's text to the embedding that conditions the policy.

    text_encoder.py            sentence embeddings by a frozen public language model
    minilm.py                  the network of one of them, without transformers
    instruction_matcher.py     text -> the known instruction that it means, or an error
    instruction_text.py        which texts count as equal, and which words change a meaning
    torchvision_workaround.py  makes torchvision importable beside a CPU-only torch

Invariant: the policy is conditioned only on embeddings of instructions it was trained on. Importing a module of this
room imports neither torch nor transformers, except minilm.py and the workaround.
"""
