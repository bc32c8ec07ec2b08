//! How far a scheme's codes are from the numbers that they are made of.

use super::{Encoded, Panel, Weight, Writing};
use crate::error::Result;
use crate::math::elements::random::Stream;

/// Numbers that are encoded for it, about.
const NUMBERS: usize = 8 << 10;

impl Weight {
    /// ‖written − given‖ / ‖given‖ of normally distributed numbers that the weight's writer encodes to the nearest, with
    /// scales of their own: about what any weight of a trained layer loses in this scheme (the 4-bit ones 9 to 12 %,
    /// 8-bit floats 2.6 %, 8-bit integers 1 %). `None`, if no writer is known.
    ///
    /// # Errors
    /// If what is stored beside the codes cannot be read.
    pub(crate) fn noise(&self) -> Result<Option<f64>> {
        let Some(writer) = self.writer() else { return Ok(None) };
        let (rows, columns) = self.matrix();
        let height = (NUMBERS / columns.max(1)).max(1);
        let height = height.next_multiple_of(writer.grain().max(1)).min(rows);
        let stream = Stream::new(0, "", 0);
        let numbers = (0..height * columns).map(|at| stream.gaussian(at as u64) as f32);
        let numbers: Vec<f32> = numbers.collect();
        let writing = Writing::default();
        let survey = match writer.surveys(writing) {
            true => writer.settle(&writer.survey(&numbers))?,
            false => Vec::new(),
        };
        let mut encoded = Encoded::default();
        let panel = Panel::new(&self.name, 0..height, &numbers, writing, &survey);
        writer.rows(&panel, &mut encoded)?;
        let (mut error, mut all) = (0.0, 0.0);
        for (number, written) in numbers.iter().zip(&encoded.values) {
            let (number, written) = (f64::from(*number), f64::from(*written));
            error += (written - number) * (written - number);
            all += number * number;
        }
        Ok((all > 0.0).then(|| (error / all).sqrt()))
    }
}
