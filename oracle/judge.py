"""LLaVA-OneVision (SigLIP tower, projector, Qwen2) in plain PyTorch, pad mode, the authors' tensor names."""

import torch
import torch.nn as nn
import torch.nn.functional as F


def split(x, n):
    return x.view(*x.shape[:2], n, -1).transpose(1, 2)


class Tower(nn.Module):
    """pixels [B, 3, S, S] -> features [B, grid^2, H]; no norm after the last layer."""

    def __init__(self, c):
        super().__init__()
        h, p, grid = c["hidden_size"], c["patch_size"], c["image_size"] // c["patch_size"]
        self.heads = c["num_attention_heads"]
        self.embeddings = nn.Module()
        self.embeddings.patch_embedding = nn.Conv2d(3, h, p, stride=p)
        self.embeddings.position_embedding = nn.Embedding(grid * grid, h)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList()
        for _ in range(c["num_hidden_layers"]):
            layer = nn.Module()
            layer.layer_norm1, layer.layer_norm2 = (nn.LayerNorm(h, c["layer_norm_eps"]) for _ in range(2))
            layer.self_attn, layer.mlp = nn.Module(), nn.Module()
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                setattr(layer.self_attn, name, nn.Linear(h, h))
            layer.mlp.fc1 = nn.Linear(h, c["intermediate_size"])
            layer.mlp.fc2 = nn.Linear(c["intermediate_size"], h)
            self.encoder.layers.append(layer)

    def forward(self, pixels):
        x = self.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = x + self.embeddings.position_embedding.weight
        for layer in self.encoder.layers:
            a, h = layer.self_attn, layer.layer_norm1(x)
            y = F.scaled_dot_product_attention(*(split(f(h), self.heads) for f in (a.q_proj, a.k_proj, a.v_proj)))
            x = x + a.out_proj(y.transpose(1, 2).flatten(2))
            x = x + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layer_norm2(x)), approximate="tanh"))
        return x


class RMSNorm(nn.Module):
    def __init__(self, d, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(d)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, positions, theta):
    d = x.shape[-1]
    angle = positions[..., None].float() * theta ** (-torch.arange(0, d, 2).float() / d)
    cos, sin, u, w = angle.cos(), angle.sin(), x[..., : d // 2], x[..., d // 2 :]
    return torch.cat([u * cos - w * sin, w * cos + u * sin], -1)


class Qwen2Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f, n = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
        self.n, self.kv, self.theta = n, c["num_key_value_heads"], c.get("rope_theta", 1e6)
        width = d // n
        self.input_layernorm, self.post_attention_layernorm = (RMSNorm(d, c["rms_norm_eps"]) for _ in range(2))
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        self.self_attn.q_proj = nn.Linear(d, d)
        self.self_attn.k_proj, self.self_attn.v_proj = (nn.Linear(d, self.kv * width) for _ in range(2))
        self.self_attn.o_proj = nn.Linear(d, d, bias=False)
        self.mlp.gate_proj, self.mlp.up_proj = (nn.Linear(d, f, bias=False) for _ in range(2))
        self.mlp.down_proj = nn.Linear(f, d, bias=False)

    def forward(self, x, positions):
        a, h = self.self_attn, self.input_layernorm(x)
        q, k = (rotate(split(f(h), n), positions, self.theta) for f, n in ((a.q_proj, self.n), (a.k_proj, self.kv)))
        k, v = (t.repeat_interleave(self.n // self.kv, 1) for t in (k, split(a.v_proj(h), self.kv)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + a.o_proj(y.transpose(1, 2).flatten(2))
        h, m = self.post_attention_layernorm(x), self.mlp
        return x + m.down_proj(F.silu(m.gate_proj(h)) * m.up_proj(h))


class Judge(nn.Module):
    """One image and one conversation: logits of the token that follows. Everything is recomputed at every call."""

    def __init__(self, config):
        super().__init__()
        d, h = config["hidden_size"], config["vision_config"]["hidden_size"]
        m = self.model = nn.Module()
        m.vision_tower = nn.Module()
        m.vision_tower.vision_tower = nn.Module()
        m.vision_tower.vision_tower.vision_model = Tower(config["vision_config"])
        m.mm_projector = nn.Sequential(nn.Linear(h, d), nn.GELU(), nn.Linear(d, d))
        m.image_newline = nn.Parameter(torch.zeros(d))
        m.embed_tokens = nn.Embedding(config["vocab_size"], d)
        m.layers = nn.ModuleList(Qwen2Layer(config) for _ in range(config["num_hidden_layers"]))
        m.norm = RMSNorm(d, config["rms_norm_eps"])
        if not config.get("tie_word_embeddings"):
            self.lm_head = nn.Linear(d, config["vocab_size"], bias=False)

    def forward(self, pixels, before, after):
        """pixels [1, 3, S, S]; before, after: text ids around the image rows -> logits [V]."""
        m = self.model
        rows = m.mm_projector(m.vision_tower.vision_tower.vision_model(pixels))[0]
        x = torch.cat([m.embed_tokens(before), rows, m.image_newline[None], m.embed_tokens(after)])[None]
        positions = torch.arange(x.shape[1])
        for layer in m.layers:
            x = layer(x, positions)
        x = m.norm(x[:, -1])[0]
        head = self.lm_head.weight if hasattr(self, "lm_head") else m.embed_tokens.weight
        return head.to(x.dtype) @ x
