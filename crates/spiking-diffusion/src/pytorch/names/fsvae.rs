//! The FSVAE of the released Spiking-Diffusion code, and that of the FSVAE paper.

use fsvae::FsvaeConfig;
use snn_core::Norm;

use super::{Entry, What, conv, layer, parameter};

/// Whether a network of this config is that of the released Spiking-Diffusion code, by its names there, and not that of the FSVAE paper.
pub(in crate::pytorch) fn is_table1(cfg: &FsvaeConfig) -> bool {
    cfg.chains.norm == Norm::None
}

/// What an FSVAE's tensors are called.
pub(in crate::pytorch) struct Fsvae<'a>(pub(in crate::pytorch) &'a FsvaeConfig);

impl Fsvae<'_> {
    /// The sum over time, and the axis of its five that is the time.
    pub(in crate::pytorch) fn coefficients(&self) -> (&'static str, usize) {
        ("membrane_output_layer.coef", if is_table1(self.0) { 0 } else { 4 })
    }

    /// The kernel of convolution `i` of the encoder, its 1x1 convolution included.
    pub(in crate::pytorch) fn encoder(&self, i: usize) -> String {
        if is_table1(self.0) { format!("encoder.snn_convs.{}", 3 * i) } else { format!("encoder.{i}") }
    }

    /// Transposed convolution `i` of the decoder; the head is the one after the last.
    pub(in crate::pytorch) fn decoder(&self, i: usize) -> String {
        let last = self.0.body.decoder.len() - 1;
        match i {
            i if is_table1(self.0) => format!("decoder.snn_convs.{}", 3 * i),
            i if i < last => format!("decoder.{i}"),
            i => format!("final_layer.{}", i - last),
        }
    }

    /// Layer `i` of the prior or posterior.
    pub(in crate::pytorch) fn chain(&self, chain: &str, i: usize) -> String {
        format!("{chain}.layers.{}", if is_table1(self.0) { 2 * i } else { i })
    }

    /// The linear layer to the latent variables, or from them.
    pub(in crate::pytorch) fn linear(&self, name: &str) -> String {
        if is_table1(self.0) { format!("{name}.0") } else { name.to_owned() }
    }

    /// The whole state dict.
    pub(in crate::pytorch) fn entries(&self) -> Vec<Entry> {
        let (cfg, body) = (self.0, &self.0.body);
        let flat = body.latent_map().iter().product();
        let (mut entries, mut c_in) = (Vec::new(), body.image[0]);
        let convolutions = body.encoder.iter().map(|c| (*c, 3)).chain(body.mix.map(|c| (c, 1)));
        for (i, (c_out, side)) in convolutions.enumerate() {
            let kernel = [c_out, c_in, side, side];
            entries.extend(self.map(&format!("encoder.{i}"), &self.encoder(i), kernel, c_out));
            c_in = c_out;
        }
        for (i, &c_out) in body.decoder.iter().enumerate() {
            entries.extend(self.map(&format!("decoder.{i}"), &self.decoder(i), [c_in, c_out, 3, 3], c_out));
            c_in = c_out;
        }
        entries.extend(self.head(c_in));
        let (to, from) = (self.linear("before_latent_layer"), self.linear("decoder_input"));
        entries.extend(self.features("to_latent", &to, [flat, body.latent]));
        entries.extend(self.features("from_latent", &from, [body.latent, flat]));
        for (chain, mut c_in) in [("posterior", 2 * body.latent), ("prior", body.latent)] {
            for (i, &c_out) in cfg.hidden.iter().chain([&(cfg.candidates * body.latent)]).enumerate() {
                entries.extend(self.features(&format!("{chain}.{i}"), &self.chain(chain, i), [c_in, c_out]));
                c_in = c_out;
            }
            let zeros = if is_table1(cfg) { vec![1, 1, body.latent] } else { vec![1, body.latent, 1] };
            entries.push(Entry { theirs: format!("{chain}.initial_input"), what: What::Zeros(zeros) });
        }
        let (theirs, axis) = self.coefficients();
        entries
            .push(Entry { theirs: theirs.into(), what: What::Coefficients { readout: body.readout, axis } });
        entries
    }

    fn map(&self, ours: &str, theirs: &str, kernel: [usize; 4], c_out: usize) -> Vec<Entry> {
        if is_table1(self.0) {
            let (part, place) = theirs.rsplit_once('.').unwrap_or((theirs, "0"));
            return layer(ours, part, place.parse().unwrap_or(0), kernel, c_out);
        }
        let mut entries = vec![
            parameter(
                format!("{ours}.conv.weight"),
                format!("{theirs}.weight"),
                &[&kernel[..], &[1]].concat(),
            ),
            parameter(format!("{ours}.conv.bias"), format!("{theirs}.bias"), &[c_out]),
        ];
        entries.extend(super::norm(&format!("{ours}.bn"), &format!("{theirs}.bn"), c_out));
        entries
    }

    fn head(&self, c_in: usize) -> Vec<Entry> {
        let body = &self.0.body;
        let (theirs, channels) = (self.decoder(body.decoder.len()), body.image[0]);
        let kernel = [c_in, channels, 3, 3];
        if is_table1(self.0) {
            return conv("head", &theirs, kernel, channels).into();
        }
        vec![
            parameter("head.weight", format!("{theirs}.weight"), &[&kernel[..], &[1]].concat()),
            parameter("head.bias", format!("{theirs}.bias"), &[channels]),
        ]
    }

    fn features(&self, ours: &str, theirs: &str, [c_in, c_out]: [usize; 2]) -> Vec<Entry> {
        let mut entries = vec![
            parameter(format!("{ours}.linear.weight"), format!("{theirs}.weight"), &[c_out, c_in]),
            parameter(format!("{ours}.linear.bias"), format!("{theirs}.bias"), &[c_out]),
        ];
        if !is_table1(self.0) {
            entries.extend(super::norm(&format!("{ours}.bn"), &format!("{theirs}.bn"), c_out));
        }
        entries
    }
}
