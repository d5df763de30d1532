//! Image and distribution metrics for generative models: MSE, SSIM, Fréchet and kernel distances
