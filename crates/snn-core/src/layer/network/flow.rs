//! How a signal goes through the parts of a network, written once: training, observing, stepping and prepared networks differ in
//! who runs the spiking layers.

use candle_core::{Result, Tensor};

use crate::layer::drive::Finish;
use crate::{Drive, Pool, Readout, SewFunction, direct_encode};

/// A part of a network; `S` is what runs spiking layers in a row.
#[derive(Clone, Debug)]
pub(super) enum Part<S> {
    Layers(S),
    Flatten,
    Pool(Pool),
    /// What goes through its layers, and what goes round them, joined.
    Residual {
        through: Vec<Part<S>>,
        round: Vec<Part<S>>,
        join: SewFunction,
    },
}

impl<S> Part<S> {
    /// The same part with other spiking layers.
    pub(super) fn convert<R>(&self, f: &dyn Fn(&S) -> Result<R>) -> Result<Part<R>> {
        let all = |parts: &[Self]| parts.iter().map(|part| part.convert(f)).collect::<Result<Vec<_>>>();
        Ok(match self {
            Self::Layers(layers) => Part::Layers(f(layers)?),
            Self::Flatten => Part::Flatten,
            Self::Pool(pool) => Part::Pool(*pool),
            Self::Residual { through, round, join } => {
                Part::Residual { through: all(through)?, round: all(round)?, join: *join }
            }
        })
    }
}

/// Runs the spiking layers of a network.
pub(super) trait Runner<'a, S> {
    /// The layers of the part `name`, whose own names are `<name>.0`, `<name>.1`, ...
    fn run(&mut self, name: &str, layers: &'a S, drive: Drive<'_>, finish: Finish<'_>) -> Result<Tensor>;

    /// The layers of two parts, and between them a flattening.
    fn run_flattening(
        &mut self,
        parts: [(&str, &'a S); 2],
        drive: Drive<'_>,
        finish: Finish<'_>,
    ) -> Result<Tensor> {
        one_by_one(self, parts, drive, finish)
    }

    /// What a part without neurons has made of spikes.
    fn made(&mut self, _name: &str, _spikes: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// Runs a part, flattens what it makes, and runs the other.
pub(super) fn one_by_one<'a, S>(
    runner: &mut (impl Runner<'a, S> + ?Sized),
    [(first, maps), (second, features)]: [(&str, &'a S); 2],
    drive: Drive<'_>,
    finish: Finish<'_>,
) -> Result<Tensor> {
    let spikes = runner.run(first, maps, drive, Finish::Spikes)?.flatten_from(2)?;
    runner.run(second, features, Drive::Spikes(&spikes), finish)
}

/// What goes from part to part.
#[derive(Clone, Debug)]
pub(super) enum Signal {
    Spikes(Tensor),
    Constant(Tensor, usize),
}

impl Signal {
    pub(super) fn of(drive: Drive<'_>) -> Self {
        match drive {
            Drive::Spikes(xs) => Self::Spikes(xs.clone()),
            Drive::Constant(x, time_steps) => Self::Constant(x.clone(), time_steps),
        }
    }

    fn drive(&self) -> Drive<'_> {
        match self {
            Self::Spikes(xs) => Drive::Spikes(xs),
            Self::Constant(x, time_steps) => Drive::Constant(x, *time_steps),
        }
    }

    /// `[T, N, ...]`, whatever it was.
    pub(super) fn spikes(&self) -> Result<Tensor> {
        match self {
            Self::Spikes(xs) => Ok(xs.clone()),
            Self::Constant(x, time_steps) => direct_encode(x, *time_steps),
        }
    }

    fn flatten(&self) -> Result<Self> {
        match self {
            Self::Spikes(xs) => Ok(Self::Spikes(xs.flatten_from(2)?)),
            Self::Constant(x, time_steps) => Ok(Self::Constant(x.flatten_from(1)?, *time_steps)),
        }
    }

    fn pool(&self, pool: Pool) -> Result<Self> {
        match self {
            Self::Spikes(xs) => Ok(Self::Spikes(pool.apply(xs)?)),
            Self::Constant(x, time_steps) => Ok(Self::Constant(pool.apply(x)?, *time_steps)),
        }
    }
}

/// Sends a signal through parts, the names of which begin with `prefix`.
pub(super) fn flow<'a, S>(
    parts: &'a [Part<S>],
    prefix: &str,
    signal: Signal,
    runner: &mut dyn Runner<'a, S>,
) -> Result<Signal> {
    let (mut signal, mut i) = (signal, 0);
    let name = |i: usize| format!("{prefix}{i}");
    while let Some(part) = parts.get(i) {
        if let [Part::Layers(first), Part::Flatten, Part::Layers(second), ..] = &parts[i..] {
            let layers = [(&*name(i), first), (&*name(i + 2), second)];
            signal = Signal::Spikes(runner.run_flattening(layers, signal.drive(), Finish::Spikes)?);
            i += 3;
            continue;
        }
        signal = through_part(part, &name(i), signal, runner)?;
        i += 1;
    }
    Ok(signal)
}

fn through_part<'a, S>(
    part: &'a Part<S>,
    name: &str,
    signal: Signal,
    runner: &mut dyn Runner<'a, S>,
) -> Result<Signal> {
    let made = match part {
        Part::Layers(layers) => {
            return Ok(Signal::Spikes(runner.run(name, layers, signal.drive(), Finish::Spikes)?));
        }
        Part::Flatten => return signal.flatten(),
        Part::Pool(pool) => signal.pool(*pool)?,
        Part::Residual { through, round, join } => {
            let made = flow(through, &format!("{name}."), signal.clone(), runner)?;
            let passed = flow(round, &format!("{name}.shortcut."), signal, runner)?;
            Signal::Spikes(join.join(&made.spikes()?, &passed.spikes()?)?)
        }
    };
    if let Signal::Spikes(spikes) = &made {
        runner.made(name, spikes)?;
    }
    Ok(made)
}

/// The sum over time of what comes out of the last part. Where that is spiking layers, flattened or not, their spikes are never
/// stored.
pub(super) fn flow_to_sum<'a, S>(
    parts: &'a [Part<S>],
    signal: Signal,
    readout: Readout,
    runner: &mut dyn Runner<'a, S>,
) -> Result<Tensor> {
    let (parts, flat) = match parts {
        [parts @ .., Part::Flatten] => (parts, true),
        _ => (parts, false),
    };
    let (finish, name) = (Finish::Sums(std::slice::from_ref(&readout)), |part: usize| part.to_string());
    let sum = match parts {
        [before @ .., Part::Layers(first), Part::Flatten, Part::Layers(last)] => {
            let (signal, at) = (flow(before, "", signal, runner)?, before.len());
            let layers = [(&*name(at), first), (&*name(at + 2), last)];
            runner.run_flattening(layers, signal.drive(), finish)?.squeeze(0)?
        }
        [before @ .., Part::Layers(last)] => {
            let signal = flow(before, "", signal, runner)?;
            runner.run(&name(before.len()), last, signal.drive(), finish)?.squeeze(0)?
        }
        _ => readout.apply(&flow(parts, "", signal, runner)?.spikes()?)?,
    };
    if flat { sum.flatten_from(1) } else { Ok(sum) }
}
