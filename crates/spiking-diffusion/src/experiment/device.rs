//! What is said of a device: where a value lies on a threshold, numbers follow from it.

use candle_core::{Device, DeviceLocation};
use serde::Serialize;
use snn_core::Precision;

/// The kind of a device, and how exactly it computes products, by the names that flags have for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Kind {
    pub(super) device: &'static str,
    pub(super) precision: &'static str,
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
}

/// Its name in a report.
pub(super) fn name(device: &Device) -> String {
    let precision = match Kind::of(device).precision {
        "f32" => String::new(),
        less => format!(" ({less})"),
    };
    match device.location() {
        DeviceLocation::Cpu => "cpu".to_owned(),
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}{precision}"),
        DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
