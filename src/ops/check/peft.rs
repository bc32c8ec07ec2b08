//! PEFT itself (peft `utils/save_and_load.py`): what it cannot load, opening already says.

use super::Target;

pub(super) static TARGET: Target =
    Target { name: "peft", reads: &["peft"], convert: "--to peft", rules: &[] };
