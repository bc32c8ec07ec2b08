//! One model in the files of another: a GGUF model as the checkpoint of transformers that llama.cpp's converter would
//! have made it from, and the other way round. Names, the order of rows, stacks of experts and shifted norms are the
//! converter's (`convert_hf_to_gguf.py`); what is read is a checkpoint like any other, whose numbers lie elsewhere.

mod checkpoint;
mod rows;

pub(crate) use checkpoint::{Recast, as_gguf, as_transformers};
