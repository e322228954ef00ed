"""Writes the small files of torch.save that ckpt's tests read: python oracle/torchfiles.py ckpt/testdata"""
import collections
import os
import sys

import torch

out = sys.argv[1]
x = torch.arange(6, dtype=torch.float32).reshape(2, 3)
base = torch.arange(12, dtype=torch.float32)
state = collections.OrderedDict(
    w=x,
    transposed=x.t(),
    part=base[4:10].reshape(3, 2),
    half=x.half(),
    bf16=x.bfloat16(),
    double=x.double(),
    long=torch.tensor([-1, 2**40]),
    bool=torch.tensor([True, False]),
    scalar=torch.tensor(7.0),
    empty=torch.zeros(0, 4),
    parameter=torch.nn.Parameter(x + 1),
    tied=x,
)
torch.save(state, os.path.join(out, "zip.bin"))
torch.save(dict(meta=dict(epoch=50, CLASSES=("a", "b"), seed=None, big=2**70, lr=1e-4), state_dict=state),
           os.path.join(out, "nested.pth"), _use_new_zipfile_serialization=False)
torch.save(dict(w=x, step=3), os.path.join(out, "plain.pt"), pickle_protocol=4)


class Evil:
    def __reduce__(self):
        return (os.system, ("echo ran",))


torch.save(dict(w=x, bad=Evil()), os.path.join(out, "evil.bin"))
torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), os.path.join(out, "script.pt"))
torch.save([x], os.path.join(out, "list.bin"))
