//! Shared by the tests of the ops: random operands, gradients, finite differences, thread counts, shards.

use std::sync::{Arc, Barrier, Mutex};

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::{Exchange, Merge, Seed, exchanging};

pub(crate) fn random(label: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    Seed(1).normal(label, shape, (0., 1.), dtype, &Device::Cpu)
}

pub(crate) fn flat(xs: &Tensor) -> Result<Vec<f64>> {
    xs.flatten_all()?.to_dtype(DType::F64)?.to_vec1()
}

/// `|got - wanted| / |size|` in the Euclidean norm; without the division where `size` is zero.
fn error(got: &Tensor, wanted: &Tensor, size: &Tensor) -> Result<f64> {
    assert_eq!(got.dims(), wanted.dims());
    let norm = |values: Vec<f64>| values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let distance = norm(flat(got)?.iter().zip(flat(wanted)?).map(|(g, w)| g - w).collect());
    let size = norm(flat(size)?);
    Ok(if size == 0. { distance } else { distance / size })
}

pub(crate) fn relative_error(got: &Tensor, wanted: &Tensor) -> Result<f64> {
    error(got, wanted, wanted)
}

/// Asserts that `got` differs from `wanted` by no more than `bound` times `size`: the size of the terms that they are
/// sums of, since sums that cancel have no relative accuracy.
#[track_caller]
pub(crate) fn assert_within(what: &str, got: &Tensor, wanted: &Tensor, size: &Tensor, bound: f64) {
    let error = error(got, wanted, size).expect(what);
    assert!(error <= bound, "{what}: relative error {error:e}, allowed {bound:e}");
}

#[track_caller]
pub(crate) fn assert_relative(what: &str, got: &Tensor, wanted: &Tensor, bound: f64) {
    assert_within(what, got, wanted, wanted, bound);
}

#[track_caller]
pub(crate) fn assert_identical(what: &str, got: &Tensor, wanted: &Tensor) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let differ =
        flat(got).expect(what).iter().zip(flat(wanted).expect(what)).filter(|(g, w)| **g != *w).count();
    assert_eq!(differ, 0, "{what}: elements that differ");
}

/// `f(inputs)` and the gradients of `sum(f * w)`, `w` random, in all inputs.
pub(crate) fn run(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let ys = f(&vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>())?;
    let grads = (&ys * random("upstream", ys.dims(), ys.dtype())?)?.sum_all()?.backward()?;
    let of = |var: &Var| grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
    let grads = vars.iter().map(of).collect::<Result<Vec<_>>>()?;
    Ok([vec![ys.detach()], grads].concat())
}

/// The backward pass of `f` against central differences in every element of every input (f64).
pub(crate) fn check_gradients(
    what: &str,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    inputs: &[Tensor],
    step: f64,
    bound: f64,
) -> Result<()> {
    let loss = |inputs: &[Tensor]| {
        let ys = f(inputs)?;
        (&ys * random("upstream", ys.dims(), ys.dtype())?)?.sum_all()?.to_scalar::<f64>()
    };
    let grads = run(&f, inputs)?.split_off(1);
    for (i, input) in inputs.iter().enumerate() {
        let values = flat(input)?;
        let moved = |at: usize, by: f64| {
            let mut values = values.clone();
            values[at] += by;
            let mut inputs = inputs.to_vec();
            inputs[i] = Tensor::from_vec(values, input.shape(), &Device::Cpu)?;
            loss(&inputs)
        };
        let slopes = (0..values.len())
            .map(|at| Ok((moved(at, step)? - moved(at, -step)?) / (2. * step)))
            .collect::<Result<Vec<f64>>>()?;
        let slopes = Tensor::from_vec(slopes, input.shape(), &Device::Cpu)?;
        assert_relative(&format!("{what}: argument {i}"), &grads[i], &slopes, bound);
    }
    Ok(())
}

/// Asserts that `f` gives the same bits on one, two, three and eight threads.
pub(crate) fn check_threads(f: impl Fn() -> Result<Vec<Tensor>> + Sync) -> Result<()> {
    let on = |threads: usize| -> Result<Vec<Vec<u64>>> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        let bits = |t: &Tensor| Ok(flat(t)?.into_iter().map(f64::to_bits).collect());
        pool.install(&f)?.iter().map(bits).collect()
    };
    let one = on(1)?;
    assert!(one.iter().flatten().any(|&bits| bits != 0));
    for threads in [2, 3, 8] {
        assert!(on(threads)? == one, "{threads} threads give other bits than one");
    }
    Ok(())
}

/// Shards of a batch, a thread each, that lay their numbers on one table.
#[derive(Debug)]
struct Table {
    given: Mutex<Vec<Vec<f64>>>,
    all: Barrier,
}

#[derive(Debug)]
struct Seat(usize, Arc<Table>);

impl Exchange for Seat {
    fn merge(&self, own: Vec<f64>, merge: Merge) -> Result<Vec<f64>> {
        let Self(shard, table) = self;
        table.given.lock().expect("a table")[*shard] = own;
        table.all.wait();
        let given = table.given.lock().expect("a table").clone();
        table.all.wait();
        let mut given = given.into_iter();
        let first = given.next().expect("a shard");
        Ok(given.fold(first, |mut total, next| {
            merge(&mut total, &next);
            total
        }))
    }

    fn leads(&self) -> bool {
        self.0 == 0
    }
}

/// What `work` makes of each shard of a batch.
pub(crate) fn in_shards<T: Send>(shards: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let table = Arc::new(Table { given: Mutex::new(vec![Vec::new(); shards]), all: Barrier::new(shards) });
    let work = &work;
    std::thread::scope(|scope| {
        let start = |shard| {
            let seat = Arc::new(Seat(shard, table.clone()));
            scope.spawn(move || exchanging(seat, || work(shard)))
        };
        let threads: Vec<_> = (0..shards).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("a shard")).collect()
    })
}
