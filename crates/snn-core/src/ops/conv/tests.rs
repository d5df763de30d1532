use candle_core::{DType, Device};
use proptest::prelude::*;

use super::*;
use crate::ops::testing::{
    assert_identical, assert_within, check_gradients, check_threads, flat, random, run,
};

type Op = fn(&Tensor, &Tensor, &ConvConfig) -> Result<Tensor>;

/// Shapes and geometry of one convolution.
#[derive(Clone, Debug)]
struct Case {
    xs: [usize; 4],
    c_out: usize,
    kernel: (usize, usize),
    cfg: ConvConfig,
}

impl Case {
    fn operands(&self, transposed: bool, dtype: DType) -> Result<[Tensor; 2]> {
        let (c_in, c_out) = (self.xs[1], self.c_out);
        let (first, second) = if transposed { (c_in, c_out) } else { (c_out, c_in) };
        let weight = [first, second, self.kernel.0, self.kernel.1];
        Ok([random("x", &self.xs, dtype)?, random("w", &weight, dtype)?])
    }

    /// Whether the kernel walks to the end of the image on both axes, or stops equally short of it.
    /// Candle's backward pass fails otherwise: it takes one output padding for both.
    fn candle_can_go_back(&self) -> bool {
        let short = |len: usize, k: usize| (len + 2 * self.cfg.padding - k) % self.cfg.stride;
        let [rows, columns] = [short(self.xs[2], self.kernel.0), short(self.xs[3], self.kernel.1)];
        rows == columns && rows < self.xs[2].min(self.xs[3])
    }
}

fn kernel() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), Just(2), Just(3), Just(5)]
}

/// Any convolution that fits; kernels need not be square.
fn conv_case() -> impl Strategy<Value = Case> {
    let geometry = (kernel(), kernel(), 1usize..=3, 0usize..=2);
    let sizes = (1usize..=3, 1usize..=4, 1usize..=9, 1usize..=9, 1usize..=4);
    (geometry, sizes)
        .prop_map(|((kh, kw, stride, padding), (m, c_in, h, w, c_out))| Case {
            xs: [m, c_in, h, w],
            c_out,
            kernel: (kh, kw),
            cfg: ConvConfig::new(kh, stride, padding),
        })
        .prop_filter("kernel inside the padded image", |case| {
            let p = 2 * case.cfg.padding;
            case.xs[2] + p >= case.kernel.0 && case.xs[3] + p >= case.kernel.1
        })
}

/// Any transposed convolution with an output.
fn transposed_case() -> impl Strategy<Value = Case> {
    (conv_case(), 0usize..3)
        .prop_map(|(case, extra)| {
            let cfg = case.cfg.with_output_padding(extra % case.cfg.stride);
            Case { cfg, ..case }
        })
        .prop_filter("an output", |Case { xs, kernel, cfg, .. }| {
            let len = |n: usize, k: usize| (n - 1) * cfg.stride + k + cfg.output_padding;
            len(xs[2], kernel.0).min(len(xs[3], kernel.1)) > 2 * cfg.padding
        })
}

/// `[y, gx, gw]` of a convolution from the formula alone, in f64, each with the sums of its terms' sizes.
fn by_the_formula(case: &Case, transposed: bool) -> Result<Vec<(Tensor, Tensor)>> {
    let [xs, weight] = case.operands(transposed, DType::F64)?;
    let (op, ConvConfig { stride, padding, .. }): (Op, _) =
        (if transposed { conv_transpose2d } else { conv2d }, case.cfg);
    // Only the shape is taken from the op under test.
    let shape = op(&xs, &weight, &case.cfg)?.dims().to_vec();
    let upstream = random("upstream", &shape, DType::F64)?;
    let (x, w, gy) = (flat(&xs)?, flat(&weight)?, flat(&upstream)?);
    let sums = |len: usize| vec![(0f64, 0f64); len];
    let (mut y, mut gx, mut gw) = (sums(gy.len()), sums(x.len()), sums(w.len()));
    let [m, c_in, h, width] = case.xs;
    let (c_out, (kh, kw), (oh, ow)) = (case.c_out, case.kernel, (shape[2], shape[3]));
    let add = |sum: &mut (f64, f64), term: f64| *sum = (sum.0 + term, sum.1 + term.abs());
    // Every triple (input position, kernel tap, output position) that belongs together adds one product.
    let at = |o: usize, k: usize, i: usize| match transposed {
        false => o * stride + k == i + padding,
        true => i * stride + k == o + padding,
    };
    for (n, o, c) in (0..m * c_out * c_in).map(|i| (i / (c_out * c_in), i / c_in % c_out, i % c_in)) {
        for (ky, kx, oy, iy) in (0..kh * kw * oh * h)
            .map(|i| (i / (kw * oh * h), i / (oh * h) % kw, i / h % oh, i % h))
            .filter(|&(ky, _, oy, iy)| at(oy, ky, iy))
        {
            for (ox, ix) in (0..ow * width).map(|i| (i / width, i % width)).filter(|&(o, i)| at(o, kx, i)) {
                let xi = ((n * c_in + c) * h + iy) * width + ix;
                let yi = ((n * c_out + o) * oh + oy) * ow + ox;
                let (first, second, inner) = if transposed { (c, o, c_out) } else { (o, c, c_in) };
                let wi = ((first * inner + second) * kh + ky) * kw + kx;
                add(&mut y[yi], x[xi] * w[wi]);
                add(&mut gx[xi], gy[yi] * w[wi]);
                add(&mut gw[wi], gy[yi] * x[xi]);
            }
        }
    }
    let tensor = |sums: Vec<(f64, f64)>, like: &Tensor| {
        let (values, sizes): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
        let tensor = |values| Tensor::from_vec(values, like.shape(), &Device::Cpu);
        Ok::<_, candle_core::Error>((tensor(values)?, tensor(sizes)?))
    };
    Ok(vec![tensor(y, &upstream)?, tensor(gx, &xs)?, tensor(gw, &weight)?])
}

fn bound(dtype: DType) -> f64 {
    if dtype == DType::F64 { 1e-15 } else { 1e-6 }
}

fn compare(case: &Case, transposed: bool) -> Result<()> {
    let (op, twin): (Op, Op) = match transposed {
        false => (conv2d, conv2d_reference),
        true => (conv_transpose2d, conv_transpose2d_reference),
    };
    let wanted = by_the_formula(case, transposed)?;
    for dtype in [DType::F64, DType::F32] {
        let operands = case.operands(transposed, dtype)?;
        let ours = run(|ops| op(&ops[0], &ops[1], &case.cfg), &operands)?;
        let theirs = match transposed || case.candle_can_go_back() {
            true => run(|ops| twin(&ops[0], &ops[1], &case.cfg), &operands)?,
            false => vec![twin(&operands[0], &operands[1], &case.cfg)?],
        };
        for (i, name) in ["y", "gx", "gw"].into_iter().enumerate() {
            let ((value, size), ours) = (&wanted[i], &ours[i]);
            assert_within(&format!("{name} and the formula"), ours, value, size, bound(dtype));
            if let Some(theirs) = theirs.get(i) {
                assert_within(&format!("{name} and Candle's"), ours, theirs, size, bound(dtype));
            }
        }
    }
    Ok(())
}

fn differentiate(case: &Case, transposed: bool) -> Result<()> {
    let op: Op = if transposed { conv_transpose2d } else { conv2d };
    let operands = case.operands(transposed, DType::F64)?;
    // Bilinear: a central difference is exact but for rounding, at any step.
    check_gradients("conv", |ops| op(&ops[0], &ops[1], &case.cfg), &operands, 0.1, 1e-10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..Default::default() })]

    #[test]
    fn conv_equals_the_formula_and_candle(case in conv_case()) {
        compare(&case, false).unwrap();
    }

    #[test]
    fn transposed_equals_the_formula_and_candle(case in transposed_case()) {
        compare(&case, true).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..Default::default() })]

    #[test]
    fn gradients_are_finite_differences(conv in conv_case(), transposed in transposed_case()) {
        differentiate(&conv, false).unwrap();
        differentiate(&transposed, true).unwrap();
    }
}

/// More images than one block holds and more blocks than there are partial sums, with a short last one.
fn large() -> Case {
    Case { xs: [43, 3, 14, 14], c_out: 5, kernel: (3, 3), cfg: ConvConfig::new(3, 1, 1) }
}

#[test]
fn many_blocks_equal_the_formula_and_candle() -> Result<()> {
    compare(&large(), false)?;
    compare(&large(), true)
}

#[test]
fn threads_do_not_matter() -> Result<()> {
    let case = large();
    check_threads(|| {
        let conv = run(|ops| conv2d(&ops[0], &ops[1], &case.cfg), &case.operands(false, DType::F32)?)?;
        let transposed =
            run(|ops| conv_transpose2d(&ops[0], &ops[1], &case.cfg), &case.operands(true, DType::F32)?)?;
        Ok([conv, transposed].concat())
    })
}

#[test]
fn views_equal_their_copies() -> Result<()> {
    let (xs, weight) = (random("x", &[7, 6, 3, 2], DType::F64)?, random("w", &[3, 3, 3, 4], DType::F64)?);
    let view = |t: &Tensor| t.permute((3, 2, 1, 0)); // [2, 3, 6, 7] and [4, 3, 3, 3]
    let narrow = |t: &Tensor| view(t)?.narrow(0, 1, 3); // [3, 3, 3, 3]: an offset in the storage
    let cfg = ConvConfig::new(3, 2, 1);
    for op in [conv2d as Op, conv_transpose2d] {
        let on = |copy: fn(Tensor) -> Result<Tensor>| {
            let f = |ops: &[Tensor]| {
                let ys = op(&copy(view(&ops[0])?)?, &copy(narrow(&ops[1])?)?, &cfg)?;
                copy(ys.permute((1, 3, 0, 2))?) // its gradient arrives as a view
            };
            run(f, &[xs.clone(), weight.clone()])
        };
        for (a, b) in on(Ok)?.iter().zip(&on(|t| t.force_contiguous())?) {
            assert_identical("view", a, b);
        }
    }
    Ok(())
}

#[test]
fn only_wanted_gradients_are_made() -> Result<()> {
    let [xs, weight] = large().operands(false, DType::F32)?;
    let weight = candle_core::Var::from_tensor(&weight)?;
    let grads = conv2d(&xs, &weight, &large().cfg)?.sum_all()?.backward()?;
    assert!(grads.get(&xs).is_none() && grads.get(&weight).is_some());
    Ok(())
}

#[test]
fn no_images_are_fine() -> Result<()> {
    let case = Case { xs: [0, 3, 6, 5], ..large() };
    for (op, transposed) in [(conv2d as Op, false), (conv_transpose2d, true)] {
        let out = run(|ops| op(&ops[0], &ops[1], &case.cfg), &case.operands(transposed, DType::F32)?)?;
        assert_eq!(out[0].dims(), [0, 5, 6, 5]);
        assert_eq!(out[1].dims(), case.xs);
        assert_eq!(flat(&out[2])?, vec![0.; 5 * 3 * 9]);
    }
    Ok(())
}

#[test]
fn wrong_inputs_are_errors() -> Result<()> {
    let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    let cfg = ConvConfig::new(3, 2, 1);
    let (good, kernel) = ([2, 3, 5, 5], [3, 3, 3, 3]);
    let mut wrong = vec![
        ("rank of the input", vec![3, 5, 5], kernel.to_vec(), cfg),
        ("rank of the kernel", good.to_vec(), vec![3, 3, 3], cfg),
        ("channels", good.to_vec(), vec![4, 4, 3, 3], cfg),
        ("stride", good.to_vec(), kernel.to_vec(), ConvConfig::new(3, 0, 1)),
        ("no channels", vec![2, 0, 5, 5], vec![0, 0, 3, 3], cfg),
        ("no rows", vec![2, 3, 0, 5], kernel.to_vec(), cfg),
        ("no taps", good.to_vec(), vec![3, 3, 0, 3], cfg),
    ];
    for (what, xs, weight, cfg) in &wrong {
        let (xs, weight) = (zeros(xs, DType::F32)?, zeros(weight, DType::F32)?);
        assert!(conv2d(&xs, &weight, cfg).is_err(), "conv2d: {what}");
        assert!(conv_transpose2d(&xs, &weight, cfg).is_err(), "conv_transpose2d: {what}");
    }
    wrong = vec![
        ("kernel larger than the image", good.to_vec(), vec![3, 3, 8, 8], cfg),
        ("no outputs", good.to_vec(), vec![0, 3, 3, 3], cfg),
    ];
    for (what, xs, weight, cfg) in &wrong {
        assert!(conv2d(&zeros(xs, DType::F32)?, &zeros(weight, DType::F32)?, cfg).is_err(), "{what}");
    }
    wrong = vec![
        ("output padding", good.to_vec(), kernel.to_vec(), cfg.with_output_padding(2)),
        ("no output", vec![2, 3, 1, 5], kernel.to_vec(), ConvConfig::new(3, 2, 2)),
        ("no outputs", good.to_vec(), vec![3, 0, 3, 3], cfg),
    ];
    for (what, xs, weight, cfg) in &wrong {
        let (xs, weight) = (zeros(xs, DType::F32)?, zeros(weight, DType::F32)?);
        assert!(conv_transpose2d(&xs, &weight, cfg).is_err(), "{what}");
    }
    for op in [conv2d as Op, conv_transpose2d] {
        for (a, b) in [(DType::U8, DType::U8), (DType::F32, DType::F64), (DType::F64, DType::U8)] {
            assert!(op(&zeros(&good, a)?, &zeros(&kernel, b)?, &cfg).is_err(), "{a:?} and {b:?}");
        }
    }
    Ok(())
}

/// A padding or a stride that no size can hold, an output that no memory can: errors by field and value, as for the twins.
#[test]
fn sizes_without_end_are_errors() -> Result<()> {
    let (xs, weight) = (random("x", &[2, 3, 6, 5], DType::F32)?, random("w", &[3, 3, 3, 3], DType::F32)?);
    let refused = |op: Op, cfg: ConvConfig, wanted: &str| {
        let error = op(&xs, &weight, &cfg).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{cfg:?}: {error}");
    };
    for op in [conv2d as Op, conv2d_reference, |x, w, cfg| conv2d_at(x, w, cfg, &[vec![], vec![]])] {
        for padding in [usize::MAX, usize::MAX / 2 + 1, usize::MAX / 2] {
            refused(op, ConvConfig::new(3, 1, padding), &format!("`conv.padding` = {padding}"));
        }
        refused(op, ConvConfig::new(3, 0, 1), "`conv.stride` = 0");
    }
    for op in [conv2d as Op, conv2d_reference] {
        for padding in [usize::MAX / 2 - 8, 1 << 40, 1 << 31] {
            refused(op, ConvConfig::new(3, 1, padding), "does not fit into memory");
        }
    }
    for op in [conv_transpose2d as Op, conv_transpose2d_reference] {
        for padding in [usize::MAX, usize::MAX / 2 + 1, 1 << 40] {
            refused(op, ConvConfig::new(3, 1, padding), &format!("`conv.padding` = {padding}"));
        }
        refused(op, ConvConfig::new(3, usize::MAX, 0), &format!("`conv.stride` = {}", usize::MAX));
        let wide = ConvConfig::new(3, usize::MAX / 8, 0);
        refused(op, wide.with_output_padding(usize::MAX / 8 - 1), "does not fit into memory");
        refused(op, ConvConfig::new(3, 1 << 40, 0), "does not fit into memory");
        refused(op, ConvConfig::new(3, 0, 1), "`conv.stride` = 0");
        refused(op, ConvConfig::new(3, 2, 1).with_output_padding(2), "`conv.output_padding` = 2");
    }
    // Steps so wide that the map is small again: the values are those of the formula.
    let (image, one) = (random("x", &[1, 1, 1, 1], DType::F64)?, random("w", &[1, 1, 1, 1], DType::F64)?);
    let far = ConvConfig::new(1, usize::MAX / 2 - 4, usize::MAX / 2 - 4);
    let ys = conv2d(&image, &one, &far)?;
    assert_eq!(ys.dims(), [1, 1, 3, 3]);
    let product = flat(&image)?[0] * flat(&one)?[0];
    assert_eq!(flat(&ys)?, [0., 0., 0., 0., product, 0., 0., 0., 0.]);
    assert_eq!(flat(&conv2d_at(&image, &one, &far, &[vec![4, 8]])?)?, [product, 0.]);
    // Positions far outside are computed where they are asked for, without a list of all of them.
    let far = ConvConfig::new(3, 1, 1 << 14);
    let centre = (1 << 14) * ((1 << 15) + 3) + (1 << 14);
    let at = conv2d_at(&xs, &weight, &far, &[vec![0], vec![centre]])?;
    let near = conv2d_at(&xs, &weight, &ConvConfig::new(3, 1, 0), &[vec![], vec![0]])?;
    assert_eq!(flat(&at)?, [vec![0.; 3], flat(&near)?].concat());
    Ok(())
}

#[test]
fn element_types_that_differ_are_named() -> Result<()> {
    let (xs, weight) = (random("x", &[2, 3, 6, 5], DType::F32)?, random("w", &[3, 3, 3, 3], DType::F64)?);
    let cfg = ConvConfig::new(3, 1, 1);
    for op in [conv2d as Op, conv2d_reference, conv_transpose2d, conv_transpose2d_reference] {
        let error = op(&xs, &weight, &cfg).unwrap_err().to_string();
        assert!(error.contains("xs is F32") && error.contains("weight is F64"), "{error}");
    }
    let error = conv2d_at(&xs, &weight, &cfg, &[vec![0], vec![]]).unwrap_err().to_string();
    assert!(error.contains("xs is F32") && error.contains("weight is F64"), "{error}");
    Ok(())
}
