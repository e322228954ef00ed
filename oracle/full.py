"""Makes parity cases at full size: random weights in the published layout, bf16, and what plain PyTorch computes of them.

    python oracle/full.py check GOLDENS      holds the PyTorch models to the small cases first
    python oracle/full.py showo FOLDER       Show-o 1.3B at 256 x 256: all 18 steps of one image with given noise (5.8 GB
                                             of memory, 2.9 GB of disk)
    python oracle/full.py magvit FOLDER      MAGVIT-v2: FOLDER/encode and FOLDER/decode
    python oracle/full.py judge FOLDER [7b]  LLaVA-OneVision 0.5B (or 7B: 18 GiB of memory, 15 GiB of disk) in the authors'
                                             layout: two questions, one with two turns
    python oracle/full.py time FOLDER [f32|bf16] [STEPS]    seconds a decoding step in PyTorch at FOLDER's weights (on a GPU if there is one)

Each case is a folder that `imagecot parity` runs. The reference computes in float32 of the bf16 weights.
"""
import json
import math
import pathlib
import resource
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import judge as llava
import reference

torch.set_num_threads(2)
torch.set_grad_enabled(False)

PHI = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=32, hidden_act="gelu_new",
           layer_norm_eps=1e-5, partial_rotary_factor=.5, rope_theta=10000., qk_layernorm=True)
SHOWO = dict(_class_name="Showo", _diffusers_version="0.30.1", codebook_size=8192, llm_model_path="microsoft/phi-1_5", llm_vocab_size=50295,
             mask_token_id=58497, num_vq_tokens=256, vocab_size=58498, w_clip_vit=False)
MAGVIT = dict(encoder=dict(ch=128, ch_mult=[1, 2, 2, 4, 4], num_res_blocks=[4, 3, 4, 3, 4]), decoder=dict(ch=128, ch_mult=[1, 1, 2, 2, 4], num_res_blocks=[4, 4, 3, 4, 3]))
SIGLIP = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=384, patch_size=14, layer_norm_eps=1e-6)
QWEN = dict(architectures=["LlavaQwenForCausalLM"], model_type="llava", hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
            num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True, rms_norm_eps=1e-6, rope_theta=1000000.0, hidden_act="silu",
            mm_vision_tower="google/siglip-so400m-patch14-384", mm_projector_type="mlp2x_gelu", mm_patch_merge_type="spatial_unpad",
            mm_vision_select_layer=-2, mm_vision_select_feature="patch", image_aspect_ratio="pad", image_grid_pinpoints="(1x1),...,(6x6)")
QWEN_7B = {**QWEN, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
           "vocab_size": 152064, "tie_word_embeddings": False}
EOT, PAD, SOI, EOI, T2I, OFFSET = 50256, 50295, 50296, 50297, 50300, 50305


def draw_weights(model, seed, std=None):
    """Weights of a model on the meta device, one after another: matrices N(0, 1/fan-in), norms about 1, no bias 0."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.state_dict().items():
        x = torch.randn(p.shape, generator=g)
        if name in (std or {}):
            x *= std[name]
        elif p.dim() == 1:
            x = x * .1 + 1 if name.endswith(".weight") else x * .05
        else:
            x /= math.sqrt(p[0].numel())
        yield name, x.bfloat16()


def random_weights(model, seed, std=None):
    return dict(draw_weights(model, seed, std))


def write_shards(weights, folder, size=2**30):
    """Writes named weights in files of about size bytes and their index, holding one file's worth at a time."""
    files, shard = {}, {}

    def flush():
        name = f"model-{len(set(files.values())) + 1:05d}.safetensors"
        save_file(shard, folder / name)
        files.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, x in weights:
        shard[name] = x
        if sum(t.nbytes for t in shard.values()) >= size:
            flush()
    if shard:
        flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=files)))


def files_of(folder):
    index = folder / "model.safetensors.index.json"
    return sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]


def build(make, folder, dtype=torch.float32):
    """A model whose weights come from the folder, one tensor at a time."""
    with torch.device("meta"):
        model = make()
    state = {}
    for name in files_of(folder):
        with safe_open(folder / name, "pt") as f:
            state |= {k: f.get_tensor(k).to(torch.get_default_device(), dtype) for k in f.keys() if not k.startswith("quantize.")}
    model.load_state_dict(state, assign=True)
    return model.eval()


def write(folder, kind, config, tensors, tolerance, params, notes=""):
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    if tensors is not None:
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "io.safetensors")
    case = dict(kind=kind, source="oracle/full.py, torch " + torch.__version__, seed=1, params=params, tolerance=tolerance, notes=notes)
    (folder / "case.json").write_text(json.dumps(case, indent=1))


def t2i(text, image, s=128):
    ids = [T2I, EOT, *text, EOT] if text else [T2I, EOT, EOT]
    return torch.tensor([[PAD] * (s + 1 - len(ids)) + ids + [SOI] + image + [EOI]])


def allow(ids, s=128):
    """[L, L]: text is causal, the image sees everything but padding, padding sees padding."""
    n = ids.shape[1]
    q, k = torch.arange(n)[:, None], torch.arange(n)[None]
    pad = (ids[0] == PAD)
    return torch.where(q > s, ~pad[None], (k <= q) & (pad[None] == pad[:, None]))


def additive(masks, dtype):
    return torch.where(torch.stack(masks)[:, None], 0., torch.finfo(dtype).min).to(dtype)


def masked_after(step, steps, n, unknown):
    angle = torch.tensor((step + 1) / steps, dtype=torch.float32) * math.pi * .5
    return max(1, min(unknown - 1, int(torch.floor(n * torch.cos(angle.double()).float()))))


def uniforms(p, g, tries=64):
    """One uniform a row of p [N, K], as far from the edges of its token as the best of some draws."""
    edges = p.double().cumsum(-1)
    u = torch.rand(len(p), tries, generator=g)
    at = torch.searchsorted(edges, u.double()).clamp(max=p.shape[1] - 1)
    above = edges.gather(1, at) - u
    below = u - (edges.gather(1, at) - p.double().gather(1, at))
    best = torch.minimum(above, below).argmax(-1, keepdim=True)
    return u.gather(1, best)[:, 0], at.gather(1, best)[:, 0]


def decide(p, state, tau, cut, g):
    """Noise of one step and what follows from it, drawn until the cut of re-masking is no near tie."""
    known = state != SHOWO["mask_token_id"]
    while True:
        u, sampled = uniforms(p, g)
        sampled = torch.where(known, state - OFFSET, sampled)
        prob = torch.where(known, torch.finfo(torch.float32).max, p.gather(1, sampled[:, None])[:, 0])
        gumbel = -torch.log(-torch.log(torch.rand(len(p), generator=g).clamp(1e-6, 1 - 1e-6)))
        conf = prob.clamp(min=1e-20).log() + tau * gumbel
        order = conf.masked_fill(known, float("inf")).sort().values
        if order[cut].isinf() or order[cut] - order[cut - 1] > 2e-3:
            return u, gumbel, sampled, prob, conf, (conf < conf.sort().values[cut]) & ~known


def step_logits(model, rows, mask, g):
    """Guided logits [N, K] of [conditional row, unconditional row]."""
    x = model(rows, mask)[:, 130:386, OFFSET:OFFSET + 8192].float()
    return (1 + g) * x[0] - g * x[1]


def showo(folder, seed=1, steps=18, g=1.75):
    folder.mkdir(parents=True, exist_ok=True)
    make = lambda: reference.Showo({**SHOWO, "llm_config": PHI})
    if not (folder / "model.safetensors").exists():
        with torch.device("meta"):
            meta = make()
        wide = {"showo.model.embed_tokens.weight": .5, "showo.lm_head.weight": 3 / math.sqrt(2048)}
        save_file(random_weights(meta, seed, wide), folder / "model.safetensors")
    model = build(make, folder)
    noise = torch.Generator().manual_seed(seed + 1)
    text = torch.randint(0, 50000, (11,), generator=noise).tolist()
    n, state = 256, torch.full((256,), SHOWO["mask_token_id"])
    rows = torch.cat([t2i(text, state.tolist()), t2i([], state.tolist())])
    masks = [allow(rows[:1]), allow(rows[1:])]
    mask, tau = additive(masks, torch.float32), 1.
    io = {"in.input_ids": rows[:1].int(), "in.uncond_input_ids": rows[1:].int(), "in.allow": torch.stack(masks).to(torch.uint8)}
    seen = {k: [] for k in ("in.sample_uniform", "in.confidence_gumbel", "in.temperature", "out.sampled_ids", "out.masking", "out.mask_len", "mid.selected_prob", "mid.confidence")}
    start = time.time()
    for step in range(steps):
        rows[:, 130:386] = state
        logits = step_logits(model, rows, mask, g)
        if step in (0, steps // 2):
            io[f"mid.logits_step{step}"] = logits[None]
        p = logits.softmax(-1)
        known = state != SHOWO["mask_token_id"]
        tau *= 1 - (step + 1) / steps
        cut = masked_after(step, steps, n, int((~known).sum()))
        u, gumbel, sampled, prob, conf, masking = decide(p, state, tau, cut, noise)
        state = torch.where(masking, SHOWO["mask_token_id"], sampled + OFFSET)
        for k, v in zip(seen, (u, gumbel, torch.tensor(tau), sampled.int(), masking.to(torch.uint8), torch.tensor([cut], dtype=torch.int32), prob, conf)):
            seen[k].append(v[None] if v.dim() and k != "out.mask_len" else v)
        print(f"step {step}: {time.time() - start:.1f} s, probability of the chosen {prob[~known].median():.2g}", flush=True)
    io.update({k: torch.stack(v) for k, v in seen.items()})
    io["out.tokens"] = sampled[None].int()
    close = dict(atol=2e-3, rtol=2e-3)
    tolerance = {k: "exact" for k in ("masking", "mask_len", "sampled_ids", "tokens")}
    tolerance |= {f"mid.logits_step{i}": dict(atol=5e-3, rtol=1e-3) for i in (0, steps // 2)} | {"mid.confidence": close, "mid.selected_prob": close}
    write(folder, "showo-generate", SHOWO, io, tolerance,
          dict(max_seq_length=128, batch=1, timesteps=steps, guidance_scale=g, temperature=1., temperature_rule="compound", sampler="inverse_cdf", schedule="cosine"),
          "noise is drawn so that no decision is a near tie")


def magvit(folder, seed=3):
    make = lambda: reference.Magvit(MAGVIT)
    for part in ("encode", "decode"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        meta = make()
    weights = random_weights(meta, seed)
    bits = torch.arange(8192)[:, None] >> torch.arange(12, -1, -1) & 1
    weights |= {"quantize.embedding": bits.float() * 2 - 1, "quantize.power_vals": 2 ** torch.arange(12, -1, -1)}
    for part in ("encode", "decode"):
        save_file(weights, folder / part / "model.safetensors")
    model = build(make, folder / "decode")
    g = torch.Generator().manual_seed(seed)
    config, close = dict(_class_name="MAGVITv2", _diffusers_version="0.30.1"), dict(atol=2e-4, rtol=2e-4)
    while True:
        pixels = torch.nn.functional.interpolate(torch.randn(1, 3, 16, 16, generator=g), size=256, mode="bicubic").clamp(-1, 1)
        z = model.encoder(pixels)
        if z.abs().min() > 5e-4:
            break
    indices = ((z > 0).long() * 2 ** torch.arange(12, -1, -1).view(1, 13, 1, 1)).sum(1).flatten(1).int()
    write(folder / "encode", "magvit-encode", config, {"in.pixels": pixels, "out.z": z, "out.indices": indices, "out.z_quantized": torch.where(z > 0, 1., -1.)},
          {"z": close, "indices": "exact", "z_quantized": "exact"}, dict(batch=1, height=256, width=256))
    tokens = torch.randint(0, 8192, (1, 256), generator=g)
    x = model.decode(tokens)
    u8 = (255 * ((x + 1) / 2).clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1)
    write(folder / "decode", "magvit-decode", config, {"in.indices": tokens.int(), "out.pixels": x, "out.image_u8": u8},
          {"pixels": close, "image_u8": dict(atol=1, rtol=0)}, dict(batch=1, latent_height=16, latent_width=16))


def widen(module):
    """Keeps a module's weights as bf16 and computes with them in float32: the same numbers in half of the memory."""
    module.register_forward_pre_hook(lambda m, _: (m.float(), None)[1])
    module.register_forward_hook(lambda m, _, out: (m.bfloat16(), out)[1])


def judge(folder, size="0.5b", seed=5):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    config = {"0.5b": QWEN, "7b": QWEN_7B}[size]
    make = lambda: llava.Judge({**config, "vision_config": SIGLIP})
    if not (folder / files_of(folder)[0]).exists():
        with torch.device("meta"):
            meta = make()
        scale = {"model.image_newline": 1., "model.embed_tokens.weight": 3 / math.sqrt(config["hidden_size"])}
        write_shards(draw_weights(meta, seed, scale), folder, 2**62 if size == "0.5b" else 2**30)
    model = build(make, folder, torch.float32 if size == "0.5b" else torch.bfloat16)
    if size != "0.5b":
        m = model.model
        for part in (m.vision_tower.vision_tower.vision_model, m.mm_projector, m.norm, *m.layers):
            widen(part)
        words = m.embed_tokens.weight
        m.embed_tokens.forward = lambda ids: words[ids].float()
        m.image_newline.data = m.image_newline.data.float()
    g = torch.Generator().manual_seed(seed)
    picture = torch.randint(0, 256, (384, 384, 3), generator=g).to(torch.uint8)
    Image.fromarray(picture.numpy()).save(folder / "a.png")
    pixels = picture.permute(2, 0, 1)[None].float() / 127.5 - 1
    m, image_id, yes, no = model.model, 151646, [9693, 9834], [2152, 2308]
    draw = lambda n: torch.randint(0, 150000, (n,), generator=g)
    before, first, second = draw(14), draw(45), draw(40)
    tower = m.vision_tower.vision_tower.vision_model(pixels)
    projected = m.mm_projector(tower)
    io = {"out.a.pixel_values": pixels, "mid.a.vision_features": tower, "mid.a.projected": projected, "out.a.image_features": torch.cat([projected[0], m.image_newline[None]])}
    questions = {}
    for name, after in (("one", first), ("two", torch.cat([first, second]))):
        logits = model(pixels, before, after)
        p = logits.log_softmax(-1)
        io[f"in.{name}.input_ids"] = torch.cat([before, torch.tensor([image_id]), after]).int()
        io[f"out.{name}.last_logits"], io[f"out.{name}.logp_yes_no"] = logits, torch.stack([p[yes].logsumexp(0), p[no].logsumexp(0)])
        questions[name] = dict(image="a", text="", length=len(before) + 730 + len(after))
    close = dict(atol=3e-3, rtol=1e-3)
    tolerance = {k: close for k in io if k[:2] != "in"} | {"out.a.pixel_values": dict(atol=2e-6, rtol=0)}
    write(folder, "llavaov-judge", config, io, tolerance,
          dict(image_aspect_ratio="pad", tile_size=384, images={"a": dict(file="a.png", w=384, h=384, tiles=1, image_tokens=730)}, tokenizer="", image_token_id=image_id,
               yes_ids=yes, no_ids=no, questions=questions))


def timing(folder, dtype="bf16", steps=2):
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    kind = dict(f32=torch.float32, bf16=torch.bfloat16)[dtype]
    model = build(lambda: reference.Showo({**SHOWO, "llm_config": PHI}), folder, kind)
    rows = torch.cat([t2i(list(range(100, 111)), [58497] * 256), t2i([], [58497] * 256)])
    mask, taken = additive([allow(rows[:1]), allow(rows[1:])], kind), []
    for _ in range(int(steps) + 1):
        start, busy = time.time(), time.process_time()
        step_logits(model, rows, mask, 1.75).softmax(-1).sum().item()
        taken.append((round(time.time() - start, 2), round(time.process_time() - busy, 2)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{dtype}: wall and CPU seconds a step {taken[1:]} (first {taken[0]}), peak {peak:.2f} GiB")


def check(goldens):
    """The PyTorch models against the small cases: largest difference as a share of what is allowed."""
    for folder in sorted(goldens.glob("showo-forward-[a-d]")) + sorted(goldens.glob("magvit-*")):
        config, tolerance = reference.read_config(folder), json.loads((folder / "case.json").read_text())["tolerance"]
        with safe_open(folder / "io.safetensors", "pt") as f:
            io = {k: f.get_tensor(k) for k in f.keys()}
        if "showo" in folder.name:
            model = build(lambda: reference.Showo(config), folder)
            got, name = model(io["in.input_ids"].long(), additive(list(io["in.allow"].bool()), torch.float32)), "logits"
        elif "encode" in folder.name:
            got, name = build(lambda: reference.Magvit(config), folder).encoder(io["in.pixels"]), "z"
        else:
            h, w = (json.loads((folder / "case.json").read_text())["params"][k] for k in ("latent_height", "latent_width"))
            model = build(lambda: reference.Magvit(config), folder)
            shift = torch.arange(model.bits - 1, -1, -1)
            code = (io["in.indices"].long()[..., None] >> shift & 1).float() * 2 - 1
            got, name = model.decoder(code.transpose(1, 2).reshape(-1, model.bits, h, w)), "pixels"
        t, want = tolerance.get(name) or tolerance["out." + name], io["out." + name]
        print(f"{folder.name}: {((got - want).abs() / (t['atol'] + t['rtol'] * want.abs())).max():.3f} of the tolerance")


if __name__ == "__main__":
    run = dict(showo=showo, magvit=magvit, judge=judge, check=check, time=timing)[sys.argv[1]]
    run(pathlib.Path(sys.argv[2]), *sys.argv[3:])
