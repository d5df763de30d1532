//! Values of flags, with reasons of our own for those that are refused.
//!
//! What starts with a hyphen must reach them: each flag that takes a number has `allow_hyphen_values`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::data::KnownSet;
use crate::error::{Error, Result};
use crate::experiment::GIBBS;

use absorbing_diffusion::{Order, Schedule};

type Parsed<T> = std::result::Result<T, String>;

/// How many of something. (As many as fit 32 bits, so that products of two do not overflow.)
pub(super) fn count(text: &str) -> Parsed<usize> {
    let reason = || format!("must be a whole number from 0 to {}", u32::MAX);
    text.parse::<u32>().map(|n| n as usize).map_err(|_| reason())
}

/// A seed.
pub(super) fn seed(text: &str) -> Parsed<u64> {
    text.parse().map_err(|_| format!("must be a whole number from 0 to {}", u64::MAX))
}

/// The name of a data set.
pub(super) fn data_set(name: &str) -> Parsed<KnownSet> {
    KnownSet::named(name).ok_or_else(|| format!("known are {}", KnownSet::ALL.map(KnownSet::name).join(", ")))
}

/// A factor or a divisor.
pub(super) fn positive(text: &str) -> Parsed<f64> {
    number(text, "must be a positive, finite number", |t| t.is_finite() && t > 0.)
}

/// A temperature, or the first and the last with two dots between.
pub(super) fn temperatures(text: &str) -> Parsed<Schedule> {
    schedule(text, positive)
}

/// How far images are guided towards their class: one number, or the first and the last with two dots between.
pub(super) fn guidance(text: &str) -> Parsed<Schedule> {
    schedule(text, |text| number(text, "must be a finite number, not negative", |g| g.is_finite() && g >= 0.))
}

fn schedule(text: &str, value: impl Fn(&str) -> Parsed<f64>) -> Parsed<Schedule> {
    match text.split_once("..") {
        Some((from, to)) => Ok(Schedule::Linear { from: value(from)?, to: value(to)? }),
        None => Ok(Schedule::Constant(value(text)?)),
    }
}

pub(super) const CONFIDENCE: Order = Order::Confidence { noise: 3. };
pub(super) const REMASKING: Order = Order::Remasking { cap: 0.1 };

/// An order of revealing, by its name in a config file; the last three with numbers of their own.
pub(super) fn order(text: &str) -> Parsed<Order> {
    match text {
        "posterior" => Ok(Order::Posterior),
        "exact_k" => Ok(Order::ExactK),
        "halton" => Ok(Order::Halton),
        "confidence" => Ok(CONFIDENCE),
        "remasking" => Ok(REMASKING),
        "gibbs" => Ok(GIBBS),
        _ => Err("must be posterior, exact_k, halton, confidence, remasking or gibbs".to_owned()),
    }
}

/// A class.
pub(super) fn class(text: &str) -> Parsed<u32> {
    text.parse().map_err(|_| "must be the number of a class, from 0".to_owned())
}

/// A probability.
pub(super) fn probability(text: &str) -> Parsed<f64> {
    number(text, "must be a number in [0, 1]", |p| (0. ..=1.).contains(&p))
}

fn number(text: &str, reason: &str, fits: impl Fn(f64) -> bool) -> Parsed<f64> {
    text.parse().ok().filter(|&x| fits(x)).ok_or_else(|| reason.to_owned())
}

/// Refuses the first of these flags that was given, with its value.
pub(super) fn refuse<'a>(
    given: impl IntoIterator<Item = (&'a str, Option<String>)>,
    reason: &str,
) -> Result<()> {
    match given.into_iter().find_map(|(flag, value)| Some((flag, value?))) {
        Some((flag, value)) => Err(Error::config(flag, value, reason)),
        None => Ok(()),
    }
}

/// The variable that names weights of the FID network.
pub(super) const INCEPTION: &str = "SPIKING_INCEPTION";
/// The variable that names a folder with data sets.
pub(super) const DATA_DIR: &str = "SPIKING_DATA_DIR";

/// The path that an environment variable names: one that is empty counts as unset.
pub(super) fn path_of(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// This environment variable as the default of a flag: one that is empty counts as unset.
pub(super) fn variable(name: &'static str) -> Option<&'static str> {
    unless_empty(name, std::env::var_os(name))
}

fn unless_empty(name: &'static str, value: Option<OsString>) -> Option<&'static str> {
    (value.as_deref() != Some(OsStr::new(""))).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_refused_with_their_range() {
        assert_eq!((count("0"), count("4294967295"), seed("7")), (Ok(0), Ok(u32::MAX as usize), Ok(7)));
        for text in ["-1", "1.5", "nan", "inf", "", "x", "4294967296", "1e3"] {
            assert!(count(text).unwrap_err().contains("whole number from 0 to 4294967295"), "{text}");
        }
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert!(seed("-1").unwrap_err().contains("from 0 to 18446744073709551615"));
        assert_eq!((positive("0.75"), probability("1")), (Ok(0.75), Ok(1.)));
        for text in ["-1", "0", "nan", "inf", "-inf", "1e999", "", "warm"] {
            assert!(positive(text).unwrap_err().contains("positive, finite"), "{text}");
        }
        let line = |from, to| Ok(Schedule::Linear { from, to });
        assert_eq!((temperatures("1..0.5"), guidance("0..4")), (line(1., 0.5), line(0., 4.)));
        assert_eq!((temperatures("2"), guidance("0")), (Ok(2f64.into()), Ok(0f64.into())));
        for text in ["1..", "..1", "1..0", "1..2..3", "-1"] {
            assert!(temperatures(text).unwrap_err().contains("positive, finite"), "{text}");
        }
        assert!(guidance("2..-1").unwrap_err().contains("not negative"));
        assert_eq!((order("halton"), order("up").is_err()), (Ok(Order::Halton), true));
        for text in ["-0.1", "1.1", "nan", "inf", "likely"] {
            assert!(probability(text).unwrap_err().contains("[0, 1]"), "{text}");
        }
    }

    #[test]
    fn an_empty_variable_is_unset() {
        assert_eq!(unless_empty("V", Some("".into())), None);
        assert_eq!((unless_empty("V", Some(" ".into())), unless_empty("V", None)), (Some("V"), Some("V")));
    }
}
