//! Where a wrapper of vision or audio models has its language model, as an adapter's names spell it.

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spelling {
    /// `model.layers.…`, as the text model alone has it.
    Text,
    /// `model.language_model.layers.…`, transformers' since 4.52.
    Nested,
    /// `language_model.model.layers.…`, transformers' before.
    Outer,
    /// `llm.model.layers.…`
    Llm,
    /// `model.text_model.layers.…`
    TextModel,
}

/// The spelling of a module of a language model; none if it has none of them.
pub(super) fn spelling(module: &str) -> Option<Spelling> {
    const STARTS: [(&str, Spelling); 10] = [
        ("model.language_model.", Spelling::Nested),
        ("language_model.model.", Spelling::Outer),
        ("language_model.lm_head", Spelling::Outer),
        ("llm.model.", Spelling::Llm),
        ("llm.lm_head", Spelling::Llm),
        ("model.text_model.", Spelling::TextModel),
        ("model.layers.", Spelling::Text),
        ("model.embed_tokens", Spelling::Text),
        ("model.norm", Spelling::Text),
        ("lm_head", Spelling::Text),
    ];
    let found = STARTS.iter().find(|(start, _)| module.starts_with(start));
    found.map(|(_, spelling)| *spelling)
}

/// Whether transformers itself takes names of the one for the other, by the class's key mapping.
pub(super) fn is_moved(own: &str, base: &str) -> bool {
    let pair = (spelling(own), spelling(base));
    matches!(
        pair,
        (Some(Spelling::Nested), Some(Spelling::Outer))
            | (Some(Spelling::Outer), Some(Spelling::Nested))
    )
}
