//! A run becomes state dicts of the released code.

use std::path::{Path, PathBuf};

use absorbing_diffusion::{HeadReads, Sdid, SdidConfig, TokenInput};
use candle_core::{DType, Device, Tensor};
use snn_core::{Checkpoint, LifConfig, Model};
use vq_svae::{Activation, VqSvae, VqSvaeConfig};

use super::names::{self, Entry, What};
use super::pth::write_pth;
use crate::error::{Error, Result, absent};

/// Writes the networks of a run as `model.pth` and `diff_model.pth` into the folder `out`, under the released code's names; returns both
/// paths.
///
/// `load_state_dict` takes them strictly in networks of the run's sizes, those of the released code being the preset `released-code`.
/// The paper's features come along, since the weights of a sum over time are buffers there; what the released networks cannot
/// compute is refused.
///
/// # Errors
/// Returns an error if a network of the run is missing or damaged, if its config has what the released code has not (other neurons or none, a
/// clamped output, embedded tokens, further layers, networks of different time steps), or if a file is there already or cannot be
/// written.
///
/// # Examples
/// ```no_run
/// # fn main() -> spiking_diffusion::Result<()> {
/// let [vqsvae, sdid] = spiking_diffusion::pytorch::export("runs/mine".as_ref(), "for-pytorch".as_ref())?;
/// assert!(vqsvae.ends_with("model.pth") && sdid.ends_with("diff_model.pth"));
/// # Ok(()) }
/// ```
pub fn export(run: &Path, out: &Path) -> Result<[PathBuf; 2]> {
    let vqsvae = Checkpoint::load(&run.join("vqsvae.safetensors"), VqSvae::KIND, &Device::Cpu)?;
    let sdid = Checkpoint::load(&run.join("sdid.safetensors"), Sdid::KIND, &Device::Cpu)?;
    let configs: (VqSvaeConfig, SdidConfig) = (vqsvae.config()?, sdid.config()?);
    check(&configs.0, &configs.1)?;
    let time_steps = configs.0.time_steps;
    let tensors = [
        tensors(&vqsvae, &names::vqsvae(&configs.0), time_steps)?,
        tensors(&sdid, &names::sdid(&configs.1), time_steps)?,
    ];
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let paths = ["model.pth", "diff_model.pth"].map(|name| out.join(name));
    // The names are those of the authors' own checkpoints.
    paths.iter().try_for_each(|path| absent(path))?;
    for (path, tensors) in paths.iter().zip(&tensors) {
        write_pth(path, tensors)?;
    }
    Ok(paths)
}

fn check(vqsvae: &VqSvaeConfig, sdid: &SdidConfig) -> Result<()> {
    for (field, lif) in [("vqsvae.lif", vqsvae.lif), ("sdid.lif", sdid.lif)] {
        let released =
            LifConfig { surrogate: lif.surrogate, detach_reset: lif.detach_reset, ..LifConfig::default() };
        if lif != released {
            let reason =
                "the released code has one neuron: tau = 2, threshold 1, reset to 0, its input decayed";
            return Err(Error::config(field, format!("{lif:?}"), reason));
        }
    }
    for (field, without) in [("vqsvae", vqsvae.without_spikes.is_some()), ("sdid", sdid.without_spikes)] {
        if without {
            let reason = "the networks of these names in the released code are spiking ones";
            return Err(Error::config(format!("{field}.without_spikes"), true, reason));
        }
    }
    if vqsvae.output != Activation::Tanh {
        return Err(Error::config(
            "vqsvae.output",
            format!("{:?}", vqsvae.output),
            "the released code has a plain tanh",
        ));
    }
    if sdid.token_input != TokenInput::Raw {
        let reason = "the released code's SDID reads raw numbers";
        return Err(Error::config("sdid.token_input", format!("{:?}", sdid.token_input), reason));
    }
    if sdid.head_kernel != 3 {
        return Err(Error::config("sdid.head_kernel", sdid.head_kernel, "the released code has 3"));
    }
    if sdid.head_reads != HeadReads::LastAndFirst {
        let reason = "the released code's reads the last layer and the first";
        return Err(Error::config("sdid.head_reads", format!("{:?}", sdid.head_reads), reason));
    }
    if sdid.time_steps != vqsvae.time_steps {
        let reason =
            format!("the autoencoder has {}, and the released code one number for both", vqsvae.time_steps);
        return Err(Error::config("sdid.time_steps", sdid.time_steps, reason));
    }
    Ok(())
}

/// The state dict of a checkpoint, every tensor of which must have its place there.
pub(super) fn tensors(
    checkpoint: &Checkpoint,
    entries: &[Entry],
    time_steps: usize,
) -> Result<Vec<(String, Tensor)>> {
    let mut left: std::collections::BTreeMap<_, _> = checkpoint.tensors.iter().collect();
    let mut tensors = Vec::with_capacity(entries.len());
    for Entry { theirs, what } in entries {
        let tensor = match what {
            What::Parameter { ours, shape } => {
                let tensor = left.remove(ours);
                let tensor = tensor.ok_or_else(|| checkpoint.error(format!("tensor `{ours}` is missing")))?;
                tensor.reshape(shape.as_slice())?
            }
            What::Zeros(shape) => Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu)?,
            What::Coefficients { readout, axis } => {
                let weights = readout.weights(time_steps)?.into_iter().map(|weight| weight as f32);
                Tensor::from_vec(
                    weights.collect(),
                    &names::coefficients(time_steps, *axis)[..],
                    &Device::Cpu,
                )?
            }
            What::BatchesTracked => Tensor::new(0i64, &Device::Cpu)?,
        };
        tensors.push((theirs.clone(), tensor));
    }
    match left.keys().next() {
        Some(name) => {
            Err(checkpoint.error(format!("tensor `{name}` has no place in the authors' network")).into())
        }
        None => Ok(tensors),
    }
}
