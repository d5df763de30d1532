use candle_core::{DType, Device};

use super::*;
use crate::ops::testing::{assert_identical, assert_relative, flat, random, run};

/// The op itself, as GPUs run it, against Candle's operation, whose gradients are added one after the other.
#[test]
fn gradients_are_those_of_index_select() -> Result<()> {
    for (dtype, bound) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
        let table = [random("table", &[7, 3], dtype)?];
        // Some several times, one never.
        let indices: Vec<u32> = (0..40).map(|i| i * i % 6).collect();
        let indices = Tensor::new(indices, &Device::Cpu)?;
        let got = run(|x| x[0].apply_op2(&indices, Pick { back: None }), &table)?;
        let wanted = run(|x| embedding(&x[0], &indices), &table)?;
        assert_identical("values", &got[0], &wanted[0]);
        assert_relative("gradients", &got[1], &wanted[1], bound);

        // Each once at most, and one of them twice.
        for (places, once) in [([5u32, 0, 6, 2], true), ([5, 0, 6, 0], false)] {
            let back = places_back(&places, 7);
            assert_eq!(back.is_some(), once);
            let numbers = Tensor::new(&places, &Device::Cpu)?;
            let got = run(|x| x[0].apply_op2(&numbers, Pick { back: back.clone() }), &table)?;
            let wanted = run(|x| pick_rows(&x[0], &places), &table)?;
            got.iter().zip(&wanted).for_each(|(got, wanted)| assert_identical("picked rows", got, wanted));
        }
    }
    Ok(())
}

/// More rows than one product takes.
#[test]
fn sums_are_those_of_all_blocks() -> Result<()> {
    let (number, rows) = (BLOCK / 5, 12);
    let indices: Vec<u32> = (0..rows).map(|i| (i % 2) * (number as u32 - 1)).collect();
    let sums = sums_by_index(
        &Tensor::ones((rows as usize, 1), DType::F32, &Device::Cpu)?,
        &Tensor::new(indices, &Device::Cpu)?,
        number,
    )?;
    let sums: Vec<f32> = sums.flatten_all()?.to_vec1()?;
    assert_eq!((sums[0], sums[1], sums[number - 1]), (6., 0., 6.));
    Ok(())
}

#[test]
fn what_cannot_be_picked_is_named() -> Result<()> {
    let xs = random("xs", &[3, 2], DType::F32)?;
    let says = |made: Result<Tensor>, part: &str| {
        let error = made.expect_err("refused").to_string();
        assert!(error.contains(part), "{error}");
    };
    says(pick_rows(&xs, &[0, 3]), "row 3 of 3");
    says(embedding(&xs, &Tensor::new(&[0i64], &Device::Cpu)?), "indices I64 [1]");
    assert!(embedding(&xs, &Tensor::new(&[3u32], &Device::Cpu)?).is_err());
    says(embedding(&xs, &Tensor::new(&[0, u32::MAX], &Device::Cpu)?), "index 4294967295 of a table");
    // A table may be a view.
    let (view, one) = (xs.t()?.contiguous()?.t()?, Tensor::new(&[1u32], &Device::Cpu)?);
    assert_eq!(flat(&embedding(&view, &one)?)?, flat(&embedding(&xs, &one)?)?);
    assert_eq!(pick_rows(&xs, &[])?.dims(), [0, 2]);
    Ok(())
}
