"""Show-o, MAGVIT-v2 and LLaVA-OneVision in plain PyTorch, written from their published descriptions.

Reads our checkpoint folders (config.json, model.safetensors) at any size. Users never need this file: it is the other
side of parity checks and of the timings under bench/.
"""
import json
import math
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F


def read_config(folder):
    return json.loads((pathlib.Path(folder) / "config.json").read_text())


class GroupNorm(nn.GroupNorm):
    """32 groups, or channels/size groups where the configuration names a group size."""

    def __init__(self, channels, size):
        super().__init__(channels // size if size else 32, channels, eps=1e-6)


class ResBlock(nn.Module):
    def __init__(self, cin, cout, size, kernel=3):
        super().__init__()
        pad = kernel // 2
        self.norm1, self.norm2 = GroupNorm(cin, size), GroupNorm(cout, size)
        self.conv1 = nn.Conv2d(cin, cout, kernel, padding=pad)
        self.conv2 = nn.Conv2d(cout, cout, kernel, padding=pad)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention2d(nn.Module):
    def __init__(self, c, size):
        super().__init__()
        self.norm = GroupNorm(c, size)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).flatten(2) for f in (self.q, self.k, self.v))
        a = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c), -1)
        return x + self.proj_out((v @ a.transpose(1, 2)).view(b, c, h, w))


class Mid(nn.Module):
    def __init__(self, c, size, attention, kernel=3):
        super().__init__()
        self.block_1, self.block_2 = ResBlock(c, c, size, kernel), ResBlock(c, c, size, kernel)
        if attention:
            self.attn_1 = Attention2d(c, size)

    def forward(self, x):
        x = self.block_1(x)
        return self.block_2(self.attn_1(x) if hasattr(self, "attn_1") else x)


class Level(nn.Module):
    def __init__(self, cin, cout, blocks, size, kernel=3):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(cin if i == 0 else cout, cout, size, kernel) for i in range(blocks))


class Sampling(nn.Module):
    def __init__(self, c, down):
        super().__init__()
        self.down = down
        self.conv = nn.Conv2d(c, c, 3, stride=2 if down else 1, padding=0 if down else 1)

    def forward(self, x):
        if self.down:
            return self.conv(F.pad(x, (0, 1, 0, 1)))
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Encoder(nn.Module):
    def __init__(self, c, bits):
        super().__init__()
        mult, blocks, size = c["ch_mult"], c["num_res_blocks"], c.get("norm_group_size", 0)
        kernel = c.get("bottleneck_kernel", 3)
        width = [c["ch"] * m for m in mult]
        self.conv_in = nn.Conv2d(3, c["ch"], 3, padding=1)
        self.down = nn.ModuleList()
        cin = c["ch"]
        for i, cout in enumerate(width):
            last = i == len(width) - 1
            self.down.append(Level(cin, cout, blocks[i], size, kernel if last else 3))
            if not last:
                self.down[-1].downsample = Sampling(cout, True)
            cin = cout
        self.mid = Mid(cin, size, c.get("mid_attn", True), kernel)
        self.norm_out, self.conv_out = GroupNorm(cin, size), nn.Conv2d(cin, bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(bits, bits, 1)

    def forward(self, x):
        x = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                x = block(x)
            if hasattr(level, "downsample"):
                x = level.downsample(x)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(x)))))


class Decoder(nn.Module):
    def __init__(self, c, bits):
        super().__init__()
        mult, blocks, size = c["ch_mult"], c["num_res_blocks"], c.get("norm_group_size", 0)
        width = [c["ch"] * m for m in mult]
        cin = width[-1]
        self.post_quant_conv, self.conv_in = nn.Conv2d(bits, bits, 1), nn.Conv2d(bits, cin, 3, padding=1)
        self.mid = Mid(cin, size, c.get("mid_attn", True))
        levels = [None] * len(width)
        for i in reversed(range(len(width))):
            levels[i] = Level(cin, width[i], blocks[i], size)
            cin = width[i] if blocks[i] else cin
            if i:
                levels[i].upsample = Sampling(cin, False)
        self.up = nn.ModuleList(levels)
        self.norm_out, self.conv_out = GroupNorm(cin, size), nn.Conv2d(cin, 3, 3, padding=1)

    def forward(self, x):
        x = self.mid(self.conv_in(self.post_quant_conv(x)))
        for level in reversed(self.up):
            for block in level.block:
                x = block(x)
            if hasattr(level, "upsample"):
                x = level.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Magvit(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bits = config.get("codebook_dim", 13)
        self.encoder, self.decoder = Encoder(config["encoder"], self.bits), Decoder(config["decoder"], self.bits)

    def decode(self, tokens):
        side = int(math.isqrt(tokens.shape[1]))
        shift = torch.arange(self.bits - 1, -1, -1)
        code = ((tokens[..., None] >> shift) & 1).float() * 2 - 1
        return self.decoder(code.transpose(1, 2).reshape(-1, self.bits, side, side))


def rotate(x, positions, r, theta):
    angle = positions[..., None].float() * theta ** (-torch.arange(0, r, 2).float() / r)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    u, w, rest = x[..., : r // 2], x[..., r // 2 : r], x[..., r:]
    return torch.cat([u * cos - w * sin, w * cos + u * sin, rest], -1)


def heads(x, n):
    return x.view(*x.shape[:2], n, -1).transpose(1, 2)


class PhiBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, n, eps = c["hidden_size"], c["num_attention_heads"], c["layer_norm_eps"]
        self.n, self.r, self.theta = n, int(c["partial_rotary_factor"] * (d // n)), c["rope_theta"]
        self.input_layernorm = nn.LayerNorm(d, eps)
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            setattr(self.self_attn, name, nn.Linear(d, d))
        self.self_attn.q_layernorm, self.self_attn.k_layernorm = nn.LayerNorm(d // n, eps), nn.LayerNorm(d // n, eps)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(d, c["intermediate_size"]), nn.Linear(c["intermediate_size"], d)

    def forward(self, x, mask, positions):
        h, a = self.input_layernorm(x), self.self_attn
        q = rotate(a.q_layernorm(heads(a.q_proj(h), self.n)), positions, self.r, self.theta)
        k = rotate(a.k_layernorm(heads(a.k_proj(h), self.n)), positions, self.r, self.theta)
        y = F.scaled_dot_product_attention(q, k, heads(a.v_proj(h), self.n), mask)
        y = a.dense(y.transpose(1, 2).flatten(2))
        return x + y + self.mlp.fc2(F.gelu(self.mlp.fc1(h), approximate="tanh"))


class Showo(nn.Module):
    """ids [B, L], mask additive [B, 1, L, L] -> logits [B, L, V]."""

    def __init__(self, config):
        super().__init__()
        c = config["llm_config"]
        self.n, d = config["num_vq_tokens"], c["hidden_size"]
        self.showo, m = nn.Module(), nn.Module()
        self.showo.model = m
        m.embed_tokens = nn.Embedding(config["vocab_size"], d)
        if c.get("image_position_embeddings"):
            m.image_positions = nn.Embedding(self.n, d)
        m.layers = nn.ModuleList(PhiBlock(c) for _ in range(c["num_hidden_layers"]))
        m.final_layernorm = nn.LayerNorm(d, c["layer_norm_eps"])
        self.showo.lm_head = nn.Linear(d, config["vocab_size"])

    def forward(self, ids, mask):
        m = self.showo.model
        x = m.embed_tokens(ids)
        if hasattr(m, "image_positions"):  # image rows are the n before the closing eoi
            x = torch.cat([x[:, : -self.n - 1], x[:, -self.n - 1 : -1] + m.image_positions.weight, x[:, -1:]], 1)
        positions = torch.arange(ids.shape[1])
        for layer in m.layers:
            x = layer(x, mask, positions)
        return self.showo.lm_head(m.final_layernorm(x))


def load(model, folder):
    from safetensors.torch import load_file

    state = {k: v.float() for k, v in load_file(pathlib.Path(folder) / "model.safetensors").items()}
    missing, unused = model.load_state_dict(state, strict=False)
    assert not missing and all(k.startswith("quantize.") for k in unused), (missing, unused)
    return model.eval()
