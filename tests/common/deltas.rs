//! The updates an adapter holds, scaled, and their distance.

use std::collections::BTreeMap;
use std::path::Path;

use lora_tool::adapter::module::Module;
use lora_tool::adapter::{Adapter, OpenOptions};
use lora_tool::math::LowRank;

/// Elements up to which a delta is formed.
const SMALL: usize = 1 << 16;

/// Each module's delta, as factors: some would be large.
#[derive(Debug, Clone)]
pub struct Deltas(pub BTreeMap<String, LowRank>);

impl Deltas {
    pub fn of(path: &Path) -> Self {
        let adapter = Adapter::open(path, &OpenOptions::default()).expect("opens");
        assert!(adapter.faults.is_empty(), "{:?}", adapter.faults);
        let of = |module: &Module| {
            let factors = adapter.factors(module).expect("factors");
            let scaled = LowRank::new(factors.up * module.scale.value, factors.down);
            (module.name.clone(), scaled)
        };
        Self(adapter.modules.iter().map(of).collect())
    }

    /// Fails where a module is missing or its delta is off by more than this share of its norm.
    pub fn close_to(&self, other: &Self, allowed: f64) {
        let names = |deltas: &Self| deltas.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(other));
        for (name, delta) in &self.0 {
            let other = &other.0[name];
            let shape = (delta.rows(), delta.columns());
            assert_eq!(shape, (other.rows(), other.columns()), "{name}");
            let (off, norm) = (distance(delta, other), other.squared_norm().sqrt());
            assert!(off <= allowed * norm, "{name}: {:e}", off / norm);
        }
    }
}

fn distance(a: &LowRank, b: &LowRank) -> f64 {
    if a.rows() * a.columns() <= SMALL {
        return (&a.up * &a.down - &b.up * &b.down).norm();
    }
    let parts = [a.clone(), LowRank::new(-&b.up, b.down.clone())];
    LowRank::sum(a.rows(), a.columns(), &parts).squared_norm().sqrt()
}
