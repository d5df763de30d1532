//! Completes digits of which the lower three sevenths are missing:
//! `cargo run --release --example inpaint -- RUN_DIR [OUT.png]`.
//!
//! A row of the picture is what is known of a test image, six completions, and the image itself. The run's data are the built-in
//! digits, or lie in the folder that `SPIKING_DATA_DIR` names.

use std::path::PathBuf;
use std::process::ExitCode;

use candle_core::{Device, Tensor};
use spiking_diffusion::data::{KnownSet, Partial, synthetic_digits};
use spiking_diffusion::{Error, Result, Silent, Trained, cli, inpaint, picture};

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IMAGES: usize = 8;
const COMPLETIONS: usize = 6;

fn main() -> ExitCode {
    cli::attempt("inpaint RUN_DIR [OUT.png]", complete)
}

fn complete() -> Result<()> {
    let mut words = std::env::args().skip(1).map(PathBuf::from);
    let run = words.next().ok_or_else(|| Error::config("RUN_DIR", "", "names a finished run"))?;
    let out = words.next().unwrap_or_else(|| "inpainted.png".into());
    let trained = Trained::load(&run, &Device::Cpu)?;
    let data = match KnownSet::named(&trained.cfg.data.name).filter(|_| !trained.cfg.data.synthetic) {
        None => synthetic_digits()?,
        Some(set) => {
            set.load(std::env::var_os("SPIKING_DATA_DIR").map(PathBuf::from).as_deref(), Partial::Reject)?
        }
    };

    let images = data.test.range(0..IMAGES, &Device::Cpu)?;
    let (height, seen) = (images.dim(2)?, images.dim(2)? * 4 / 7);
    let drawn = inpaint(&trained, &images, &|row, _| row < seen, COMPLETIONS, &Device::Cpu, &mut Silent)?;

    let hidden = images.narrow(2, seen, height - seen)?.zeros_like()?; // grey
    let known = Tensor::cat(&[images.narrow(2, 0, seen)?, hidden], 2)?;
    let row = |i: usize| -> Result<Tensor> {
        let completions = drawn.images.narrow(0, i * COMPLETIONS, COMPLETIONS)?;
        Ok(Tensor::cat(&[&known.narrow(0, i, 1)?, &completions, &images.narrow(0, i, 1)?], 0)?)
    };
    let rows = (0..IMAGES).map(row).collect::<Result<Vec<_>>>()?;
    picture::save_grid(&out, &Tensor::cat(&rows, 0)?, COMPLETIONS + 2)?;
    let kept = drawn.known.iter().filter(|known| **known).count();
    cli::print(&format!("{kept} of {} tokens known; look at {}", drawn.known.len(), out.display()))
        .map_err(Error::io(&out))
}
