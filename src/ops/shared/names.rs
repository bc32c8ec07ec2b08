//! What the last part of a module's name says of the layer, where nothing but the name does.

/// Whether a module of this last name is a table of vectors.
pub(in crate::ops) fn is_embedding(last: &str) -> bool {
    const TABLES: [&str; 4] = ["wte", "wpe", "shared", "relative_attention_bias"];
    // The output head of GPT-NeoX is called `embed_out`; a diffusion transformer's `x_embedder` is a linear layer.
    let other = last == "embed_out" || last.contains("proj") || last.ends_with("embedder");
    (last.contains("embed") && !other) || TABLES.contains(&last)
}

/// Whether a module of this last name makes a model's output: words, classes, scores.
pub(in crate::ops) fn is_head(last: &str) -> bool {
    const HEADS: [&str; 6] =
        ["lm_head", "embed_out", "score", "classifier", "qa_outputs", "v_head"];
    HEADS.contains(&last)
}
