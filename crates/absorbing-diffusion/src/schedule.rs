//! A number that changes over the steps of sampling.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A number that may change from the first step of sampling to the last, such as the temperature.
///
/// In a config file it is a number, or `{"from": 1.0, "to": 0.6}`.
///
/// # Examples
/// ```
/// use absorbing_diffusion::Schedule;
/// let cooling = Schedule::Linear { from: 1., to: 0.5 };
/// assert_eq!([3, 2, 1].map(|left| cooling.at(left, 3)), [1., 0.75, 0.5]);
/// assert_eq!(Schedule::from(0.8).at(2, 3), 0.8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = r#"a number, or {"from": a number, "to": a number}"#)]
pub enum Schedule {
    /// The same number at every step.
    Constant(f64),
    /// A straight line over the steps.
    Linear {
        /// The number of the first step, in which all tokens are masked; and of the only one, if there is but one.
        from: f64,
        /// The number of the last step.
        to: f64,
    },
}

impl Schedule {
    /// The number of the step with `left` of `steps` steps left, itself included: `left` runs from `steps` down to 1.
    #[must_use]
    pub fn at(self, left: usize, steps: usize) -> f64 {
        match self {
            Self::Constant(value) => value,
            Self::Linear { from, to } => {
                let done = steps.saturating_sub(left) as f64 / steps.saturating_sub(1).max(1) as f64;
                from * (1. - done) + to * done
            }
        }
    }

    /// Checks both ends of the line, or the one number.
    pub(crate) fn validate(self, field: &str, reason: &str, fits: impl Fn(f64) -> bool) -> Result<()> {
        let check = |field: &str, value: f64| match fits(value) {
            true => Ok(()),
            false => Err(Error::config(field, value, reason)),
        };
        match self {
            Self::Constant(value) => check(field, value),
            Self::Linear { from, to } => {
                check(&format!("{field}.from"), from)?;
                check(&format!("{field}.to"), to)
            }
        }
    }
}

impl From<f64> for Schedule {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => value.fmt(f),
            Self::Linear { from, to } => write!(f, "{from} to {to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_say() {
        let line = Schedule::Linear { from: 0.7, to: 1.1 };
        for steps in [2, 3, 10, 49] {
            assert_eq!((line.at(steps, steps), line.at(1, steps)), (0.7, 1.1));
            let numbers: Vec<f64> = (1..=steps).rev().map(|left| line.at(left, steps)).collect();
            let step = 0.4 / (steps - 1) as f64;
            assert!(numbers.windows(2).all(|pair| (pair[1] - pair[0] - step).abs() < 1e-12));
        }
        assert_eq!((line.at(1, 1), Schedule::Constant(3.).at(1, 1)), (0.7, 3.));
    }

    #[test]
    fn a_file_holds_a_number_or_both_ends() {
        for (schedule, text, words) in [
            (Schedule::Constant(0.65), "0.65", "0.65"),
            (Schedule::Linear { from: 1., to: 0.5 }, r#"{"from":1.0,"to":0.5}"#, "1 to 0.5"),
        ] {
            assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
            assert_eq!(serde_json::from_str::<Schedule>(text).unwrap(), schedule);
            assert_eq!(schedule.to_string(), words);
        }
        assert_eq!(serde_json::from_str::<Schedule>("1").unwrap(), Schedule::Constant(1.));
        for bad in [r#"{"from":1}"#, r#"{"from":1,"to":2,"by":3}"#, r#""warm""#, "null"] {
            let message = serde_json::from_str::<Schedule>(bad).unwrap_err().to_string();
            assert!(message.contains("a number, or {\"from\""), "{message}");
        }
    }
}
