//! The output, shard by shard: jobs that workers take, compute and write, and what an interrupted run keeps.

pub(in crate::ops) mod beside;
pub(in crate::ops) mod head;
pub(in crate::ops) mod jobs;
pub(in crate::ops) mod note;
pub(in crate::ops) mod resume;
pub(in crate::ops) mod stream;
