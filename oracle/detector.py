"""Makes parity cases of GenEval's detector and colour classifier with transformers, on random weights of any size:

    python oracle/detector.py FOLDER            small ones with odd sizes
    python oracle/detector.py FOLDER --full     Mask2Former Swin-S at 800 x 800 and CLIP ViT-L/14

Each case is a folder that `imagecot parity` runs.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig


def randomise(model, seed):
    """Moves every weight a little, so that no bias is 0 and no norm is 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != "logit_scale":
                p.add_(torch.randn_like(p) * (.1 if p.dim() < 2 else .02))
    return model.eval()


def write(folder, kind, config, model, tensors, tolerance, params):
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "io.safetensors")
    case = dict(kind=kind, source="transformers, torch " + torch.__version__, seed=0, params=params, tolerance=tolerance, notes="")
    (folder / "case.json").write_text(json.dumps(case, indent=1))


def mask2former(folder, seed, shape, backbone, levels=1e-4, **sizes):
    swin = SwinConfig(out_features=["stage1", "stage2", "stage3", "stage4"], drop_path_rate=0., **backbone)
    config = Mask2FormerConfig(backbone_config=swin, use_auxiliary_loss=True, output_auxiliary_logits=True, dropout=0., **sizes)
    model = randomise(Mask2FormerForUniversalSegmentation(config), seed)
    x = torch.randn(shape)
    with torch.no_grad():
        out = model(pixel_values=x, output_hidden_states=True)
    tensors = {"in.pixel_values": x, "out.class_queries_logits": out.class_queries_logits, "out.masks_queries_logits": out.masks_queries_logits}
    for i, h in enumerate(out.encoder_hidden_states):
        tensors[f"mid.backbone_{i}"] = h
    for i, h in enumerate(out.pixel_decoder_hidden_states):
        tensors[f"mid.pixel_decoder_{i}"] = h
    for i, a in enumerate(out.auxiliary_logits):
        tensors[f"mid.aux_class_{i}"], tensors[f"mid.aux_mask_{i}"] = a["class_queries_logits"], a["masks_queries_logits"]
    close = dict(atol=levels, rtol=1e-4)
    maps = dict(atol=min(levels, 2e-4), rtol=1e-4)
    tolerance = {"mid.backbone_*": maps, "mid.pixel_decoder_*": maps, "mid.aux_*": close, "out.*": close}
    write(folder, "mask2former", config, model, tensors, tolerance, {})


def clip(folder, seed, text, vision, projection, colours=10, sentences=3, images=2):
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    model = randomise(CLIPModel(config), seed)
    t = config.text_config
    ids = torch.randint(3, t.vocab_size - 2, (colours * sentences, t.max_position_embeddings))
    ids[:, 0] = t.vocab_size - 2
    for i, row in enumerate(ids):
        row[4 + i % (t.max_position_embeddings - 4):] = 0
        row[4 + i % (t.max_position_embeddings - 4)] = t.vocab_size - 1
    size = config.vision_config.image_size
    pixels = torch.randn(images, 3, size, size)
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels, output_hidden_states=True)
        features = model.text_projection(model.text_model(input_ids=ids).pooler_output)
        image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        unit = torch.nn.functional.normalize
        classifier = unit(unit(features, dim=-1).view(colours, sentences, -1).mean(1), dim=-1)
        logits = 100 * unit(image, dim=-1) @ classifier.T
    tensors = {
        "in.pixel_values": pixels, "in.input_ids": ids.int(), "out.text_features": features, "out.image_features": image,
        "out.classifier": classifier, "out.color_logits": logits, "out.color_probs": logits.softmax(-1),
        "out.color_index": logits.argmax(-1).int(), "out.logits_per_image": out.logits_per_image,
    }
    close = dict(atol=2e-4, rtol=1e-4)
    tolerance = {"out.text_features": close, "out.image_features": close, "out.classifier": dict(atol=1e-5, rtol=1e-4), "out.color_index": "exact",
                 "out.color_logits": dict(atol=2e-3, rtol=0), "out.color_probs": dict(atol=2e-3, rtol=0), "out.logits_per_image": dict(atol=2e-3, rtol=0)}
    write(folder, "clip", config, model, tensors, tolerance, dict(colors=colours, templates=sentences, logit_factor=100.))


def main():
    root = pathlib.Path(sys.argv[1])
    if "--full" in sys.argv:
        labels = {i: str(i) for i in range(80)}
        clip(root / "clip-full", 1, dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12, projection_dim=768, eos_token_id=49407),
             dict(hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_hidden_layers=24, patch_size=14, projection_dim=768), 768, images=1, colours=2)
        swin = dict(embed_dim=96, depths=[2, 2, 18, 2], num_heads=[3, 6, 12, 24], window_size=7)
        mask2former(root / "mask2former-full", 2, (1, 3, 800, 800), swin, levels=.02, id2label=labels)
        return
    small = dict(image_size=32, embed_dim=24, depths=[1, 2, 3, 2], num_heads=[1, 2, 4, 8], window_size=7, mlp_ratio=2., qkv_bias=False)
    mask2former(root / "mask2former-odd", 3, (1, 3, 101, 67), small, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_layers=3, decoder_layers=8,
                encoder_feedforward_dim=40, dim_feedforward=56, num_attention_heads=8, num_queries=20, id2label={i: str(i) for i in range(11)})
    mask2former(root / "mask2former-wide", 4, (3, 3, 33, 300), dict(small, window_size=2, qkv_bias=True), feature_size=96, mask_feature_size=40, hidden_dim=96, encoder_layers=1,
                decoder_layers=3, encoder_feedforward_dim=64, dim_feedforward=64, num_attention_heads=2, num_queries=5, activation_function="gelu", id2label={0: "a", 1: "b"})
    text = dict(hidden_size=40, intermediate_size=64, num_attention_heads=5, num_hidden_layers=2, vocab_size=300, max_position_embeddings=24, hidden_act="gelu",
                eos_token_id=299, bos_token_id=298, pad_token_id=0)
    vision = dict(hidden_size=48, intermediate_size=80, num_attention_heads=3, num_hidden_layers=4, image_size=45, patch_size=14)
    clip(root / "clip-odd", 5, text, vision, 16, images=4)
    clip(root / "clip-first", 6, dict(text, eos_token_id=2), dict(vision, hidden_act="gelu", image_size=32, patch_size=8), 24, colours=4, sentences=1)


main()
