//! What is said of a device: numbers may follow from it where a value lies on a threshold.

use candle_core::{Device, DeviceLocation};
use snn_core::Precision;

/// Which kind it is, as the flags of the programs have it, and how exactly it computes products where that is not f32: `cuda`, `Some("tf32")`.
/// None for a CPU.
pub(super) fn kind(device: &Device) -> Option<(&'static str, Option<&'static str>)> {
    match device.location() {
        DeviceLocation::Cpu => None,
        DeviceLocation::Cuda { .. } => {
            Some(("cuda", Some(Precision::in_use()).filter(|it| *it != Precision::F32).map(Precision::name)))
        }
        DeviceLocation::Metal { .. } => Some(("metal", None)),
    }
}

/// Its name in a report.
pub(super) fn name(device: &Device) -> String {
    let precision = kind(device).and_then(|(_, precision)| precision);
    let precision = precision.map_or(String::new(), |precision| format!(" ({precision})"));
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}{precision}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
