//! Bria Fibo 2: Z-Image's names in diffusers, wider, and a perceiver of the text's states.

use super::{Architecture, Detected, Evidence, OfBase, rules_of};

pub(super) static ARCHITECTURE: Architecture =
    Architecture { name: "fibo2", tables: &[TABLE], rules: OfBase::Detected, detect };

const TABLE: &str = "
x_embedder
t_embedder.mlp.{0,2}
noise_refiner.{i}.attention.{to_q,to_k,to_v,to_out.0}
noise_refiner.{i}.{feed_forward.w1,feed_forward.w2,feed_forward.w3,adaLN_modulation.0}
perceiver.layers.{i}.cross_attention.{to_q,to_k,to_v,to_out.0}
perceiver.layers.{i}.self_attention.{to_q,to_k,to_v,to_out.0}
perceiver.layers.{i}.ffn.{w1,w2,w3}
layers.{i}.attention.{to_q,to_k,to_v,to_out.0}
layers.{i}.{feed_forward.w1,feed_forward.w2,feed_forward.w3,adaLN_modulation.0}
final_layer.{linear,adaLN_modulation.1}
";

fn detect(seen: &Evidence<'_>) -> Option<Detected> {
    let shared = [
        "layers.{i}.attention.to_q",
        "layers.{i}.attention.to_out.0",
        "layers.{i}.feed_forward.w1",
        "noise_refiner.{i}.attention.to_q",
    ];
    let sized = shared.iter().any(|name| seen.width(name, &[3584]));
    (sized || seen.starts(&["perceiver"])).then(|| Detected::published(rules_of(TABLE)))
}
