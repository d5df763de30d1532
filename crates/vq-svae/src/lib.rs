//! A vector-quantised spiking autoencoder: images to discrete codes and back
