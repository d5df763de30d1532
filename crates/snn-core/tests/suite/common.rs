//! Shared by the integration tests: golden files, gradients, distances.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The tensors of one golden file.
pub(crate) struct Golden(BTreeMap<String, Tensor>);

impl Golden {
    pub(crate) fn load(name: &str) -> Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let tensors =
            candle_core::safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu)?;
        Ok(Self(tensors.into_iter().collect()))
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| format!("no golden tensor `{name}`").into())
    }

    pub(crate) fn var(&self, name: &str, dtype: DType) -> Result<Var> {
        Ok(Var::from_tensor(&self.get(name)?.to_dtype(dtype)?)?)
    }

    /// Every `<case>` with a tensor `<case><suffix>`.
    pub(crate) fn cases(&self, suffix: &str) -> BTreeSet<String> {
        self.0.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }
}

/// All elements as f64.
pub(crate) fn flat(xs: &Tensor) -> Result<Vec<f64>> {
    Ok(xs.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

fn pairs(got: &Tensor, wanted: &Tensor) -> Result<Vec<(f64, f64)>> {
    assert_eq!(got.dims(), wanted.dims());
    Ok(flat(got)?.into_iter().zip(flat(wanted)?).collect())
}

/// The largest difference of any element, NaN if there is one.
pub(crate) fn max_difference(got: &Tensor, wanted: &Tensor) -> Result<f64> {
    let larger = |a: f64, (x, y): (f64, f64)| if a >= (x - y).abs() { a } else { (x - y).abs() };
    Ok(pairs(got, wanted)?.into_iter().fold(0., larger))
}

/// `|got - wanted| / |wanted|` in the Euclidean norm; `|got|` where `wanted` is zero.
pub(crate) fn relative_error(got: &Tensor, wanted: &Tensor) -> Result<f64> {
    let pairs = pairs(got, wanted)?;
    let distance = pairs.iter().map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
    let norm = pairs.iter().map(|(_, y)| y * y).sum::<f64>().sqrt();
    Ok(if norm == 0. { distance } else { distance / norm })
}

#[track_caller]
pub(crate) fn assert_close(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    let error = max_difference(got, wanted).expect(what);
    assert!(error <= bound, "{what}: off by {error:e}, allowed {bound:e}");
}

#[track_caller]
pub(crate) fn assert_relative(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    let error = relative_error(got, wanted).expect(what);
    assert!(error <= bound, "{what}: relative error {error:e}, allowed {bound:e}");
}

/// The gradients of `sum(ys * weights)`; zeros where `ys` does not depend on a variable.
pub(crate) fn gradients(ys: &Tensor, weights: &Tensor, vars: &[&Var]) -> Result<Vec<Tensor>> {
    let weights = weights.to_dtype(ys.dtype())?;
    let grads = (ys * weights)?.sum_all()?.backward()?;
    vars.iter().map(|var| Ok(grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok)?)).collect()
}
