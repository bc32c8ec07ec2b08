//! LoRAX (`server/lorax_server/adapters/lora.py`), read at a7394ba3 (2026-05): TGI's rules, from which it came.

use super::{Field, Program, Takes, nothing, tgi};

pub(super) static PROGRAM: Program = Program {
    name: "lorax",
    aliases: &[],
    version: "2026-05",
    oldest: "2026-05",
    field: Field::Language,
    reads: &["peft"],
    converts: &[],
    takes: Takes { every_layer: true, ..Takes::SERVER },
    older: &[],
    needs: nothing,
    rules: &[tgi::RULES],
};
