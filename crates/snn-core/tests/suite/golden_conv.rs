//! Convolution and transposed convolution against PyTorch.

use candle_core::{DType, Tensor};
use snn_core::{ConvConfig, conv_transpose2d, conv_transpose2d_reference, conv2d, conv2d_reference};

use crate::common::{Golden, Result, assert_relative, gradients};

type Op = fn(&Tensor, &Tensor, &ConvConfig) -> candle_core::Result<Tensor>;

fn check(golden: &Golden, case: &str, op: Op, dtype: DType, bound: f64) -> Result {
    let get = |name: &str| golden.get(&format!("{case}.{name}"));
    let [kernel, stride, padding, output_padding] = get("geometry")?.to_vec1::<i64>()?[..] else {
        return Err("geometry wants four numbers".into());
    };
    let cfg = ConvConfig::new(kernel as usize, stride as usize, padding as usize)
        .with_output_padding(output_padding as usize);
    let (xs, weight) = (golden.var(&format!("{case}.x"), dtype)?, golden.var(&format!("{case}.w"), dtype)?);
    let ys = op(&xs, &weight, &cfg)?;
    // Ours have no bias.
    let wanted = get("y")?.broadcast_sub(&get("b")?.reshape((1, (), 1, 1))?)?;
    assert_relative(&format!("{case}: y"), &ys, &wanted, bound);
    let grads = gradients(&ys, get("gy")?, &[&xs, &weight])?;
    assert_relative(&format!("{case}: gx"), &grads[0], get("gx")?, bound);
    assert_relative(&format!("{case}: gw"), &grads[1], get("gw")?, bound);
    Ok(())
}

fn check_all(prefix: &str, count: usize, op: Op) -> Result {
    let golden = Golden::load("conv")?;
    let cases: Vec<_> =
        golden.cases(".geometry").into_iter().filter(|case| case.starts_with(prefix)).collect();
    assert_eq!(cases.len(), count);
    for case in &cases {
        check(&golden, case, op, DType::F64, 1e-9)?;
        check(&golden, case, op, DType::F32, 1e-5)?;
    }
    Ok(())
}

#[test]
fn convolutions_agree() -> Result {
    check_all("conv.", 4, conv2d)
}

#[test]
fn transposed_convolutions_agree() -> Result {
    check_all("convt.", 5, conv_transpose2d)
}

#[test]
fn twins_agree() -> Result {
    check_all("conv.", 4, conv2d_reference)?;
    check_all("convt.", 5, conv_transpose2d_reference)
}
