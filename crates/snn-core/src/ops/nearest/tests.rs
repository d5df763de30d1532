use candle_core::Device;
use proptest::prelude::*;

use super::*;
use crate::Seed;
use crate::ops::testing::{check_threads, flat, random};

type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;

const TWINS: [Op; 2] = [nearest, nearest_reference];

/// Vectors of one channel, and codes.
fn line(z: &[f64], codes: &[f64], dtype: DType) -> Result<[Tensor; 2]> {
    let column = |xs: &[f64], shape: &[usize]| Tensor::from_slice(xs, shape, &Device::Cpu)?.to_dtype(dtype);
    Ok([column(z, &[1, 1, 1, z.len()])?, column(codes, &[codes.len(), 1])?])
}

#[test]
fn agrees_with_its_twin() -> Result<()> {
    for (n, c, (h, w), k) in [(3, 8, (7, 7), 128), (1, 1, (1, 1), 1), (5, 17, (2, 3), 9)] {
        let (z, codes) = (random("z", &[n, c, h, w], DType::F64)?, random("codes", &[k, c], DType::F64)?);
        let (fast, slow) = (nearest(&z, &codes)?, nearest_reference(&z, &codes)?);
        assert_eq!(fast.dims(), [n, h, w]);
        assert_eq!(flat(&fast)?, flat(&slow)?);
        let single = nearest(&z.to_dtype(DType::F32)?, &codes.to_dtype(DType::F32)?)?;
        assert_eq!(flat(&single)?, flat(&slow)?);
    }
    Ok(())
}

#[test]
fn views_and_single_items_give_the_same() -> Result<()> {
    let (z, codes) =
        (random("z", &[4, 5, 3, 2], DType::F32)?.transpose(2, 3)?, random("k", &[11, 5], DType::F32)?);
    let all = flat(&nearest(&z, &codes)?)?;
    let one = (0..4).map(|n| flat(&nearest(&z.narrow(0, n, 1)?, &codes)?)).collect::<Result<Vec<_>>>()?;
    assert_eq!(all, one.concat());
    check_threads(|| Ok(vec![nearest(&z, &codes)?]))
}

#[test]
fn close_codes_far_from_the_origin() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for (z, codes, wanted) in [
            (512_695., &[512_804., 512_600.][..], 1.),
            (2.0004, &[2., 2.0005], 1.),
            (1e7 + 1., &[1e7 + 3., 1e7, 1e7 + 1.], 2.),
            (1e-30, &[3e-30, 1.5e-30], 1.),
            (3e38, &[-3e38, 1e38, 2e38], 2.),
            (0.2, &[f64::INFINITY, 0., 0.2], 2.),
            (-5., &[f64::NEG_INFINITY, 7., f64::INFINITY], 1.),
            (1., &[3., 0., 2., 0.], 1.), // the first of equals
            (0., &[1e-40, 1e-41, 0.], 2.),
        ] {
            let [z, codes] = line(&[z], codes, dtype)?;
            for op in TWINS {
                assert_eq!(flat(&op(&z, &codes)?)?, [wanted], "{z}, {codes}, {dtype:?}");
            }
        }
    }
    Ok(())
}

/// Of every two codes one is nearer by less than f32 can tell, or is there twice: vectors of both kinds in one tile.
#[test]
fn codes_that_single_precision_cannot_tell_apart() -> Result<()> {
    let (z, some) = (random("z", &[1, 20, 13, 11], DType::F32)?, random("codes", &[8, 20], DType::F64)?);
    let near = (&some + random("shift", &[8, 20], DType::F64)?.affine(1e-7, 0.)?)?;
    let codes = Tensor::cat(&[&near, &some, &some], 0)?.to_dtype(DType::F32)?;
    let (found, wanted) = (flat(&nearest(&z, &codes)?)?, flat(&nearest_reference(&z, &codes)?)?);
    assert_eq!(found, wanted);
    let of_each = [0., 8., 16.].map(|from| found.iter().filter(|&&k| (from..from + 8.).contains(&k)).count());
    assert!(of_each[0] > 9 && of_each[1] > 9 && of_each[2] == 0, "{of_each:?}");
    Ok(())
}

#[test]
fn squares_beyond_double_precision() -> Result<()> {
    for (z, codes, wanted) in [
        (1e-200, &[3e-200, 0.5e-200, -1e-200][..], 1.),
        (1e200, &[3e200, -1e200, 1.5e200], 2.),
        (1.7e308, &[-1.7e308, -1.6e308, f64::INFINITY], 1.),
        (1e200, &[1e200, 1e200], 0.),
        (5e-324, &[1e300, 2e-323, 0.], 2.),
    ] {
        let [z, codes] = line(&[z], codes, DType::F64)?;
        assert_eq!(flat(&nearest(&z, &codes)?)?, [wanted], "{z}, {codes}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Against sums of squared differences, one by one.
    #[test]
    fn any_scale_and_offset_equals_brute_force(
        scale in -6i32..=6,
        offset in prop_oneof![Just(0f64), -1e6..1e6f64, -10.0..10.0f64],
        (c, k, positions) in (1usize..=16, 1usize..=40, 1usize..=70),
        double: bool,
        seed: u64,
    ) {
        let dtype = if double { DType::F64 } else { DType::F32 };
        let draw = |label: &str, shape: &[usize]| {
            let spread = 10f64.powi(scale);
            Seed(seed).normal(label, shape, (offset, spread), DType::F64, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        let (z, codes) = (draw("z", &[2, c, positions, 1]), draw("codes", &[k, c]));
        let vectors = flat(&z.permute((0, 2, 3, 1)).unwrap()).unwrap();
        let rows = flat(&codes).unwrap();
        let wanted: Vec<f64> = vectors
            .chunks_exact(c)
            .map(|z| {
                let distances = rows.chunks_exact(c).map(|e| z.iter().zip(e).map(|(z, e)| (z - e).powi(2)).sum::<f64>());
                let least = distances.clone().fold(f64::INFINITY, f64::min);
                distances.into_iter().position(|d| d == least).unwrap() as f64
            })
            .collect();
        for op in TWINS {
            prop_assert_eq!(flat(&op(&z, &codes).unwrap()).unwrap(), wanted.clone());
        }
    }
}

#[test]
fn what_is_not_finite_is_an_error_that_says_where() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for (value, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (f64::NEG_INFINITY, "-inf")] {
            let mut values = vec![0.5; 3 * 2 * 5 * 4];
            values[(2 * 2 + 1) * 20 + 3 * 4 + 2] = value;
            values[119] = f64::NAN; // not the first
            let z = Tensor::from_vec(values, (3, 2, 5, 4), &Device::Cpu)?.to_dtype(dtype)?;
            let codes = random("codes", &[6, 2], dtype)?;
            for op in TWINS {
                let error = op(&z, &codes).unwrap_err().to_string();
                let place = format!("item 2 has {name} in channel 1 at row 3, column 2");
                assert!(error.contains(&place), "{error}");
            }
        }
        for (codes, wanted) in [(&[0., f64::NAN][..], "code 1 is NaN"), (&[f64::INFINITY; 2], "infinite")] {
            let [z, codes] = line(&[0.5], codes, dtype)?;
            for op in TWINS {
                let error = op(&z, &codes).unwrap_err().to_string();
                assert!(error.contains(wanted), "{error}");
            }
        }
    }
    Ok(())
}

#[test]
fn unfit_operands_are_errors() -> Result<()> {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    let z = zeros(&[1, 3, 2, 2], DType::F32)?;
    for op in TWINS {
        assert!(op(&z, &zeros(&[2, 4], DType::F32)?).is_err(), "channels");
        assert!(op(&z, &zeros(&[0, 3], DType::F32)?).is_err(), "no codes");
        assert!(op(&z, &zeros(&[2, 3], DType::F64)?).is_err(), "element types");
        assert!(op(&z.get(0)?, &zeros(&[2, 3], DType::F32)?).is_err(), "rank");
        assert!(op(&zeros(&[0, 3, 2, 2], DType::F32)?, &zeros(&[2, 3], DType::F32)?).is_err(), "nothing");
    }
    Ok(())
}
