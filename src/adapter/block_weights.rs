//! kohya's block weights: one number a U-Net block, for modules by their flattened names
//! (sd-scripts `networks/svd_merge_lora.py`).

use crate::error::{ErrorKind, Result};

/// Weights of the 26 places BASE, IN00–IN11, MID, OUT00–OUT11.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockWeights {
    places: [f64; 26],
    /// Whether blocks are numbered as SDXL's checkpoints number them.
    sdxl: bool,
}

const MID: usize = 13;

/// Places of the shorter lists, of LoRA for SDXL (12) and SD1 (17), and of LyCORIS for SDXL (20).
const SHORT: [(usize, bool, &[usize]); 4] = [
    (12, true, &[0, 5, 6, 8, 9, MID, 14, 15, 16, 17, 18, 19]),
    (17, false, &[0, 2, 3, 5, 6, 8, 9, MID, 17, 18, 19, 20, 21, 22, 23, 24, 25]),
    (20, true, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, MID, 14, 15, 16, 17, 18, 19, 20, 21, 22]),
    (
        26,
        false,
        &[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
            24, 25,
        ],
    ),
];

impl BlockWeights {
    /// From a list of 12, 17, 20 or 26 numbers; places a shorter list has not keep weight 1.
    ///
    /// # Errors
    /// If the list has another length, or a number is not finite.
    pub fn new(list: &[f64]) -> Result<Self> {
        let Some((_, sdxl, places)) = SHORT.iter().find(|(length, ..)| *length == list.len())
        else {
            let reason =
                format!("block weights come as 12, 17, 20 or 26 numbers; these are {}", list.len());
            return Err(ErrorKind::BadOption(reason).into());
        };
        if let Some(bad) = list.iter().find(|weight| !weight.is_finite()) {
            return Err(ErrorKind::BadWeight(*bad).into());
        }
        let mut weights = Self { places: [1.0; 26], sdxl: *sdxl };
        for (place, weight) in places.iter().zip(list) {
            if let Some(slot) = weights.places.get_mut(*place) {
                *slot = *weight;
            }
        }
        Ok(weights)
    }

    /// The weight of a module; 1 if its name belongs to no block.
    pub fn of(&self, module: &str) -> f64 {
        let place = if self.sdxl { sdxl_place(module) } else { sd1_place(module) };
        place.and_then(|place| self.places.get(place)).copied().unwrap_or(1.0)
    }
}

/// The number behind a part of a flattened or dotted name: 3 of `down_blocks_3_…` for `down_blocks`.
fn number_after(module: &str, part: &str) -> Option<usize> {
    let (_, rest) = module.split_once(part)?;
    let digits = rest.trim_start_matches(['_', '.']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

fn sd1_place(module: &str) -> Option<usize> {
    if module.contains("text_model") {
        return Some(0);
    }
    if module.contains("mid_block") {
        return Some(MID);
    }
    let within = || number_after(module, "attentions").or_else(|| number_after(module, "resnets"));
    if let Some(block) = number_after(module, "down_blocks") {
        if module.contains("downsamplers") {
            return Some(1 + 3 * (block + 1));
        }
        return Some(1 + 3 * block + within()? + 1);
    }
    let block = number_after(module, "up_blocks")?;
    if module.contains("upsamplers") {
        return Some(14 + 3 * block + 2);
    }
    Some(14 + 3 * block + within()?)
}

fn sdxl_place(module: &str) -> Option<usize> {
    if module.contains("text_model") {
        return Some(0);
    }
    if module.contains("middle_block") {
        return Some(MID);
    }
    if let Some(block) = number_after(module, "input_blocks") {
        return Some(1 + block);
    }
    Some(14 + number_after(module, "output_blocks")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_blocks() {
        let sd1 = [
            ("lora_te_text_model_encoder_layers_0_mlp_fc1", 0),
            ("lora_unet_down_blocks_0_attentions_1_proj_in", 3),
            ("lora_unet_down_blocks_0_downsamplers_0_conv", 4),
            ("lora_unet_down_blocks_1_attentions_0_proj_in", 5),
            ("lora_unet_mid_block_attentions_0_proj_in", 13),
            ("lora_unet_up_blocks_1_attentions_2_proj_in", 19),
            ("lora_unet_up_blocks_2_upsamplers_0_conv", 22),
        ];
        for (name, place) in sd1 {
            assert_eq!(sd1_place(name), Some(place), "{name}");
        }
        assert_eq!(sdxl_place("lora_unet_input_blocks_4_1_proj_in"), Some(5));
        assert_eq!(sdxl_place("lora_unet_middle_block_1_proj_in"), Some(13));
        assert_eq!(sdxl_place("lora_unet_output_blocks_0_1_proj_in"), Some(14));
        assert_eq!(sd1_place("model.layers.0.q_proj"), None);
    }

    #[test]
    fn short_lists_leave_other_blocks_at_one() {
        let mut list = vec![0.0; 17];
        list[1] = 0.5;
        let weights = BlockWeights::new(&list).expect("17 numbers");
        assert_eq!(weights.of("lora_unet_down_blocks_0_attentions_0_x"), 0.5);
        assert_eq!(weights.of("lora_unet_down_blocks_3_resnets_0_x"), 1.0);
        assert_eq!(weights.of("elsewhere"), 1.0);
        assert!(BlockWeights::new(&[1.0; 13]).is_err());
        assert!(BlockWeights::new(&[f64::NAN; 12]).is_err());
    }
}
