//! What a merge keeps so that its base can be had back, bit for bit, from the merged checkpoint.
//!
//! A receipt does not know adapters or methods: it tells each base tensor by the merged one. Where the
//! difference is of low rank, a guess of it is taken off and what is left are few steps of the last
//! place; whatever it is, the steps are kept, so nothing is ever lost. Hashes of all files, merged and
//! base, are in it.

mod bound;
mod code;
mod contents;
mod file;
mod make;
mod place;
pub(super) mod restore;

pub(super) use bound::check as check_bounds;
pub(super) use contents::SideRecord;
pub(super) use file::Receipt;
pub(super) use make::make;
pub(super) use place::check_place;
