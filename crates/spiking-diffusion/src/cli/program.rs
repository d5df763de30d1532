//! The program `spiking-diffusion`: every command under one name.

use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::threads::leave_work_to_rayon;
use super::{Arguments, classify, fid, generate, pack, pytorch, sweep, table1, train, usage};
use crate::data::KnownSet;
use crate::experiment::Starter;

/// Generate images with spiking neural networks: train, sample, measure, compare.
#[derive(Debug, Parser)]
#[command(
    name = "spiking-diffusion",
    version,
    propagate_version = true,
    after_help = "`spiking-diffusion train mnist` needs no files: it trains on digits that it draws itself. Every command \
    has a --help of its own."
)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(Box<Train>),
    Generate(Box<generate::Arguments>),
    Sweep(Box<sweep::Arguments>),
    Classify(Box<classify::Arguments>),
    Fid(Box<fid::Arguments>),
    Table1(Box<table1::Arguments>),
    Pack(Box<pack::Arguments>),
    #[command(name = "import_pytorch", alias = "import-pytorch")]
    ImportPytorch(Box<pytorch::Import>),
    #[command(name = "export_pytorch", alias = "export-pytorch")]
    ExportPytorch(Box<pytorch::Export>),
}

#[derive(Debug, Args)]
struct Train {
    /// The data set to train on
    #[arg(value_name = "DATA_SET", value_parser = data_sets())]
    data_set: KnownSet,
    #[command(flatten)]
    arguments: Arguments,
}

/// Takes the data sets' names, and those of their examples.
fn data_sets() -> impl TypedValueParser<Value = KnownSet> {
    let is = |set: &KnownSet, name: &str| set.name() == name || Starter::example(*set) == name;
    let values = KnownSet::ALL.map(|set| PossibleValue::new(set.name()).alias(Starter::example(set)));
    let unknown = "no such data set";
    PossibleValuesParser::new(values)
        .try_map(move |name| KnownSet::ALL.into_iter().find(|set| is(set, &name)).ok_or(unknown))
}

/// Runs the whole of the program `spiking-diffusion`.
#[must_use]
pub fn program() -> ExitCode {
    leave_work_to_rayon();
    let matches = Program::command().try_get_matches();
    let program = match matches.and_then(|matches| Program::from_arg_matches(&matches)) {
        Ok(program) => program,
        Err(e) => return usage(&e),
    };
    match program.command {
        Command::Train(it) => train(it.data_set, &it.arguments, Starter::Program),
        Command::Generate(arguments) => generate::start(&arguments),
        Command::Sweep(arguments) => sweep::start(&arguments),
        Command::Classify(arguments) => classify::start(&arguments),
        Command::Fid(arguments) => fid::start(&arguments),
        Command::Table1(arguments) => table1::start(&arguments),
        Command::Pack(arguments) => pack::start(&arguments),
        Command::ImportPytorch(arguments) => pytorch::start_import(&arguments),
        Command::ExportPytorch(arguments) => pytorch::start_export(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> std::result::Result<Program, clap::Error> {
        Program::from_arg_matches(&Program::command().try_get_matches_from(words.split(' '))?)
    }

    #[test]
    fn the_command_is_sound() {
        Program::command().debug_assert();
    }

    #[test]
    fn every_data_set_is_trained_by_its_name_or_its_examples() {
        for set in KnownSet::ALL {
            for name in [set.name(), Starter::example(set)] {
                let words = format!("spiking-diffusion train {name} --seed 7 --preset cpu");
                let Command::Train(it) = parse(&words).unwrap().command else { panic!("{words}") };
                assert_eq!((it.data_set, it.arguments.seed), (set, 7));
            }
        }
        for words in ["", " train", " train imagenet", " mnist", " train mnist kmnist"] {
            assert!(parse(&format!("spiking-diffusion{words}")).is_err(), "{words:?}");
        }
    }

    #[test]
    fn every_command_explains_itself_and_has_the_version() {
        let names = [
            "train",
            "generate",
            "sweep",
            "classify",
            "fid",
            "table1",
            "pack",
            "import_pytorch",
            "export_pytorch",
        ];
        let listed: Vec<String> =
            Program::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert_eq!(listed, names);
        for name in names {
            let said =
                |flag: &str| parse(&format!("spiking-diffusion {name} {flag}")).unwrap_err().to_string();
            assert!(said("--version").contains(env!("CARGO_PKG_VERSION")), "{name}");
            let help = said("--help");
            assert!(help.contains(&format!("Usage: spiking-diffusion {name}")), "{help}");
            assert!(help.lines().next().is_some_and(|line| line.len() > 20), "{help}");
        }
        let help = parse("spiking-diffusion generate --help").unwrap_err().to_string();
        assert!(help.contains("--temperature <T>") && !help.contains("sweep"), "{help}");
    }
}
