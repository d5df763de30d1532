//! What is said of a device: where a value lies on a threshold, numbers follow from it.

use std::path::Path;

use candle_core::{Device, DeviceLocation};
use serde::{Deserialize, Serialize};
use snn_core::Precision;
use snn_train::{RunDir, read_json};

use crate::error::{Error, Result};

/// Where the folder of a run says its kind, unless that is the CPU's.
const FILE: &str = "device.json";

/// The kind of a device, and how exactly it computes products, by the names that flags have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Kind {
    pub(super) device: &'static str,
    pub(super) precision: &'static str,
}

/// A kind, as a file names it.
#[derive(Deserialize)]
struct Named {
    device: String,
    precision: String,
}

impl Kind {
    pub(super) fn of(device: &Device) -> Self {
        match device.location() {
            DeviceLocation::Cpu => Self::CPU,
            DeviceLocation::Cuda { .. } => Self { device: "cuda", precision: Precision::in_use().name() },
            DeviceLocation::Metal { .. } => Self { device: "metal", ..Self::CPU },
        }
    }

    pub(super) const CPU: Self = Self { device: "cpu", precision: "f32" };

    /// Writes the kind into the folder of a run that begins, unless it is the CPU's. A run that had begun before must be of the same.
    pub(super) fn keep(self, run: &RunDir, begun: bool) -> Result<()> {
        if !begun {
            return if self == Self::CPU { Ok(()) } else { Ok(run.write_json(FILE, &self)?) };
        }
        match self.difference(run.path())? {
            None => Ok(()),
            Some(difference) => Err(Error::run(
                run.path(),
                format!(
                    "holds a run that was begun elsewhere: {difference}; repeat that run's own \
                     command (--device, --precision) with --resume, or name another folder with --out"
                ),
            )),
        }
    }

    /// In what the run of a folder is of another kind, if it is.
    pub(super) fn difference(self, run: &Path) -> Result<Option<String>> {
        let file = run.join(FILE);
        let [device, precision] = if file.exists() {
            let Named { device, precision } = read_json(&file)?;
            [device, precision]
        } else {
            [Self::CPU.device, Self::CPU.precision].map(str::to_owned)
        };
        let fields = [("device", device, self.device), ("precision", precision, self.precision)];
        let differs = fields.into_iter().find(|(_, there, here)| there != here);
        Ok(differs.map(|(field, there, here)| format!("`{field}` is {there} there and {here} here")))
    }
}

/// What kind it is, in words for people.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.device, self.products())
    }
}

impl Kind {
    /// The precision, where it is not f32.
    fn products(self) -> String {
        match self.precision {
            "f32" => String::new(),
            less => format!(" ({less})"),
        }
    }
}

/// Its name in a report.
pub(super) fn name(device: &Device) -> String {
    let precision = Kind::of(device).products();
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}{precision}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_by_the_kind_that_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::open(folder.path(), &1, false).unwrap();
        let gpu = Kind { device: "cuda", precision: "tf32" };
        let refused = |kind: Kind| kind.keep(&run, true).unwrap_err().to_string();
        Kind::CPU.keep(&run, false).unwrap();
        Kind::CPU.keep(&run, true).unwrap();
        assert!(!run.file(FILE).exists());
        assert!(refused(gpu).contains("`device` is cpu there and cuda here"), "{}", refused(gpu));
        gpu.keep(&run, false).unwrap();
        gpu.keep(&run, true).unwrap();
        assert!(refused(Kind::CPU).contains("`device` is cuda there and cpu here"));
        let coarse = Kind { precision: "bf16", ..gpu };
        assert!(refused(coarse).contains("`precision` is tf32 there and bf16 here"));
        run.write_json(FILE, &["cuda"]).unwrap();
        assert!(refused(gpu).contains("device.json"), "{}", refused(gpu));
    }
}
