"""Training steps of the tiny tokenizer and generator: PyTorch beside imagecot, in turn, at the same threads.

    python bench/train_step.py [--rounds 5] [--engine xla:/path/plugin.so,shared_buffers]

Needs torch. Prints the median of each and the ratio imagecot / PyTorch. Both sides make the whole step: forward,
gradients, clipping, optimiser, moving average. Batches are made outside the timing on the PyTorch side.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "oracle"))
import reference  # noqa: E402

TOKENIZER = dict(
    codebook_dim=10,
    encoder=dict(ch=32, ch_mult=[1, 1, 2, 3], num_res_blocks=[0, 1, 1, 1], mid_attn=False, norm_group_size=16, bottleneck_kernel=1),
    decoder=dict(ch=32, ch_mult=[1, 1, 2, 3], num_res_blocks=[0, 1, 1, 0], mid_attn=False, norm_group_size=16),
)
WORDS = 464
GENERATOR = dict(
    vocab_size=WORDS + 10 + 1024 + 1, num_vq_tokens=64,
    llm_config=dict(hidden_size=128, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4, partial_rotary_factor=0.5,
                    rope_theta=10000, layer_norm_eps=1e-5, image_position_embeddings=True),
)


class Average:
    def __init__(self, model, decay):
        self.decay, self.model = decay, model
        self.mean = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def step(self):
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.model.parameters()], 1 - self.decay)


def tokenizer_step():
    model = reference.Magvit(TOKENIZER).to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.parameters(), 2e-3, (0.9, 0.95), weight_decay=0)
    mean = Average(model, 0.995)
    x = (torch.rand(32, 3, 64, 64) * 2 - 1).to(memory_format=torch.channels_last)

    def step():
        z = model.encoder(x)
        q = torch.where(z > 0, 1.0, -1.0)
        e = model.decoder(z + (q - z).detach()) - x
        weight = 1 + 3 * ((x - x[:, :, :1, :1]).abs().amax(1, keepdim=True) > 1e-3).float()
        p = torch.sigmoid(4 * z)
        entropy = F.binary_cross_entropy_with_logits(4 * z, p)
        m = p.mean((0, 2, 3))
        batch = -(m * (m + 1e-6).log() + (1 - m) * (1 - m + 1e-6).log()).mean()
        loss = (weight / weight.mean() * (e * e + 0.5 * e.abs())).mean() + 0.02 * ((z - q.detach()) ** 2).mean() + 0.01 * (entropy - batch)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        opt.step()
        mean.step()

    return step


def newton_schulz(g):
    x = g / (g.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


def generator_step():
    model = reference.Showo(GENERATOR)
    matrices = [p for n, p in model.named_parameters() if ".layers." in n and p.dim() == 2]
    chosen = {id(p) for p in matrices}
    opt = torch.optim.AdamW([p for p in model.parameters() if id(p) not in chosen], 3e-3, (0.9, 0.98), weight_decay=0.01)
    momentum, mean = [torch.zeros_like(p) for p in matrices], Average(model, 0.999)
    ids = torch.randint(0, GENERATOR["vocab_size"], (16, 84))
    mask = torch.zeros(16, 1, 84, 84)
    mask[:, :, :17, 17:] = -1e9
    labels = torch.where(torch.rand(16, 66) < 0.64, ids[:, 18:84], -100)

    def step():
        logits = model(ids, mask)[:, 18:84]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100)
        opt.zero_grad(set_to_none=True)
        for p in matrices:
            p.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        opt.step()
        with torch.no_grad():
            for p, m in zip(matrices, momentum):
                m.mul_(0.95).add_(p.grad)
                p.mul_(1 - 3e-3 * 0.01).add_(newton_schulz(p.grad + 0.95 * m), alpha=-3e-3 * 0.2 * max(p.shape) ** 0.5)
        mean.step()

    return step


def seconds(step, steps):
    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps


def ours(kind, engine, steps):
    env = dict(os.environ, IMAGECOT_TEST_ENGINE=engine)
    out = subprocess.run(["go", "test", "./train/objective", "-run", "^$", "-bench", f"BenchmarkStep/{kind}$", "-benchtime", f"{steps}x"],
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
    for kind, make in (("tokenizer", tokenizer_step), ("generator", generator_step)):
        theirs, mine = [], []
        for _ in range(args.rounds):
            theirs.append(seconds(make(), args.steps))
            mine.append(ours(kind, args.engine, args.steps))
        ratios = [m / t for m, t in zip(mine, theirs)]
        print(json.dumps({"step": kind, "imagecot_s": statistics.median(mine), "pytorch_s": statistics.median(theirs),
                          "ratio_median": statistics.median(ratios), "ratios": [round(r, 3) for r in ratios]}))


if __name__ == "__main__":
    main()
