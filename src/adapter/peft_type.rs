//! PEFT's types of adapters: which fields of the config each of them has, and which types no merge can
//! hold.

/// What is read of one type's config.
#[derive(Debug)]
pub(super) struct PeftType {
    /// The config's `peft_type`.
    pub(super) name: &'static str,
    /// The field that holds alpha; none where the type has no scale of that kind.
    pub(super) alpha: Option<&'static str>,
    /// The field that holds the rank that factors must have; none where shapes alone say it.
    pub(super) rank: Option<&'static str>,
    /// Fields beside [`COMMON`] that do not change the weights, or are read by the family.
    fields: &'static [&'static str],
}

impl PeftType {
    /// Whether the type's config has a field of this name.
    pub(super) fn knows(&self, field: &str) -> bool {
        COMMON.contains(&field) || self.fields.contains(&field)
    }
}

/// Fields of every type.
const COMMON: [&str; 18] = [
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
];

/// Fields of LoRA, which AdaLoRA's config inherits.
macro_rules! lora_fields {
    ($($more:literal),* $(,)?) => {
        &[
            "alora_invocation_tokens",
            "alpha_pattern",
            "arrow_config",
            "corda_config",
            "ensure_weight_tying",
            "eva_config",
            "init_lora_weights",
            "kasa_config",
            "layer_replication",
            "loftq_config",
            "lora_alpha",
            "lora_bias",
            "lora_dropout",
            "lora_ga_config",
            "megatron_config",
            "megatron_core",
            "monteclora_config",
            "qalora_group_size",
            "rank_pattern",
            "target_parameters",
            "use_bdlora",
            "use_dora",
            "use_qalora",
            "use_rslora",
            "velora_config",
            $($more),*
        ]
    };
}

/// The types that are merged.
pub(super) static TYPES: [PeftType; 29] = [
    PeftType { name: "LORA", alpha: Some("lora_alpha"), rank: Some("r"), fields: lora_fields![] },
    PeftType {
        name: "ADALORA",
        alpha: None,
        rank: None,
        fields: lora_fields![
            "beta1",
            "beta2",
            "deltaT",
            "init_r",
            "orth_reg_weight",
            "target_r",
            "tfinal",
            "tinit",
            "total_step",
        ],
    },
    PeftType {
        name: "LOHA",
        alpha: Some("alpha"),
        rank: Some("r"),
        fields: &[
            "alpha",
            "alpha_pattern",
            "module_dropout",
            "rank_dropout",
            "rank_pattern",
            "use_effective_conv2d",
        ],
    },
    PeftType {
        name: "LOKR",
        alpha: Some("alpha"),
        rank: Some("r"),
        fields: &[
            "alpha",
            "alpha_pattern",
            "decompose_both",
            "decompose_factor",
            "module_dropout",
            "rank_dropout",
            "rank_dropout_scale",
            "rank_pattern",
            "use_effective_conv2d",
        ],
    },
    PeftType {
        name: "VERA",
        alpha: None,
        rank: None,
        fields: &["d_initial", "projection_prng_key", "save_projection", "vera_dropout"],
    },
    PeftType {
        name: "IA3",
        alpha: None,
        rank: None,
        fields: &["feedforward_modules", "init_ia3_weights"],
    },
    PeftType {
        name: "OFT",
        alpha: None,
        rank: None,
        fields: &[
            "block_share",
            "coft",
            "eps",
            "module_dropout",
            "num_cayley_neumann_terms",
            "oft_block_size",
            "use_cayley_neumann",
        ],
    },
    PeftType {
        name: "BOFT",
        alpha: None,
        rank: None,
        fields: &["boft_block_num", "boft_block_size", "boft_dropout", "boft_n_butterfly_factor"],
    },
    PeftType { name: "HRA", alpha: None, rank: None, fields: &["apply_GS"] },
    PeftType { name: "MISS", alpha: None, rank: None, fields: &["mini_r", "miss_dropout"] },
    PeftType { name: "HIRA", alpha: None, rank: None, fields: &["hira_dropout", "rank_pattern"] },
    PeftType {
        name: "DELORA",
        alpha: None,
        rank: Some("r"),
        fields: &["delora_lambda", "lambda_pattern", "module_dropout", "rank_pattern"],
    },
    PeftType {
        name: "GRALORA",
        alpha: Some("alpha"),
        rank: None,
        fields: &["alpha", "gralora_dropout", "gralora_k", "hybrid_r"],
    },
    PeftType {
        name: "VBLORA",
        alpha: None,
        rank: Some("r"),
        fields: &[
            "init_logits_std",
            "init_vector_bank_bound",
            "num_vectors",
            "save_only_topk_weights",
            "topk",
            "vblora_dropout",
            "vector_length",
        ],
    },
    PeftType {
        name: "RANDLORA",
        alpha: Some("randlora_alpha"),
        rank: Some("r"),
        fields: &[
            "projection_prng_key",
            "randlora_alpha",
            "randlora_dropout",
            "save_projection",
            "sparse",
            "very_sparse",
        ],
    },
    PeftType { name: "LN_TUNING", alpha: None, rank: None, fields: &[] },
    PeftType { name: "BEFT", alpha: None, rank: None, fields: &[] },
    PeftType {
        name: "C3A",
        alpha: None,
        rank: None,
        fields: &["block_size", "block_size_pattern"],
    },
    PeftType {
        name: "DEFT",
        alpha: None,
        rank: None,
        fields: &["alpha", "decomposition_method", "deft_dropout", "init_scale", "para"],
    },
    PeftType {
        name: "GLORA",
        alpha: None,
        rank: None,
        fields: &["config_A_B", "config_C", "config_D_E"],
    },
    PeftType {
        name: "TINYLORA",
        alpha: None,
        rank: None,
        fields: &[
            "init_v_bound",
            "projection_seed",
            "save_projection",
            "tinylora_dropout",
            "u",
            "weight_tying",
        ],
    },
    PeftType { name: "TRAINABLE_TOKENS", alpha: None, rank: None, fields: &["token_indices"] },
    PeftType {
        name: "FOURIERFT",
        alpha: None,
        rank: None,
        fields: &["n_frequency", "n_frequency_pattern", "random_loc_seed", "scaling"],
    },
    PeftType {
        name: "PVERA",
        alpha: None,
        rank: None,
        fields: &[
            "d_initial",
            "generator_seed",
            "projection_prng_key",
            "pvera_dropout",
            "save_projection",
        ],
    },
    PeftType { name: "ROAD", alpha: None, rank: None, fields: &["group_size", "variant"] },
    PeftType { name: "SHIRA", alpha: None, rank: None, fields: &["mask_type", "random_seed"] },
    PeftType {
        name: "SUPERTUNING",
        alpha: None,
        rank: None,
        fields: &[
            "lora_alpha",
            "lora_dropout",
            "save_precomputed_indices",
            "select_top",
            "sparsity",
        ],
    },
    PeftType {
        name: "UNILORA",
        alpha: None,
        rank: None,
        fields: &[
            "init_theta_d_bound",
            "proj_seed",
            "save_indices",
            "theta_d_length",
            "unilora_dropout",
        ],
    },
    PeftType {
        name: "WAVEFT",
        alpha: None,
        rank: None,
        fields: &[
            "n_frequency",
            "n_frequency_pattern",
            "proportional_parameters",
            "random_loc_seed",
            "scaling",
            "use_idwt",
            "wavelet_family",
        ],
    },
];

/// Types of adapters without weights to merge, and why; anything else unknown is refused too.
pub(super) const REFUSED_TYPES: [(&str, &str); 17] = [
    ("PROMPT_TUNING", "it adds virtual tokens and no weights"),
    ("MULTITASK_PROMPT_TUNING", "it adds virtual tokens and no weights"),
    ("P_TUNING", "it adds virtual tokens and no weights"),
    ("PREFIX_TUNING", "it adds virtual keys and values and no weights"),
    ("ADAPTION_PROMPT", "it adds gated prompts and no weights"),
    ("CPT", "it adds virtual tokens and no weights"),
    ("CARTRIDGE", "it adds virtual keys and values and no weights"),
    ("XLORA", "it mixes its adapters anew for every token; no single weight can do that"),
    ("POLY", "it routes every task through its own mixture; no single weight can do that"),
    ("BONE", "PEFT has replaced it by MISS; this version reads that"),
    ("LILY", "its router weighs the experts anew for every batch; no single weight can do that"),
    ("SHADOW", "its shadow network follows the hidden states; no single weight can do that"),
    (
        "PSOFT",
        "its frozen factors are singular vectors of the base as PyTorch's SVD found them, of which the file holds \
         nothing, and whose signs differ between machines",
    ),
    (
        "ADAMSS",
        "which rows its factors are for was found by clustering the base's singular vectors, and the file does not \
         hold it",
    ),
    (
        "OSF",
        "it takes the place of the smaller singular values of the base, of which the file holds nothing; this version \
         does not decompose a base",
    ),
    (
        "FROD",
        "its rotations are made of all of the base's weights of a kind, which this version does not do",
    ),
    (
        "PEANUT",
        "it sends the base's weights through a network of its own, which this version does not do",
    ),
];
