//! Memory that one matrix product after the other is formed in.

/// So many elements of a vector that only grows; their contents are whatever they were.
pub(super) fn lend<T: Clone + Default>(values: &mut Vec<T>, len: usize) -> &mut [T] {
    if values.len() < len {
        values.resize(len, T::default());
    }
    &mut values[..len]
}

/// Buffers of matrix products.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) columns: Vec<f32>,
    pub(super) product: Vec<f32>,
}

impl Scratch {
    /// Two buffers of these lengths, their contents whatever they were.
    pub(super) fn two(&mut self, a: usize, b: usize) -> (&mut [f32], &mut [f32]) {
        (lend(&mut self.columns, a), lend(&mut self.product, b))
    }
}
