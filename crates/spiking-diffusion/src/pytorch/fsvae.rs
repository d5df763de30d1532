//! FSVAEs of PyTorch: that of the released Spiking-Diffusion code, and that of the FSVAE paper's.

use std::path::Path;

use candle_core::Device;
use fsvae::{Fsvae, FsvaeConfig};
use snn_core::{Checkpoint, LayerConfig, Model};
use spiking_diffusion_metrics::WeightFile;

use super::export::tensors;
use super::import::{Tensors, check_names, read, readout, save, size};
use super::names::{self, is_table1};
use super::pth::write_pth;
use crate::error::{Error, Result, absent};

/// Makes a checkpoint of an FSVAE's state dict, that of the released Spiking-Diffusion code or that of the FSVAE paper's code (its kernels
/// have a trailing axis of 1), and loads it. Which of the two it is, and its sizes, are the file's; images are square.
///
/// # Errors
/// Returns an error as [`import`](super::import) does, and an error if there is a file at `out` already.
///
/// # Examples
/// ```no_run
/// # fn main() -> spiking_diffusion::Result<()> {
/// let fsvae = spiking_diffusion::pytorch::import_fsvae("best.pth".as_ref(), "fsvae.safetensors".as_ref())?;
/// # Ok(()) }
/// ```
pub fn import_fsvae(file: &Path, out: &Path) -> Result<Fsvae> {
    absent(out)?;
    let (cfg, tensors) = read_fsvae(&WeightFile::open(file)?)?;
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    save(Fsvae::KIND, &cfg, tensors, out)?;
    Ok(Fsvae::load(out, &Device::Cpu)?)
}

/// Most convolutions that are looked for.
const DEEPEST: usize = 16;

fn read_fsvae(file: &WeightFile) -> Result<(FsvaeConfig, Tensors)> {
    let released = file.has("encoder.snn_convs.0.weight");
    let mut cfg = if released { FsvaeConfig::table1() } else { FsvaeConfig::original(1) };
    if !released {
        let layers = (0..DEEPEST).take_while(|i| file.has(&format!("encoder.{i}.weight"))).count().max(2);
        (cfg.body.encoder, cfg.body.decoder) = (vec![1; layers], vec![1; layers]);
    }
    check_names(file, &names::Fsvae(&cfg).entries(), "FSVAE")?;
    sizes(file, &mut cfg)?;
    cfg.validate()?;
    let tensors = read(file, &names::Fsvae(&cfg).entries())?;
    Ok((cfg, tensors))
}

/// Sets all sizes of a config to those of a file that has its names.
fn sizes(file: &WeightFile, cfg: &mut FsvaeConfig) -> Result<()> {
    let before = cfg.clone();
    let named = names::Fsvae(&before);
    let at = |name: String, axis| size(file, &format!("{name}.weight"), axis);
    let body = &mut cfg.body;
    for (i, channels) in body.encoder.iter_mut().chain(&mut body.mix).enumerate() {
        *channels = at(named.encoder(i), 0)?;
    }
    for (i, channels) in body.decoder.iter_mut().enumerate() {
        *channels = at(named.decoder(i), 1)?;
    }
    let (name, axis) = named.coefficients();
    body.time_steps = if file.has(name) { size(file, name, axis)? } else { body.time_steps };
    body.readout = readout(file, (name, axis), body.time_steps, body.readout)?;
    let to_latent = named.linear("before_latent_layer");
    body.latent = at(to_latent.clone(), 0)?;
    let flat = at(to_latent, 1)?;
    let side = ((flat / body.latent_map()[0].max(1)) as f64).sqrt() as usize;
    let side = side.checked_shl(body.encoder.len() as u32).unwrap_or(0);
    body.image = [at(named.encoder(0), 1)?, side, side];
    for (i, width) in cfg.hidden.iter_mut().enumerate() {
        *width = at(named.chain("prior", i), 0)?;
    }
    cfg.candidates = at(named.chain("prior", cfg.hidden.len()), 0)? / cfg.body.latent.max(1);
    Ok(())
}

/// Writes the state dict of an FSVAE's checkpoint, under the names of the released Spiking-Diffusion code or of the FSVAE paper's, for
/// `load_state_dict`.
///
/// # Errors
/// Returns an error if the checkpoint cannot be read, if its network is neither of the two but for its sizes, or if the file is there already or
/// cannot be written.
///
/// # Examples
/// ```no_run
/// # fn main() -> spiking_diffusion::Result<()> {
/// spiking_diffusion::pytorch::export_fsvae("fsvae.safetensors".as_ref(), "fsvae.pth".as_ref())?;
/// # Ok(()) }
/// ```
pub fn export_fsvae(checkpoint: &Path, out: &Path) -> Result<()> {
    absent(out)?;
    let checkpoint = Checkpoint::load(checkpoint, Fsvae::KIND, &Device::Cpu)?;
    let cfg: FsvaeConfig = checkpoint.config()?;
    cfg.validate()?;
    let known = if is_table1(&cfg) { FsvaeConfig::table1() } else { FsvaeConfig::original(1) };
    let layers = |cfg: &FsvaeConfig| -> [(&str, LayerConfig); 3] {
        [("maps", cfg.body.maps), ("linear", cfg.body.linear), ("chains", cfg.chains)]
    };
    if let Some(((part, layer), _)) = layers(&cfg).into_iter().zip(layers(&known)).find(|(a, b)| a != b) {
        let reason = "neither the released Spiking-Diffusion code nor the FSVAE paper's has such layers";
        return Err(Error::config(format!("fsvae.{part}"), format!("{layer:?}"), reason));
    }
    let (layers, mixed) = (cfg.body.encoder.len(), cfg.body.mix.is_some());
    let has_places = if is_table1(&cfg) { layers == 2 && mixed } else { layers >= 2 && !mixed };
    if !has_places || cfg.hidden.len() != known.hidden.len() {
        let (body, hidden) = (&cfg.body, &cfg.hidden);
        let found = format!("{:?}, {:?}; hidden {hidden:?}", body.encoder, body.mix);
        return Err(Error::config("fsvae.body", found, "neither network has such layers"));
    }
    write_pth(out, &tensors(&checkpoint, &names::Fsvae(&cfg).entries(), cfg.body.time_steps)?)
}
