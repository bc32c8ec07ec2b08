//! Reports as one HTML page that needs no network: plots are inline SVG, and there is no script.
//!
//! Everything here is a pure function from a report to text. Names come from files, so every text goes
//! through [`html::escape`].

pub(crate) mod compare;
pub(crate) mod inspect;

mod conclusion;
mod curves;
mod grid;
mod heat;
mod html;
mod lines;
mod made;

pub(crate) use html::is_page;
pub(crate) use made::Made;
