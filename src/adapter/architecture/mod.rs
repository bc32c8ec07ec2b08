//! Layouts of known architectures, as data: what each module of one layout is called, and which rows
//! it has, in the other.
//!
//! One file an architecture, listed once in [`ARCHITECTURES`]. A rule names a module in diffusers' (or
//! transformers') layout and in the checkpoint its authors published, and holds in both directions:
//! [`Catalogue`](super::catalogue::Catalogue) turns it into names that a base's tensors also answer to.

#[macro_use]
mod registry;

architectures! {
    kandinsky,
    hidream,
    hidream_o1,
    cascade,
    flux2,
    chroma,
    flux3,
    krea2,
    ideogram4,
    auraflow,
    mochi,
    minimax_h3,
    omnigen1,
    prx,
    glm_image,
    ace_step,
    ace_step_1,
    cosmos1,
    anima,
    cosmos,
    ltx2_connectors,
    ltx2,
    stable_audio_3,
    stable_audio,
    sana,
    cogvideox,
    ernie_image,
    omnigen2,
    fibo2,
    qwen_image_2_1,
    hunyuan_video_1_5,
    hunyuan_image,
    ovis_image,
    ltx,
    unet,
    clip,
    hunyuan_video,
    qwen_image,
    flux,
    sd3,
    pixart,
    wan,
    lumina,
    t5,
    language,
    experts,
    releases,
}

mod cut;
mod definition;
mod evidence;
mod pattern;
mod table;

pub(super) use anima::ANIMA_CONDITIONER;
pub(super) use cascade::PRIOR;
pub(super) use clip::is_turned;
pub(super) use cut::Cut;
pub(super) use definition::{Architecture, Names, Rule, Side};
use definition::{OfBase, fits, has, undetected};
pub(super) use evidence::{Detected, Evidence, ModuleShape};
pub(super) use ltx2_connectors::LTX2_CONNECTORS;
pub(super) use minimax_h3::by_heads;
pub(super) use pattern::{capture, fill};
pub(super) use registry::{renames, rules_of_base};
use table::rules_of;
