//! Absorbing-state discrete diffusion over code maps, with a spiking denoiser
