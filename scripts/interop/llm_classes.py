"""Tiny random models of language classes, wrapped with vision or with experts, and adapters of all of each.

An adapter is PEFT's own, over every linear layer of the language model (of a wrapper: below its
`language_model`) and, where a model has experts, over their parameters as a whole.
"""

import torch
from moe_vs_peft import QWEN, SMALL
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

# Heads as wide as hidden size over their number, which some programs take for granted.
SIZES = dict(hidden_size=32, num_attention_heads=4, head_dim=8)
TEXT = dict(SMALL | SIZES, rope_parameters=dict(rope_type="default", rope_theta=10000.0), pad_token_id=0)
ROTARY = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2])
EYES = dict(
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_heads=4,
    image_size=28,
    patch_size=14,
)
QWEN_EYES = dict(EYES, depth=2, embed_dim=32, out_hidden_size=32, mlp_ratio=1, fullatt_block_indexes=[1])
QWEN_EYES = QWEN_EYES | dict(num_position_embeddings=16, deepstack_visual_indexes=[0])
MLA = dict(
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=2,
    moe_intermediate_size=12,
    first_k_dense_replace=1,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_rope_head_dim=4,
    qk_nope_head_dim=4,
    v_head_dim=4,
    n_group=1,
    topk_group=1,
    num_key_value_heads=4,
)


def wrapper(text=None, eyes=None, **own):
    return dict(text_config=dict(TEXT, **(text or {})), vision_config=dict(EYES, **(eyes or {})), **own)


WRAPPERS = {
    "qwen2_vl": wrapper(dict(rope_parameters=ROTARY), dict(QWEN_EYES, hidden_size=32)),
    "qwen2_5_vl": wrapper(dict(rope_parameters=ROTARY), QWEN_EYES),
    "qwen3_vl": wrapper(dict(rope_parameters=ROTARY), QWEN_EYES),
    "gemma3": wrapper(dict(model_type="gemma3_text", rope_parameters=None), mm_tokens_per_image=4),
    "llava": wrapper(dict(model_type="llama"), dict(model_type="clip_vision_model")),
    "mistral3": wrapper(dict(model_type="mistral"), dict(model_type="pixtral", head_dim=8)),
    "internvl": wrapper(
        dict(model_type="qwen2"), dict(model_type="internvl_vision", image_size=[28, 28], patch_size=[14, 14])
    ),
    "paligemma": wrapper(dict(model_type="gemma"), dict(model_type="siglip_vision_model"), projection_dim=32),
    "mllama": wrapper(
        dict(cross_attention_layers=[1], rope_parameters=TEXT["rope_parameters"]),
        dict(
            num_global_layers=1,
            attention_heads=4,
            image_size=28,
            patch_size=14,
            vision_output_dim=96,
            intermediate_layers_indices=[0, 1],
            max_num_tiles=4,
            supported_aspect_ratios=[[1, 1]],
        ),
    ),
}
EXPERTS = {
    "mixtral": dict(TEXT, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": dict(TEXT, **QWEN, shared_expert_intermediate_size=16),
    "qwen3_moe": dict(TEXT, **QWEN),
    "olmoe": dict(TEXT, num_experts=4, num_experts_per_tok=2),
    "deepseek_v3": dict(TEXT, **MLA),
    "gpt_oss": dict(TEXT, num_local_experts=4, num_experts_per_tok=2),
    "llama4_text": dict(
        TEXT, num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=24, interleave_moe_layer_step=1
    ),
}
CLASSES = WRAPPERS | EXPERTS


def model_of(name):
    torch.manual_seed(7)
    config = AutoConfig.for_model(name, **CLASSES[name])
    kind = AutoModelForImageTextToText if name in WRAPPERS else AutoModelForCausalLM
    return kind.from_config(config).float().eval()


def adapted(name, directory, rank=2):
    """Writes the base and an adapter of all of its language model; both paths, and the modules' names."""
    model = model_of(name)
    base, adapter = directory / "base", directory / "adapter"
    model.save_pretrained(base)
    own = {path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    own -= {"lm_head"}
    if name in WRAPPERS:
        own = {path for path in own if "language_model." in path}
    parameters = sorted(
        path for path, value in model.named_parameters() if path.split(".")[-2] == "experts" and value.dim() == 3
    )
    config = LoraConfig(r=rank, lora_alpha=3, target_modules=sorted(own), target_parameters=parameters or None)
    model = get_peft_model(model, config)
    torch.manual_seed(11)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "lora_" in path:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(adapter)
    return base, adapter, own, parameters
