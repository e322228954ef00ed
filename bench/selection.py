"""One PARM selection at N = 20: imagecot beside the same models decoded in PyTorch in the manner of the authors' code.

    python bench/selection.py [--rounds 3] [--backend /path/plugin.so] [--imagecot ./imagecot]

Needs torch, safetensors, tokenizers, pillow. The authors' manner: one path at a time, full sequences and full head at
every step, no kept keys and values, every step image decoded, written as PNG and read back, no path truncated. The PyTorch
side asks exactly the questions of imagecot's trace, each a whole forward pass of which only the first answer token is
computed (the authors sample up to 100). imagecot's seconds are those of the selection, without compilation: the first prompt
of a run only warms up. Weights are the shipped tiny ones on both sides; verdicts come from the trace, so both sides
do the same work.
"""
import argparse
import io
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

root = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(root / "oracle"))
import judge as llava  # noqa: E402
import reference  # noqa: E402

PROMPTS = [
    "a photo of a red circle and a blue square", "a photo of a star left of a ring", "a photo of three hearts",
    "a photo of a green diamond", "a photo of a cross and a triangle", "a photo of a yellow star and a purple ring",
]
STEPS, GUIDANCE = 18, 1.75


class Authors:
    def __init__(self, tiny, judge):
        self.config = reference.read_config(tiny / "generator")
        self.showo = reference.load(reference.Showo(self.config), tiny / "generator")
        self.magvit = reference.load(reference.Magvit(reference.read_config(tiny / "tokenizer")), tiny / "tokenizer")
        self.judge = reference.load(llava.Judge(reference.read_config(tiny / judge)), tiny / judge)
        self.text = Tokenizer.from_file(str(tiny / "bpe" / "tokenizer.json"))

    def rows(self, prompt):
        """ids [2, S+1] of the prompt and of the empty one, padded on the left, and the mask [2, 1, L, L]."""
        c = self.config
        words, eot = c["llm_vocab_size"], c["llm_config"]["eos_token_id"]
        s, n = c["max_seq_length"], c["num_vq_tokens"]
        out, total = [], s + 1 + n + 2
        mask = torch.full((2, 1, total, total), -1e9)
        for i, ids in enumerate((self.text.encode(prompt, add_special_tokens=False).ids, [])):
            row = [words + 5, eot, *ids, eot]
            pads = s + 1 - len(row)
            out.append([words] * pads + row)
            causal = torch.tril(torch.ones(total, total, dtype=torch.bool))
            causal[s + 1 :, :] = True
            causal[:, :pads] = False
            causal[torch.arange(total), torch.arange(total)] = True
            mask[i, 0][causal] = 0
        return torch.tensor(out), mask

    @torch.inference_mode()
    def path(self, prompt, asked, folder):
        c = self.config
        n, k, first = c["num_vq_tokens"], c["codebook_size"], c["llm_vocab_size"] + 10
        text, mask = self.rows(prompt)
        soi, eoi = torch.full((2, 1), c["llm_vocab_size"] + 1), torch.full((2, 1), c["llm_vocab_size"] + 2)
        ids = torch.full((n,), c["mask_token_id"])
        for step in range(STEPS):
            logits = self.showo(torch.cat([text, soi, ids.expand(2, n), eoi], 1), mask)
            logits = logits[:, -n - 1 : -1, first : first + k]
            p = torch.softmax((1 + GUIDANCE) * logits[0] - GUIDANCE * logits[1], -1)
            tokens = torch.multinomial(p, 1)[:, 0]
            known = ids != c["mask_token_id"]
            tokens = torch.where(known, ids - first, tokens)
            confidence = torch.where(known, torch.inf, p.gather(1, tokens[:, None])[:, 0].log())
            left = max(1, min(int((~known).sum()) - 1, math.floor(n * math.cos(math.pi / 2 * (step + 1) / STEPS))))
            noise = -(-(torch.rand(n).clamp_min(1e-20)).log()).clamp_min(1e-20).log()
            order = (confidence + (1 - (step + 1) / STEPS) * noise).argsort()
            ids = (tokens + first).clone()
            ids[order[:left]] = c["mask_token_id"]
            x = self.magvit.decode(tokens[None])[0]
            png = folder / f"{step}.png"
            Image.fromarray((((x + 1) / 2).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()).save(png)
            for turns in asked.get(step + 1, []):
                self.ask(png, turns)

    def ask(self, png, turns):
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(png.read_bytes())).convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
        before = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        after = "\n" + "<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\n".join(turns) + "<|im_end|>\n<|im_start|>assistant\n"
        return self.judge(pixels, *(torch.tensor(self.text.encode(t, add_special_tokens=False).ids) for t in (before, after)))


def ours(args, out):
    env = dict(os.environ, **({"IMAGECOT_BACKEND": args.backend} if args.backend else {}))
    text = subprocess.run([args.imagecot, "generate", *PROMPTS, "--strategy", "parm", "-n", "20", "--seed", str(args.seed), "--out", out, "--json", "--quiet"],
                          cwd=root, env=env, capture_output=True, text=True, check=True).stdout
    return json.loads(text)["images"][1:]


def questions(trace):
    """asked[path][step]: the conversations, as lists of user turns."""
    out = []
    for path in trace["paths"]:
        steps = {}
        for a in path.get("asked", []):
            clarity = [b["text"] for b in path["asked"] if b["step"] == a["step"] and b["kind"] == "clarity"]
            turns = clarity + [a["text"]] if a["kind"] == "potential" else [a["text"]]
            steps.setdefault(a["step"], []).append(turns)
        out.append(steps)
    return out


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--backend", default="")
    a.add_argument("--imagecot", default="./imagecot")
    args = a.parse_args()
    torch.set_num_threads(args.threads)
    judge = "parm" if (root / "tiny" / "parm" / "model.safetensors").exists() else "judge"
    authors = Authors(root / "tiny", judge)
    mine, theirs, ratios = [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as tmp:
            for run in ours(args, tmp):
                trace = json.loads(pathlib.Path(run["trace"]).read_text())
                began = time.perf_counter()
                for asked in questions(trace["selection"]):
                    authors.path(run["prompt"], asked, pathlib.Path(tmp))
                theirs.append(time.perf_counter() - began)
                mine.append(run["cost"]["seconds"])
                ratios.append(mine[-1] / theirs[-1])
    print(json.dumps({"selection": "parm, N = 20", "selections": len(mine), "imagecot_s": statistics.median(mine), "pytorch_s": statistics.median(theirs),
                      "ratio_median": statistics.median(ratios), "ratios": [round(r, 3) for r in ratios]}))


if __name__ == "__main__":
    main()
