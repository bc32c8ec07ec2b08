//! The architectures of llama.cpp that adapters are converted for, as data: what each calls transformers' modules
//! (gguf-py `gguf/tensor_mapping.py`, and the classes of `conversion/` that rename or reorder).
//!
//! A module whose rows or columns a class reorders otherwise than [`Architecture::permuted`] says, or that it divides, has
//! no name here: `kv_b_proj` of DeepSeek, `in_proj_qkvz` of Qwen3-Next, the linear attention of Qwen3.5. Falcon-H1 has
//! none at all: its class multiplies the weights by numbers of the config, which the factors would need as well.

/// transformers' name of a module, and llama.cpp's.
pub(super) type Pair = (&'static str, &'static str);

/// One architecture of llama.cpp.
#[derive(Debug)]
pub struct Architecture {
    /// Its name in `general.architecture`.
    pub name: &'static str,
    /// `model_type` of the configs it is made from.
    pub model_types: &'static [&'static str],
    /// Whether rows of the query and key projections are in another order.
    pub permuted: bool,
    /// What stands before a layer's number.
    pub(super) layers: &'static str,
    /// Names below a layer, in groups that architectures share.
    pub(super) in_layer: &'static [&'static [Pair]],
    /// Names outside the layers.
    pub(super) outside: &'static [Pair],
    /// The norms and what adapters leave alone; none, if no whole checkpoint is converted.
    pub(super) rest: Option<Rest>,
    /// Where transformers has a layer's experts, and what it calls their gate, up and down.
    pub(super) experts: Option<(&'static str, [&'static str; 3])>,
    /// Whether transformers has an expert's gate and up in one matrix in turns, row by row.
    pub in_turns: bool,
}

/// What a checkpoint has beside the modules of adapters.
#[derive(Debug)]
pub(super) struct Rest {
    /// Names below a layer.
    pub(super) in_layer: &'static [Pair],
    /// Whether llama.cpp's norms are transformers' plus 1.
    pub(super) shifted: bool,
}

/// `model_type`s of which llama.cpp's converter (that of llama-cpp-python 0.3.36) has no class.
pub(super) const NOT_CONVERTED: [&str; 8] = [
    "mllama",
    "mllama_text_model",
    "helium",
    "persimmon",
    "flex_olmo",
    "olmo_hybrid",
    "aria",
    "recurrent_gemma",
];

const NORMS: [Pair; 4] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];

const FOUR_NORMS: [Pair; 6] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];

const PLAIN_NORMS: Option<Rest> = Some(Rest { in_layer: &NORMS, shifted: false });
const GEMMA_NORMS: Option<Rest> = Some(Rest { in_layer: &NORMS, shifted: true });
const LATER_GEMMA_NORMS: Option<Rest> = Some(Rest { in_layer: &FOUR_NORMS, shifted: true });

const ATTENTION: &[Pair] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
];

const UP_AND_DOWN: &[Pair] = &[("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];

const GATED: &[Pair] =
    &[("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];

/// Gate and up in one matrix, in llama.cpp too.
const FUSED: &[Pair] = &[("mlp.gate_up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down")];

const FEED_FORWARD: &[Pair] = &[
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
];

const ROUTED: &[Pair] = &[("mlp.gate", "ffn_gate_inp")];

const SHARED_EXPERT: &[Pair] = &[
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
];

const SHARED_EXPERTS: &[Pair] = &[
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];

const SHARED_MLP: &[Pair] = &[
    ("mlp.shared_mlp.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_mlp.up_proj", "ffn_up_shexp"),
    ("mlp.shared_mlp.down_proj", "ffn_down_shexp"),
];

const LLAMA4_EXPERTS: &[Pair] = &[
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
];

/// Without `kv_b_proj`, which llama.cpp has in two tensors, one of them turned.
const LATENT_ATTENTION: &[Pair] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.o_proj", "attn_output"),
];

const LINEAR_ATTENTION: &[Pair] =
    &[("linear_attn.in_proj_ba", "ssm_ba"), ("linear_attn.out_proj", "ssm_out")];

const PHI3: &[Pair] = &[("self_attn.qkv_proj", "attn_qkv"), ("self_attn.o_proj", "attn_output")];

const PHI2: &[Pair] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.dense", "attn_output"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
];

const STARCODER2: &[Pair] = &[("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down")];

const LFM2: &[Pair] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.out_proj", "attn_output"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w3", "ffn_up"),
    ("feed_forward.w2", "ffn_down"),
];

const GPT2: &[Pair] = &[
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

const OUTSIDE: [Pair; 2] = [("model.embed_tokens", "token_embd"), ("lm_head", "output")];

pub(super) const MIXTRAL: (&str, [&str; 3]) = ("block_sparse_moe.experts", ["w1", "w3", "w2"]);
pub(super) const EXPERTS: (&str, [&str; 3]) =
    ("mlp.experts", ["gate_proj", "up_proj", "down_proj"]);

/// What llama.cpp calls the stacks of a layer's gates, ups and downs. A name with an expert's number
/// behind it is this program's own, for one matrix of the stack.
pub(super) const STACKS: [&str; 3] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// A Mixtral's router in releases of transformers from 5 on, and before.
pub(super) const ROUTER: Pair = ("mlp.gate", "block_sparse_moe.gate");

const fn like_llama(
    name: &'static str,
    model_types: &'static [&'static str],
    permuted: bool,
) -> Architecture {
    Architecture {
        name,
        model_types,
        permuted,
        layers: "model.layers.",
        in_layer: &[ATTENTION, GATED],
        outside: &OUTSIDE,
        rest: PLAIN_NORMS,
        experts: None,
        in_turns: false,
    }
}

/// A model whose adapters alone are converted.
const fn adapters_of(
    name: &'static str,
    model_types: &'static [&'static str],
    in_layer: &'static [&'static [Pair]],
) -> Architecture {
    Architecture { in_layer, rest: None, ..like_llama(name, model_types, false) }
}

/// The same, with experts in every layer or some.
const fn experts_of(
    name: &'static str,
    model_types: &'static [&'static str],
    in_layer: &'static [&'static [Pair]],
) -> Architecture {
    Architecture { experts: Some(EXPERTS), ..adapters_of(name, model_types, in_layer) }
}

const QWEN_MOE: &[&[Pair]] = &[ATTENTION, ROUTED, SHARED_EXPERT];
const SHARING: &[&[Pair]] = &[ATTENTION, GATED, ROUTED, SHARED_EXPERTS];

/// All architectures that adapters are converted for.
pub(super) static ARCHITECTURES: [Architecture; 48] = [
    Architecture {
        in_layer: &[ATTENTION, GATED, &[(ROUTER.1, "ffn_gate_inp")]],
        experts: Some(MIXTRAL),
        ..like_llama("llama", &["llama", "mistral", "mixtral"], true)
    },
    Architecture { rest: PLAIN_NORMS, ..experts_of("qwen2moe", &["qwen2_moe"], QWEN_MOE) },
    Architecture { rest: PLAIN_NORMS, ..experts_of("qwen3moe", &["qwen3_moe"], QWEN_MOE) },
    Architecture { rest: PLAIN_NORMS, ..experts_of("olmoe", &["olmoe"], &[ATTENTION, ROUTED]) },
    like_llama("qwen2", &["qwen2"], false),
    like_llama("qwen3", &["qwen3"], false),
    like_llama("smollm3", &["smollm3"], true),
    like_llama("granite", &["granite"], true),
    like_llama("ernie4_5", &["ernie4_5"], false),
    Architecture { rest: GEMMA_NORMS, ..like_llama("gemma", &["gemma"], false) },
    Architecture { rest: LATER_GEMMA_NORMS, ..like_llama("gemma2", &["gemma2"], false) },
    Architecture {
        rest: LATER_GEMMA_NORMS,
        ..like_llama("gemma3", &["gemma3_text", "gemma3"], false)
    },
    adapters_of("qwen2vl", &["qwen2_vl", "qwen2_5_vl"], &[ATTENTION, GATED]),
    adapters_of("qwen3vl", &["qwen3_vl"], &[ATTENTION, GATED]),
    experts_of("qwen3vlmoe", &["qwen3_vl_moe"], QWEN_MOE),
    experts_of("qwen3next", &["qwen3_next"], &[ATTENTION, LINEAR_ATTENTION, ROUTED, SHARED_EXPERT]),
    adapters_of("qwen35", &["qwen3_5", "qwen3_5_text"], &[ATTENTION, GATED]),
    experts_of("qwen35moe", &["qwen3_5_moe", "qwen3_5_moe_text"], QWEN_MOE),
    experts_of(
        "deepseek2",
        &["deepseek_v2", "deepseek_v3", "glm4_moe_lite"],
        &[LATENT_ATTENTION, GATED, ROUTED, SHARED_EXPERTS],
    ),
    Architecture {
        // Its experts have biases, and their gates and ups lie in turns.
        in_turns: true,
        ..experts_of("gpt-oss", &["gpt_oss"], &[ATTENTION, &[("mlp.router", "ffn_gate_inp")]])
    },
    Architecture {
        experts: Some(("feed_forward.experts", EXPERTS.1)),
        ..adapters_of(
            "llama4",
            &["llama4", "llama4_text"],
            &[ATTENTION, FEED_FORWARD, LLAMA4_EXPERTS],
        )
    },
    Architecture { rest: None, ..like_llama("mistral3", &["mistral3", "ministral3"], true) },
    Architecture { rest: None, ..like_llama("olmo", &["olmo"], true) },
    adapters_of("olmo2", &["olmo2", "olmo3"], &[ATTENTION, GATED]),
    adapters_of("exaone4", &["exaone4"], &[ATTENTION, GATED]),
    experts_of("exaone-moe", &["exaone_moe"], SHARING),
    adapters_of("hunyuan-dense", &["hunyuan_v1_dense"], &[ATTENTION, GATED]),
    experts_of(
        "hunyuan-moe",
        &["hunyuan_v1_moe"],
        &[ATTENTION, &[("mlp.gate.wg", "ffn_gate_inp")], SHARED_MLP],
    ),
    experts_of("ernie4_5-moe", &["ernie4_5_moe"], SHARING),
    adapters_of("chatglm", &["glm"], &[ATTENTION, FUSED]),
    adapters_of("glm4", &["glm4"], &[ATTENTION, FUSED]),
    experts_of("glm4moe", &["glm4_moe", "solar_open"], SHARING),
    experts_of("dots1", &["dots1"], SHARING),
    adapters_of("seed_oss", &["seed_oss"], &[ATTENTION, GATED]),
    adapters_of("stablelm", &["stablelm"], &[ATTENTION, GATED]),
    adapters_of("command-r", &["cohere"], &[ATTENTION, GATED]),
    adapters_of("cohere2", &["cohere2"], &[ATTENTION, GATED]),
    adapters_of("nemotron", &["nemotron"], &[ATTENTION, UP_AND_DOWN]),
    Architecture { permuted: true, ..adapters_of("arcee", &["arcee"], &[ATTENTION, UP_AND_DOWN]) },
    adapters_of("apertus", &["apertus"], &[ATTENTION, UP_AND_DOWN]),
    adapters_of("jais2", &["jais2"], &[ATTENTION, UP_AND_DOWN]),
    experts_of(
        "afmoe",
        &["afmoe"],
        &[
            ATTENTION,
            GATED,
            SHARED_EXPERTS,
            &[("self_attn.gate_proj", "attn_gate"), ("mlp.router.gate", "ffn_gate_inp")],
        ],
    ),
    Architecture {
        experts: Some(MIXTRAL),
        ..adapters_of("minimax-m2", &["minimax_m2"], &[ATTENTION, &[(ROUTER.1, "ffn_gate_inp")]])
    },
    adapters_of("lfm2", &["lfm2"], &[LFM2]),
    adapters_of("starcoder2", &["starcoder2"], &[ATTENTION, STARCODER2]),
    adapters_of("phi2", &["phi"], &[PHI2]),
    Architecture { rest: PLAIN_NORMS, ..adapters_of("phi3", &["phi3"], &[PHI3, FUSED]) },
    Architecture {
        layers: "transformer.h.",
        outside: &[("transformer.wte", "token_embd"), ("lm_head", "output")],
        // Its matrices lie the other way round.
        ..adapters_of("gpt2", &["gpt2"], &[GPT2])
    },
];
