"""Numeric precisions, backends and devices of inference, named without importing torch."""

# The precision applies to the convolutions, which take nearly all of the time. bfloat16 takes little more than half as
# long as float32 on a processor that has instructions for it, and changes actions by about 1e-3.
PRECISIONS = ("float32", "bfloat16")

# What computes the convolutions. OpenVINO is an optional package (extra "openvino").
BACKENDS = ("torch", "openvino")

# What runs the network: the processor, or the NVIDIA GPU that torch takes by default (CUDA_VISIBLE_DEVICES selects it).
DEVICES = ("cpu", "cuda")
