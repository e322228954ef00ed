"""Reads a LoRA adapter that imagecot wrote with peft, and compares peft's merged weights with imagecot's.

    imagecot merge BASE ADAPTER MERGED
    python oracle/peft_reads.py BASE ADAPTER MERGED

The model is a tree of torch modules with the base's names, one Linear for each matrix that the adapter changes.
"""
import os
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file

base, adapter, merged = sys.argv[1:4]


def weights(folder):
    return load_file(os.path.join(folder, "model.safetensors"))


class Node(torch.nn.Module):
    """A module with children of any name."""


class Model(torch.nn.Module):
    config = {}

    def __init__(self, tensors):
        super().__init__()
        for name, tensor in tensors.items():
            *path, leaf = name.split(".")
            if leaf != "weight" or tensor.ndim != 2:
                continue
            at = self
            for part in path[:-1]:
                if part not in at._modules:
                    at.add_module(part, Node())
                at = at._modules[part]
            linear = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
            linear.weight.data = tensor.float()
            at.add_module(path[-1], linear)

    def forward(self, x):
        return x


before, after = weights(base), weights(merged)
model = PeftModel.from_pretrained(Model(before), adapter).merge_and_unload()
changed, worst = 0, 0.0
for name, got in model.state_dict().items():
    want = after[name].float()
    if torch.equal(before[name].float(), got):
        assert torch.equal(before[name], after[name]), f"{name} changed for imagecot only"
        continue
    changed += 1
    step = want.abs() * 2.0**-8 if after[name].dtype == torch.bfloat16 else 1e-6 + want.abs() * 1e-6
    worst = max(worst, ((got - want).abs() / (step + 1e-8)).max().item())
assert changed, "the adapter changed nothing"
assert worst <= 1, f"merged weights differ by {worst} rounding steps"
print(f"peft reads the adapter: {changed} weights changed, at most {worst:.3f} rounding steps from imagecot's")
