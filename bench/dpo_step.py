"""A DPO step of the tiny generator: PyTorch beside imagecot, in turn, at the same threads.

    python bench/dpo_step.py [--rounds 5] [--engine xla:/path/plugin.so,shared_buffers]

Needs torch. Prints the median of each and the ratio imagecot / PyTorch. Both sides make the whole step of 16 pairs:
forward of 32 rows, log-probabilities over the whole vocabulary, loss, gradients, clipping, AdamW. The reference's
log-probabilities are stored on both sides. Batches are made outside the timing on the PyTorch side.
"""
import argparse
import json
import os
import re
import statistics
import subprocess

import torch
import torch.nn.functional as F

from train_step import GENERATOR, reference, root, seconds

PAIRS, BETA = 16, 0.1


def dpo_step():
    model = reference.Showo(GENERATOR)
    opt = torch.optim.AdamW(model.parameters(), 2e-4, (0.9, 0.999), weight_decay=0.01)
    ids = torch.randint(0, GENERATOR["vocab_size"], (2 * PAIRS, 83))
    mask = torch.zeros(2 * PAIRS, 1, 83, 83)
    mask[:, :, :17, 17:] = -1e9
    labels = torch.where(torch.rand(2 * PAIRS, 66) < 0.64, ids[:, 17:83], -100)
    stored = torch.randn(2 * PAIRS)

    def step():
        logits = model(ids, mask)[:, 17:83]
        losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="none")
        ratio = -losses.view(2 * PAIRS, -1).sum(-1) - stored
        loss = -F.logsigmoid(BETA * (ratio[:PAIRS] - ratio[PAIRS:])).mean()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        opt.step()

    return step


def ours(engine, steps):
    env = dict(os.environ, IMAGECOT_TEST_ENGINE=engine)
    out = subprocess.run(["go", "test", "./align/dpo", "-run", "^$", "-bench", "BenchmarkStep$", "-benchtime", f"{steps}x"],
                         cwd=root, env=env, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"([\d.]+) ns/op", out).group(1)) / 1e9


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--steps", type=int, default=20)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--engine", default=os.environ.get("IMAGECOT_TEST_ENGINE"), required="IMAGECOT_TEST_ENGINE" not in os.environ)
    args = a.parse_args()
    torch.set_num_threads(args.threads)
    theirs, mine = [], []
    for _ in range(args.rounds):
        theirs.append(seconds(dpo_step(), args.steps))
        mine.append(ours(args.engine, args.steps))
    ratios = [m / t for m, t in zip(mine, theirs)]
    print(json.dumps({"step": "dpo", "imagecot_s": statistics.median(mine), "pytorch_s": statistics.median(theirs),
                      "ratio_median": statistics.median(ratios), "ratios": [round(r, 3) for r in ratios]}))


if __name__ == "__main__":
    main()
