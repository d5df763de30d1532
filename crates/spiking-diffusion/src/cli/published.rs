//! What papers have published, for tables to stand beside.

/// Spiking-Diffusion's and FSVAE's numbers in the paper's Table 1, in the order MSE, 1 - SSIM, KID, FID.
pub(super) fn paper(dataset: &str) -> Option<[[f64; 4]; 2]> {
    Some(match dataset {
        "mnist" => [[0.006, 0.077, 0.018, 37.50], [0.023, 0.219, 0.054, 90.57]],
        "fashion-mnist" => [[0.011, 0.233, 0.055, 91.98], [0.023, 0.378, 0.070, 113.2]],
        "kmnist" => [[0.014, 0.151, 0.068, 59.23], [0.054, 0.452, 0.272, 166.9]],
        "emnist-letters" => [[0.005, 0.078, 0.075, 67.41], [0.015, 0.180, 0.140, 95.96]],
        "cifar-10" => [[0.009, 0.399, 0.121, 120.5], [0.024, 0.689, 0.181, 218.6]],
        _ => return None,
    })
}

/// FAD as others have published it, with the number of generated images.
pub(super) fn fad(dataset: &str) -> &'static [(&'static str, f64, usize)] {
    match dataset {
        "mnist" => &[("FSVAE", 35.54, 5120), ("ESVAE", 10.99, 5120), ("FSDDIM", 3.62, 10_000)],
        "fashion-mnist" => &[("FSVAE", 15.75, 5120), ("ESVAE", 11.13, 5120), ("FSDDIM", 4.91, 10_000)],
        _ => &[],
    }
}
