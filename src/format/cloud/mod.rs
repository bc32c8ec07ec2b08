//! Inputs and outputs in object stores: `s3://`, `gs://`, `az://`, `http(s)://`.
//!
//! An input is mirrored: its small files are copied, and its weight files stand there with their lengths, their bytes
//! read in ranges when they are asked for, ahead of who reads on. An output is built on the local disk and sent when it is
//! complete; what several machines make of one waits beside it in the store.

mod ahead;
mod bucket;
mod depot;
mod mirror;
mod object;
mod sink;
mod upload;

pub(super) use mirror::mirror;
pub(super) use sink::output;
