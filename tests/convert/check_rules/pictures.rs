//! diffusers, ComfyUI, Forge, InvokeAI, Nunchaku and stable-diffusion.cpp, of single modules. What all spellings of
//! whole models come to stands in `basics/check_spellings.rs`.

use super::*;

const NEW: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];
const OLD: [&str; 2] = [".lora_down.weight", ".lora_up.weight"];

/// A file of factors of rank 1 of these modules of 8 outputs and 4 inputs, and what else it has.
fn file(modules: &[&str], [down, up]: [&str; 2], also: &[(&str, &[usize])]) -> Made {
    let mut tensors = Tensors::new();
    for module in modules {
        tensors = tensors.f32(&format!("{module}{down}"), &[1, 4], &[0.5; 4]).f32(
            &format!("{module}{up}"),
            &[8, 1],
            &[0.25; 8],
        );
    }
    for (name, shape) in also {
        let count = shape.iter().product();
        tensors = tensors.f32(name, shape, &vec![1.0; count]);
    }
    Made::File("lora.safetensors", tensors)
}

/// The same with an alpha of this beside every module.
fn scaled(modules: &[&str], ends: [&str; 2], alpha: f32) -> Made {
    let Made::File(name, tensors) = file(modules, ends, &[]) else { panic!("a file") };
    let tensors = modules
        .iter()
        .fold(tensors, |tensors, module| tensors.f32(&format!("{module}.alpha"), &[], &[alpha]));
    Made::File(name, tensors)
}

/// The same with entries in its header.
fn headed(made: Made, entries: &[(&str, &str)]) -> Made {
    let Made::File(name, mut tensors) = made else { panic!("a file") };
    let own = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    tensors.metadata.get_or_insert_default().extend(own);
    Made::File(name, tensors)
}

/// One of the published pairs of LoKr's factors, 2 × 2 and 4 × 2.
fn lokr(module: &str) -> Made {
    let tensors = Tensors::new()
        .f32(&format!("{module}.lokr_w1"), &[2, 2], &[0.5; 4])
        .f32(&format!("{module}.lokr_w2"), &[4, 2], &[0.25; 8])
        .f32(&format!("{module}.alpha"), &[], &[1.0]);
    Made::File("lora.safetensors", tensors)
}

const FLUX: &str = "lora_unet_double_blocks_0_img_mod_lin";
const FLUX_OWN: &str = "transformer.single_transformer_blocks.0.attn.to_q";
const FLUX2: &str = "diffusion_model.double_stream_modulation_img.lin";
const FLUX2_OWN: &str = "transformer.double_stream_modulation_img.linear";
const FLUX2_KOHYA: &str = "lora_unet_double_stream_modulation_img_lin";
const WAN_OWN: &str = "transformer.blocks.0.attn1.to_q";
const WAN: &str = "diffusion_model.blocks.0.self_attn.q";
const QWEN_KOHYA: &str = "lora_unet_transformer_blocks_0_img_mlp_net_0_proj";
const Z: &str = "diffusion_model.layers.0.attention.to_q";
const Z_FUSED: &str = "diffusion_model.layers.0.attention.qkv";
const TEXT: &str = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj";
const SDXL: &str = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q";

#[test]
fn diffusers_does_as_it_does() {
    let none = Base::None;
    let case = |name: &str| Made::Path(fixture("serving").join(name).join("adapter.safetensors"));
    let flux2 = Base::Case("09_diffusers_flux2_final_adaln");
    let said = [("lora_adapter_metadata", r#"{"transformer.r": 1, "transformer.lora_alpha": 2}"#)];
    let two_ranks = || {
        let Made::File(name, tensors) = file(&[FLUX_OWN], NEW, &[]) else { panic!("a file") };
        let other = "transformer.single_transformer_blocks.1.attn.to_q";
        let tensors = tensors.f32(&format!("{other}.lora_A.weight"), &[2, 4], &[0.5; 8]).f32(
            &format!("{other}.lora_B.weight"),
            &[8, 2],
            &[0.25; 16],
        );
        Made::File(name, tensors)
    };
    judged(&[
        hit(
            "D1",
            ("diffusers", "names", IGNORED),
            none,
            file(&[FLUX, "lora_unet_img_in"], OLD, &[]),
        ),
        miss("D1", ("diffusers", "names"), none, file(&[FLUX], OLD, &[])),
        hit(
            "D2",
            ("diffusers", "magnitudes", CHANGED),
            none,
            file(&[FLUX], OLD, &[("lora_unet_double_blocks_0_img_mod_lin.dora_scale", &[8, 1])]),
        ),
        miss("D2", ("diffusers", "magnitudes"), none, file(&[FLUX], OLD, &[])),
        hit("D3", ("diffusers", "alpha", SCALED), none, scaled(&[WAN_OWN], NEW, 0.5)),
        miss("D3 an alpha of the rank", ("diffusers", "alpha"), none, scaled(&[WAN_OWN], NEW, 1.0)),
        miss("D3 Flux.1 keeps it", ("diffusers", "alpha"), none, scaled(&[FLUX_OWN], NEW, 0.5)),
        hit("D3 Flux.2", ("diffusers", "alpha", SCALED), none, scaled(&[FLUX2_OWN], NEW, 0.5)),
        hit(
            "D3 Flux.2 published",
            ("diffusers", "leftovers", REFUSED),
            none,
            scaled(&[FLUX2], NEW, 0.5),
        ),
        hit("D4", ("diffusers@0.39", "ranks", SCALED), none, two_ranks()),
        miss("D4", ("diffusers@0.40", "ranks"), none, two_ranks()),
        miss("D4 one rank", ("diffusers@0.39", "ranks"), none, file(&[FLUX_OWN], NEW, &[])),
        right("D5", "diffusers", none, headed(file(&[FLUX_OWN], NEW, &[]), &said)),
        hit(
            "D5 both",
            ("diffusers", "metadata", REFUSED),
            none,
            headed(scaled(&[FLUX_OWN], NEW, 2.0), &said),
        ),
        hit("D6", ("diffusers", "leftovers", REFUSED), none, file(&[WAN_OWN], OLD, &[])),
        miss("D6", ("diffusers", "leftovers"), none, file(&[WAN_OWN], NEW, &[])),
        hit(
            "D7",
            ("diffusers", "leftovers", REFUSED),
            none,
            file(&[WAN, "diffusion_model.blocks.0.modulation"], NEW, &[]),
        ),
        right("D7", "diffusers", none, file(&[WAN], NEW, &[])),
        hit("D8", ("diffusers", "names", IGNORED), none, file(&[Z_FUSED], NEW, &[])),
        miss("D8", ("diffusers", "names"), none, file(&[Z], NEW, &[])),
        right(
            "D9 a bias of B",
            "diffusers",
            none,
            file(
                &[FLUX_OWN],
                NEW,
                &[("transformer.single_transformer_blocks.0.attn.to_q.lora_B.bias", &[8])],
            ),
        ),
        hit("D10 of Flux.1", ("diffusers", "family", REFUSED), none, lokr(FLUX)),
        miss("D10", ("diffusers@0.42", "family"), none, lokr(FLUX2)),
        hit("D10 older", ("diffusers@0.41", "family", REFUSED), none, lokr(FLUX2)),
        hit(
            "D11",
            ("diffusers", "swapped-rows", ELSEWHERE),
            flux2,
            case("09_diffusers_flux2_final_adaln"),
        ),
        miss("D11", ("diffusers", "swapped-rows"), none, file(&[FLUX2], NEW, &[])),
        hit("D12", ("diffusers", "names", IGNORED), none, file(&[QWEN_KOHYA, TEXT], OLD, &[])),
        miss("D12", ("diffusers", "names"), none, file(&[FLUX, TEXT], OLD, &[])),
        hit("D13", ("diffusers@0.34", "names", IGNORED), none, file(&[QWEN_KOHYA], OLD, &[])),
        miss("D13", ("diffusers@0.35.2", "names"), none, file(&[QWEN_KOHYA], OLD, &[])),
        hit(
            "D13",
            ("diffusers@0.37", "names", IGNORED),
            none,
            file(&["lora_unet_double_blocks_0_img_attn_proj", FLUX2_KOHYA], OLD, &[]),
        ),
        right("D13 its own", "diffusers@0.35", none, file(&[FLUX2_OWN], NEW, &[])),
        hit(
            "D a name",
            ("diffusers", "tensor-names", IGNORED),
            none,
            file(&[FLUX_OWN], [".lora_A.default.weight", ".lora_B.default.weight"], &[]),
        ),
        hit("D PiSSA", ("diffusers", "convention", REFUSED), none, whole()),
    ]);
}

#[test]
fn comfyui_does_as_it_does() {
    let none = Base::None;
    let codes = Base::Config(r#"{"quantization_config": {"quant_method": "fp8"}}"#);
    let named = |name: &'static str| [(name, &[8, 1][..])];
    judged(&[
        hit("C2", ("comfyui", "names", IGNORED), none, file(&[WAN_OWN], NEW, &[])),
        miss("C1", ("comfyui", "names"), none, file(&[WAN], NEW, &[])),
        miss("C2", ("comfyui", "names"), none, file(&[FLUX_OWN], NEW, &[])),
        miss("C3", ("comfyui", "family"), none, lokr(FLUX)),
        hit(
            "C3 IA3",
            ("comfyui", "ia3", IGNORED),
            none,
            Made::File(
                "lora.safetensors",
                Tensors::new().f32(&format!("{FLUX}.weight"), &[8], &[0.5; 8]).f32(
                    &format!("{FLUX}.on_input"),
                    &[],
                    &[0.0],
                ),
            ),
        ),
        hit(
            "C4",
            ("comfyui", "scale", SCALED),
            none,
            headed(
                file(&[FLUX_OWN], NEW, &[]),
                &[(
                    "lora_adapter_metadata",
                    r#"{"transformer.r": 1, "transformer.lora_alpha": 2}"#,
                )],
            ),
        ),
        miss("C4", ("comfyui", "scale"), none, scaled(&[FLUX], OLD, 0.5)),
        hit(
            "C5",
            ("comfyui", "dora", CHANGED),
            none,
            file(&[FLUX], OLD, &named("lora_unet_double_blocks_0_img_mod_lin.dora_scale")),
        ),
        miss("C5", ("comfyui", "dora"), none, file(&[FLUX], OLD, &[])),
        hit("C6", ("comfyui", "names", IGNORED), none, file(&[FLUX2_OWN], NEW, &[])),
        miss("C6", ("comfyui", "names"), none, file(&[FLUX2], NEW, &[])),
        hit("C7", ("comfyui", "quantised", NOTE), codes, file(&[FLUX], OLD, &[])),
        miss("C7", ("comfyui", "quantised"), none, file(&[FLUX], OLD, &[])),
    ]);
}

#[test]
fn forge_nunchaku_invokeai_and_stable_diffusion_cpp_do_as_they_do() {
    let none = Base::None;
    let magnitudes = |module: &'static str| {
        file(&[module], OLD, &[("lora_unet_double_blocks_0_img_mod_lin.dora_scale", &[8, 1])])
    };
    judged(&[
        right("F1", "forge", none, scaled(&[FLUX], OLD, 0.5)),
        right("F1", "forge", none, scaled(&[SDXL], OLD, 0.5)),
        hit("F1", ("forge", "model", IGNORED), none, file(&[WAN], NEW, &[])),
        hit("F1", ("forge", "model", IGNORED), none, file(&[FLUX2], NEW, &[])),
        right("I1 Flux", "invokeai", none, scaled(&[FLUX], OLD, 0.5)),
        right("I1 Flux.2", "invokeai", none, file(&[FLUX2], NEW, &[])),
        right("I1 Wan", "invokeai", none, file(&[WAN], NEW, &[])),
        right("I1 Z-Image", "invokeai", none, file(&[Z], NEW, &[])),
        hit(
            "I1",
            ("invokeai", "model", REFUSED),
            none,
            file(&["diffusion_model.double_stream_blocks.0.block.attn1.to_q"], NEW, &[]),
        ),
        hit(
            "I1 a stray key",
            ("invokeai", "stray-keys", REFUSED),
            none,
            file(&[FLUX, "lora_unet_img_in"], OLD, &[]),
        ),
        miss("I1 a stray key", ("invokeai", "stray-keys"), none, file(&[FLUX], OLD, &[])),
        right("I2 DoRA", "invokeai", none, magnitudes(FLUX)),
        right("I2 LoKr", "invokeai", none, lokr(FLUX)),
        hit(
            "I2 the header's alpha",
            ("invokeai", "scale", SCALED),
            none,
            headed(
                file(&[FLUX_OWN], NEW, &[]),
                &[(
                    "lora_adapter_metadata",
                    r#"{"transformer.r": 1, "transformer.lora_alpha": 2}"#,
                )],
            ),
        ),
        hit(
            "I2 OFT",
            ("invokeai", "family", REFUSED),
            none,
            Made::File(
                "lora.safetensors",
                Tensors::new().f32(&format!("{FLUX}.oft_blocks"), &[2, 4, 4], &[0.0; 32]).f32(
                    &format!("{FLUX}.alpha"),
                    &[],
                    &[0.0],
                ),
            ),
        ),
        right("N1", "nunchaku", none, file(&[FLUX_OWN], NEW, &[])),
        right("N1 kohya", "nunchaku", none, scaled(&[FLUX], OLD, 0.5)),
        hit("N1", ("nunchaku", "model", REFUSED), none, file(&[WAN], NEW, &[])),
        hit(
            "N1 as diffusers",
            ("nunchaku", "names", IGNORED),
            none,
            file(&[FLUX, "lora_unet_img_in"], OLD, &[]),
        ),
        hit("N1 DoRA", ("nunchaku", "dora", CHANGED), none, magnitudes(FLUX)),
        right("SD1", "stable-diffusion.cpp", none, scaled(&[FLUX], OLD, 0.5)),
        right("SD1 diffusers", "stable-diffusion.cpp", none, file(&[FLUX_OWN], NEW, &[])),
        right("SD1 published", "stable-diffusion.cpp", none, file(&[WAN], NEW, &[])),
        hit("SD1", ("stable-diffusion.cpp", "names", IGNORED), none, file(&[WAN_OWN], NEW, &[])),
        hit("SD1 DoRA", ("stable-diffusion.cpp", "dora", CHANGED), none, magnitudes(FLUX)),
        right("SD1 LoKr", "sd.cpp", none, lokr(FLUX)),
        hit(
            "SD1 the header's alpha",
            ("stable-diffusion.cpp", "scale", SCALED),
            none,
            headed(
                file(&[FLUX_OWN], NEW, &[]),
                &[(
                    "lora_adapter_metadata",
                    r#"{"transformer.r": 1, "transformer.lora_alpha": 2}"#,
                )],
            ),
        ),
    ]);
}
