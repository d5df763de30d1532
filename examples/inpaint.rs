//! Completes digits of which the lower three sevenths are missing:
//! `cargo run --release --example inpaint -- RUN_DIR [OUT.png]`.
//!
//! A row of the picture is what is known of a test image, six completions, and the image itself. The run's data are the built-in
//! digits, or lie in the folder that `SPIKING_DATA_DIR` names.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use candle_core::{Device, Tensor};
use spiking_diffusion::data::{Dataset, KnownSet, Partial, synthetic_digits};
use spiking_diffusion::{Error, Result, Silent, Trained, cli, inpaint, picture};

/// Keeps the large blocks of freed tensors: about twice as fast as the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IMAGES: usize = 8;
const COMPLETIONS: usize = 6;

fn main() -> ExitCode {
    cli::attempt("inpaint RUN_DIR [OUT.png]", complete)
}

fn complete(words: &[OsString]) -> Result<()> {
    let (run, out) = match words {
        [run] => (Path::new(run), Path::new("inpainted.png")),
        [run, out] => (Path::new(run), Path::new(out)),
        _ => return Err(Error::config("words", words.len(), "there must be one or two")),
    };
    let trained = Trained::load(run, &Device::Cpu)?;
    let data = data_of(&trained)?;

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
    picture::save_grid(out, &Tensor::cat(&rows, 0)?, COMPLETIONS + 2)?;
    let kept = drawn.known.iter().filter(|known| **known).count();
    cli::print(&format!("{kept} of {} tokens known; look at {}", drawn.known.len(), out.display()))
        .map_err(Error::io(out))
}

/// Images of the kind that the run was trained on, and of no other.
fn data_of(trained: &Trained) -> Result<Dataset> {
    let (name, digits) = (&trained.cfg.data.name, synthetic_digits()?);
    if *name == digits.name {
        return Ok(digits);
    }
    let unknown = || Error::config("data.name", name, "no data set of that name is known here");
    let set = KnownSet::named(name).ok_or_else(unknown)?;
    match std::env::var_os("SPIKING_DATA_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => set.load(Some(Path::new(&folder)), Partial::Reject),
        None => {
            let reason = format!("must name the folder with {name}, which the run was trained on");
            Err(Error::config("SPIKING_DATA_DIR", "", reason))
        }
    }
}
