//! Tensors of the families beside LoRA. They are spelled alike wherever they occur: the module, a
//! dot, the ending.

/// (name, ending) of what PEFT's types other than LoRA store (peft `tuners/*/layer.py`).
pub(super) static PEFT: &[(&str, &str)] = &[
    ("beft_bias", "beft_bias"),
    ("boft_R", "boft_R"),
    ("boft_s", "boft_s"),
    ("c3a_kernel", "c3a_kernel"),
    ("delora_A", "delora_A"),
    ("delora_B", "delora_B"),
    ("delora_lambda", "delora_lambda"),
    ("delora_w_norm", "delora_w_norm"),
    ("fourierft_spectrum", "fourierft_spectrum"),
    ("gralora_A", "gralora_A"),
    ("gralora_A_general", "gralora_A_general.weight"),
    ("gralora_B", "gralora_B"),
    ("gralora_B_general", "gralora_B_general.weight"),
    ("hada_t1", "hada_t1"),
    ("hada_t2", "hada_t2"),
    ("hada_w1_a", "hada_w1_a"),
    ("hada_w1_b", "hada_w1_b"),
    ("hada_w2_a", "hada_w2_a"),
    ("hada_w2_b", "hada_w2_b"),
    ("hira_A", "hira_A"),
    ("hira_B", "hira_B"),
    ("hra_u", "hra_u"),
    ("ia3_l", "ia3_l"),
    ("lokr_t2", "lokr_t2"),
    ("lokr_w1", "lokr_w1"),
    ("lokr_w1_a", "lokr_w1_a"),
    ("lokr_w1_b", "lokr_w1_b"),
    ("lokr_w2", "lokr_w2"),
    ("lokr_w2_a", "lokr_w2_a"),
    ("lokr_w2_b", "lokr_w2_b"),
    ("lora_E", "lora_E"),
    ("miss_block", "miss_block"),
    ("oft_R", "oft_R.weight"),
    ("pvera_lambda_b", "pvera_lambda_b"),
    ("pvera_lambda_d", "pvera_lambda_d"),
    ("randlora_A", "randlora_A"),
    ("randlora_B", "randlora_B"),
    ("randlora_gamma", "randlora_gamma"),
    ("randlora_lambda", "randlora_lambda"),
    ("ranknum", "ranknum"),
    ("road_alpha", "road_alpha"),
    ("road_theta", "road_theta"),
    ("shira_indices", "shira_indices"),
    ("shira_weight", "shira_weight"),
    ("supertuning_indices", "supertuning_indices"),
    ("supertuning_lora_A", "supertuning_lora_A.weight"),
    ("supertuning_lora_B", "supertuning_lora_B.weight"),
    ("supertuning_values", "supertuning_values"),
    ("unilora_indices_A", "unilora_indices_A"),
    ("unilora_indices_B", "unilora_indices_B"),
    ("unilora_scales_A", "unilora_scales_A"),
    ("unilora_scales_B", "unilora_scales_B"),
    ("vblora_logits_A", "vblora_logits_A"),
    ("vblora_logits_B", "vblora_logits_B"),
    ("vera_lambda_b", "vera_lambda_b"),
    ("vera_lambda_d", "vera_lambda_d"),
    ("waveft_spectrum", "waveft_spectrum"),
];

/// Projections and vectors that all modules of a PEFT file share; they belong to no module.
pub(super) static SHARED: &[&str] = &[
    "pvera_A",
    "pvera_B",
    "randlora_A",
    "randlora_B",
    "unilora_theta_d",
    "vblora_vector_bank",
    "vera_A",
    "vera_B",
];

/// (name, ending) of what LyCORIS and kohya's scripts store (LyCORIS `modules/*.py`).
pub(super) static KOHYA: &[(&str, &str)] = &[
    ("a1", "a1.weight"),
    ("a2", "a2.weight"),
    ("b1", "b1.weight"),
    ("b2", "b2.weight"),
    ("b_norm", "b_norm"),
    ("bm", "bm.weight"),
    ("diff", "diff"),
    ("diff_b", "diff_b"),
    ("dora_scale", "dora_scale"),
    ("hada_t1", "hada_t1"),
    ("hada_t2", "hada_t2"),
    ("hada_w1_a", "hada_w1_a"),
    ("hada_w1_b", "hada_w1_b"),
    ("hada_w2_a", "hada_w2_a"),
    ("hada_w2_b", "hada_w2_b"),
    ("lokr_t2", "lokr_t2"),
    ("lokr_w1", "lokr_w1"),
    ("lokr_w1_a", "lokr_w1_a"),
    ("lokr_w1_b", "lokr_w1_b"),
    ("lokr_w2", "lokr_w2"),
    ("lokr_w2_a", "lokr_w2_a"),
    ("lokr_w2_b", "lokr_w2_b"),
    ("lora_mid", "lora_mid.weight"),
    ("oft_blocks", "oft_blocks"),
    ("on_input", "on_input"),
    ("rescale", "rescale"),
    ("w_norm", "w_norm"),
];

/// LyCORIS' IA3 calls its vector just `weight`, which only a flattened name makes no base's tensor.
pub(super) const IA3_WEIGHT: &str = "ia3_weight";

/// The ending that a name of a table has.
pub(super) fn ending(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == name).map(|(_, ending)| *ending)
}
