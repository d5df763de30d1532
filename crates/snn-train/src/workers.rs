//! What workers do together beside training: agree on a config, share parameters, share out jobs.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Serialize;
use serde_json::Value;
use snn_core::{Checkpoint, ParamStore};

use crate::error::{Error, Result};
use crate::run::named;
use crate::{Collective, most_readable_difference};

/// Makes sure that all workers have the same config as worker 0, before they begin.
///
/// # Errors
/// Returns an error in each worker whose config differs, with a field that does; the others wait. Let it end the job.
/// # Examples
/// ```
/// use snn_train::{agree, in_threads};
/// let told = in_threads(2, |workers| agree(workers, &workers.rank()).err().map(|e| e.to_string()));
/// assert!(told[1].as_ref().unwrap().contains("0 in worker 0 and 1 here"));
/// ```
pub fn agree(workers: &dyn Collective, cfg: &impl Serialize) -> Result<()> {
    let read = |e: serde_json::Error| Error::worker(workers, format!("cannot read a config: {e}"));
    let own = serde_json::to_value(cfg).map_err(read)?;
    let sent = workers.broadcast(serde_json::to_vec(&own).map_err(read)?)?;
    // Both from text, in which numbers may lose digits.
    let own: Value = serde_json::from_str(&own.to_string()).map_err(read)?;
    let leading: Value = serde_json::from_slice(&sent).map_err(read)?;
    match most_readable_difference(&leading, &own) {
        None => workers.barrier(),
        Some((field, [there, here])) => {
            let field = named(&field);
            let message =
                format!("{field} is {there} in worker 0 and {here} here: give all the same config and data");
            Err(Error::worker(workers, message))
        }
    }
}

/// Shares jobs `0..jobs` out among workers, in turns, and hands what each makes to worker 0's `take`, in order.
///
/// Tensors arrive on the CPU.
///
/// # Errors
/// Returns the errors of `work` and of `take`, and an error if another worker has gone.
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// use snn_train::{Error, deal, in_threads};
/// let found = in_threads(3, |workers| {
///     let mut squares = Vec::new();
///     let work = |job: usize| Ok(vec![Tensor::new((job * job) as u32, &Device::Cpu)?]);
///     deal(workers, 5, work, |_, made: Vec<Tensor>| Ok::<_, Error>(squares.push(made[0].to_scalar::<u32>()?)))?;
///     Ok::<_, Error>(squares)
/// });
/// assert_eq!(found[0].as_ref().unwrap(), &[0, 1, 4, 9, 16]);
/// ```
pub fn deal<E: From<Error>>(
    workers: &dyn Collective,
    jobs: usize,
    mut work: impl FnMut(usize) -> Result<Vec<Tensor>, E>,
    mut take: impl FnMut(usize, Vec<Tensor>) -> Result<(), E>,
) -> Result<(), E> {
    let (rank, size) = (workers.rank(), workers.size());
    for first in (0..jobs).step_by(size) {
        let made = (first + rank < jobs).then(|| work(first + rank)).transpose()?;
        match made {
            Some(made) if rank == 0 => {
                take(first, made.iter().map(on_cpu).collect::<Result<_>>()?)?;
                for job in first + 1..(first + size).min(jobs) {
                    take(job, unpack(&workers.receive(job - first)?)?)?;
                }
            }
            Some(made) => workers.send(0, &pack(made)?)?,
            None => {}
        }
    }
    Ok(())
}

/// Gives the variables of worker 0 to all.
pub(crate) fn share(workers: &dyn Collective, params: &ParamStore) -> Result<()> {
    if workers.size() == 1 {
        return Ok(());
    }
    let mut own = Checkpoint::new(KIND, &())?;
    if workers.rank() == 0 {
        own.tensors = params.snapshot("")?;
    }
    let sent = workers.broadcast(own.to_bytes()?)?;
    Ok(params.restore(&read(&sent)?, "")?)
}

/// Gives a tensor of worker 0 to all, on the CPU; what others pass is dropped.
///
/// # Errors
/// Returns an error if another worker has gone.
pub fn share_tensor(workers: &dyn Collective, tensor: Option<Tensor>) -> Result<Tensor> {
    let mut all: Vec<_> = tensor.into_iter().collect();
    if workers.size() > 1 {
        all = unpack(&workers.broadcast(pack(all)?)?)?;
    }
    on_cpu(&all.pop().ok_or_else(|| Error::worker(workers, "worker 0 has no tensor to share"))?)
}

fn on_cpu(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_device(&Device::Cpu)?)
}

const KIND: &str = "message";

fn pack(tensors: Vec<Tensor>) -> Result<Vec<u8>> {
    let mut message = Checkpoint::new(KIND, &())?;
    message.tensors =
        tensors.into_iter().enumerate().map(|(i, tensor)| (format!("{i:08}"), tensor)).collect();
    Ok(message.to_bytes()?)
}

fn unpack(bytes: &[u8]) -> Result<Vec<Tensor>> {
    Ok(read(bytes)?.tensors.into_values().collect())
}

fn read(bytes: &[u8]) -> Result<Checkpoint> {
    Ok(Checkpoint::from_bytes(bytes, Path::new("(a worker's message)"), KIND, &Device::Cpu)?)
}
