//! Whether there is memory for a tensor, asked before it is made.

use candle_core::{DType, Result, bail};

/// Up to here memory is not worth a question.
const SMALL: usize = 1 << 28;

/// Whether a tensor of this shape can be had: its size can be counted, and the system does not refuse the memory.
///
/// Candle and `vec!` would abort the process, or count round the end of `usize`.
pub(crate) fn room(what: &str, shape: &[usize], dtype: DType) -> Result<()> {
    let granted = |&bytes: &usize| {
        let mut memory = Vec::<u8>::new();
        let answer = memory.try_reserve_exact(bytes);
        // Seen by nobody, it would never be asked for.
        std::hint::black_box(&memory);
        answer.is_ok()
    };
    let bytes = shape.iter().try_fold(dtype.size_in_bytes(), |size, &len| size.checked_mul(len));
    match bytes.filter(|bytes| *bytes <= SMALL || granted(bytes)) {
        Some(_) => Ok(()),
        None => bail!("{what}: {shape:?} of {dtype:?} does not fit into memory"),
    }
}
