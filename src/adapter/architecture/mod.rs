//! Layouts of known architectures, as data: what each module of one layout is called, and which rows
//! it has, in the other.
//!
//! One file an architecture, listed once in [`ARCHITECTURES`]. A rule names a module in diffusers' (or
//! transformers') layout and in the checkpoint its authors published, and holds in both directions:
//! [`Catalogue`](super::catalogue::Catalogue) turns it into names that a base's tensors also answer to.

mod ace_step;
mod anima;
mod auraflow;
mod cascade;
mod chroma;
mod clip;
mod cogvideox;
mod cosmos;
mod cosmos1;
mod cut;
mod definition;
mod ernie_image;
mod evidence;
mod experts;
mod fibo2;
mod flux;
mod flux2;
mod flux3;
mod glm_image;
mod hidream;
mod hidream_o1;
mod hunyuan_image;
mod hunyuan_video;
mod hunyuan_video_1_5;
mod ideogram4;
mod kandinsky;
mod krea2;
mod language;
mod ltx;
mod ltx2;
mod ltx2_connectors;
mod lumina;
mod minimax_h3;
mod mochi;
mod omnigen1;
mod omnigen2;
mod ovis_image;
mod pattern;
mod pixart;
mod prx;
mod qwen_image;
mod qwen_image_2_1;
mod registry;
mod releases;
mod sana;
mod sd3;
mod stable_audio;
mod stable_audio_3;
mod t5;
mod table;
mod unet;
mod wan;

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
pub(super) use registry::{ARCHITECTURES, renames, rules_of_base};
use table::rules_of;
