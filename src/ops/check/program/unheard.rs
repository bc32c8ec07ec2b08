//! Classes of models that no program's list has, of which nothing is known for programs that have no list.

use super::vllm_classes::served_by;
use crate::adapter::convention::gguf_names::Architecture;
use crate::adapter::convention::mlx_classes::stacks_of;
use crate::ops::check::place::Found;
use crate::ops::check::subject::{Subject, named};

/// What rules say of it.
pub(super) const UNHEARD: &str = "nothing is known of this class of models";

/// The base's class, if no program's list of classes has it.
pub(super) fn unheard_class(subject: &Subject<'_>) -> Found {
    let (class, model_type) = (subject.class()?, subject.base?.model_type().unwrap_or_default());
    let known = served_by(class).is_some()
        || stacks_of(model_type).is_some()
        || Architecture::of_model_type(model_type).is_some()
        || Architecture::is_not_converted(model_type);
    named((!known).then_some(class))
}
