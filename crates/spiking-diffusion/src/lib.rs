//! Spiking-Diffusion end to end: data, training, sampling, evaluation and reports
