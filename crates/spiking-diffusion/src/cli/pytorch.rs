//! The commands `import_pytorch` and `export_pytorch`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use snn_core::{Model, Seed};

use super::input::Input;
use super::signals::Signals;
use super::{answer, flags, parsed};
use crate::Progress;
use crate::data::{KnownSet, Partial};
use crate::error::{Error, Result};
use crate::pytorch;

/// Make a run of networks that the released PyTorch code has trained: codes, images and logits stay the same.
#[derive(Debug, Parser)]
#[command(
    name = "import_pytorch",
    after_help = "RUN is then a finished run for `generate`, `sweep`, `classify` and `export_pytorch`; of an FSVAE alone, for `export_pytorch`. \
    Nothing in a .pth file is ever executed."
)]
pub(super) struct Import {
    /// What the released code saves as model.pth: the state dict of its VQ-SVAE
    #[arg(long, value_name = "FILE", required_unless_present = "fsvae")]
    vqsvae: Option<PathBuf>,
    /// What it saves as diff_model.pth: the state dict of its denoiser
    #[arg(long, value_name = "FILE", required_unless_present = "fsvae")]
    sdid: Option<PathBuf>,
    /// Instead: the state dict of an FSVAE, of the released code or of the FSVAE paper's, which becomes RUN/fsvae.safetensors
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vqsvae", "sdid", "encode", "data_set", "allow_partial", "download"])]
    fsvae: Option<PathBuf>,
    /// The data set that they were trained on: mnist, fashion-mnist, kmnist, emnist-letters or cifar-10
    #[arg(long, value_name = "NAME", default_value = "mnist", value_parser = flags::data_set)]
    data_set: KnownSet,
    #[command(flatten)]
    input: Input,
    /// Take files that hold less than the official ones
    #[arg(long)]
    allow_partial: bool,
    /// Folder to write to: config.json, vqsvae.safetensors, sdid.safetensors
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
    /// Also write RUN/codes.safetensors, with the codes of the first N test images, and print their mean squared error
    #[arg(long, value_name = "N", value_parser = flags::count, allow_hyphen_values = true)]
    encode: Option<usize>,
}

/// Write the networks of a run as state dicts that the released PyTorch code loads.
#[derive(Debug, Parser)]
#[command(
    name = "export_pytorch",
    after_help = "In Python: `model.load_state_dict(torch.load('OUT/model.pth'))`, and the denoiser likewise from OUT/diff_model.pth."
)]
pub(super) struct Export {
    /// Folder of a finished run, or of an imported FSVAE (not a package of `pack`, whose weights may be rounded)
    #[arg(long, value_name = "RUN_DIR")]
    run: PathBuf,
    /// Folder to write model.pth and diff_model.pth to, or fsvae.pth
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The whole of the example `import_pytorch`.
pub fn import_pytorch() -> ExitCode {
    parsed(start_import)
}

/// The whole of the example `export_pytorch`.
pub fn export_pytorch() -> ExitCode {
    parsed(start_export)
}

pub(super) fn start_import(arguments: &Import) -> ExitCode {
    let signals = Signals::listen();
    match import(arguments, &mut signals.progress()) {
        Ok(text) => answer(&text),
        Err(e) => signals.failure(&e, "what was imported is there"),
    }
}

pub(super) fn start_export(arguments: &Export) -> ExitCode {
    let signals = Signals::listen();
    match export(arguments) {
        Ok(text) => answer(&text),
        Err(e) => signals.failure(&e, "nothing is half written"),
    }
}

fn import(arguments: &Import, progress: &mut dyn Progress) -> Result<String> {
    if arguments.out.join("config.json").exists() {
        return Err(Error::run(&arguments.out, "holds a run: name another folder"));
    }
    let (vqsvae, sdid) = match (&arguments.fsvae, &arguments.vqsvae, &arguments.sdid) {
        (Some(fsvae), ..) => return import_fsvae(fsvae, &arguments.out.join(FSVAE)),
        (None, Some(vqsvae), Some(sdid)) => (vqsvae, sdid),
        _ => return Err(Error::config("--vqsvae, --sdid", "none", "both are wanted, or --fsvae")),
    };
    if arguments.input.data_dir.is_none() && !arguments.input.download {
        let reason = "must name the folder with the images that the networks were trained on; or --download loads them";
        return Err(Error::config("--data-dir", "", reason));
    }
    let partial = Partial::when(arguments.allow_partial, Seed(0));
    let data = arguments.input.load(arguments.data_set, partial, progress)?;
    let images = data.test.len();
    if let Some(count) = arguments.encode.filter(|count| !(1..=images).contains(count)) {
        let reason = format!("must be at least 1 and at most {images}, the number of test images");
        return Err(Error::config("--encode", count, reason));
    }
    let trained = pytorch::import(vqsvae, sdid, &data, &arguments.out)?;
    let mut text = format!(
        "{}: a VQ-SVAE of {} codes and an SDID, {} time steps each, for {}",
        arguments.out.display(),
        trained.cfg.vqsvae.codes,
        trained.cfg.vqsvae.time_steps,
        data.name,
    );
    if let Some(count) = arguments.encode {
        let path = arguments.out.join("codes.safetensors");
        let mse = pytorch::encode(&trained, &data, count, &path, progress)?;
        text += &format!("\n{}: codes of the first {count} test images\nMSE {mse}", path.display());
    }
    Ok(text)
}

/// The file of an FSVAE in a folder.
const FSVAE: &str = "fsvae.safetensors";

fn import_fsvae(file: &Path, out: &Path) -> Result<String> {
    let model = pytorch::import_fsvae(file, out)?;
    let body = &model.config().body;
    let (latent, steps, image) = (body.latent, body.time_steps, body.image);
    Ok(format!("{}: an FSVAE of {latent} latent variables, {steps} time steps, for {image:?}", out.display()))
}

fn export(arguments: &Export) -> Result<String> {
    let fsvae = arguments.run.join(FSVAE);
    if fsvae.exists() {
        std::fs::create_dir_all(&arguments.out).map_err(Error::io(&arguments.out))?;
        let out = arguments.out.join("fsvae.pth");
        pytorch::export_fsvae(&fsvae, &out)?;
        return Ok(out.display().to_string());
    }
    let paths = pytorch::export(&arguments.run, &arguments.out)?;
    Ok(paths.map(|path| path.display().to_string()).join("\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        Import::command().debug_assert();
        Export::command().debug_assert();
        let parse = |words: &str| Import::try_parse_from(words.split(' '));
        let whole = "import_pytorch --vqsvae model.pth --sdid diff_model.pth --data-dir d --out r";
        let arguments = parse(&format!("{whole} --encode 100")).unwrap();
        assert_eq!((arguments.encode, arguments.data_set), (Some(100), KnownSet::Mnist));
        assert_eq!(parse(&format!("{whole} --data-set kmnist")).unwrap().data_set, KnownSet::Kmnist);
        for words in ["--encode -1", "--data-set imagenet", "--vqsvae again"] {
            assert!(parse(&format!("{whole} {words}")).is_err(), "{words}");
        }
        assert!(parse("import_pytorch --vqsvae model.pth --out r").is_err());
        assert!(parse("import_pytorch --fsvae best.pth --out r").unwrap().fsvae.is_some());
        assert!(parse(&format!("{whole} --fsvae best.pth")).is_err());
        assert!(Export::try_parse_from(["export_pytorch", "--run", "r"]).is_err());
    }

    #[test]
    fn what_cannot_be_imported_leaves_no_run_and_changes_none() {
        let folder = tempfile::tempdir().unwrap();
        let (run, new) = (folder.path().join("run"), folder.path().join("new"));
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("config.json"), "{}").unwrap();
        let refused = |words: &str, out: &Path| {
            let arguments = Import::try_parse_from(format!("import_pytorch --out o {words}").split(' '));
            let mut arguments = Import { out: out.to_owned(), ..arguments.unwrap() };
            if !words.contains("--data-dir") {
                arguments.input = Input::default(); // Whatever the environment names.
            }
            import(&arguments, &mut crate::Silent).unwrap_err().to_string()
        };
        let networks = "--vqsvae model.pth --sdid diff_model.pth";
        for words in ["--fsvae best.pth", networks] {
            assert!(refused(words, &run).contains("holds a run"), "{words}");
        }
        assert_eq!(std::fs::read_dir(&run).unwrap().count(), 1);
        assert!(refused(networks, &new).contains("`--data-dir`"));
        let images = folder.path().join("mnist");
        std::fs::create_dir(&images).unwrap();
        for (split, n) in [("train", 3u8), ("t10k", 2)] {
            let of_images =
                [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28][..], &vec![9; n as usize * 784]];
            std::fs::write(images.join(format!("{split}-images-idx3-ubyte")), of_images.concat()).unwrap();
            let of_labels = [&[0, 0, 8, 1, 0, 0, 0, n][..], &vec![1; n as usize]].concat();
            std::fs::write(images.join(format!("{split}-labels-idx1-ubyte")), of_labels).unwrap();
        }
        let data = format!("--allow-partial --data-dir {}", images.display());
        for count in ["0", "3"] {
            let error = refused(&format!("{networks} {data} --encode {count}"), &new);
            assert!(error.contains(&format!("`--encode` = {count}: must be at least 1")), "{error}");
        }
        assert!(!new.exists());
    }
}
