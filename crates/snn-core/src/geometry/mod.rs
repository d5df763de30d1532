//! Where a layer's connections lie: which position of a map is joined with which, on maps of known size.

mod axis;
mod connections;
mod conv;
mod links;

use candle_core::{DType, Result, bail};

pub(crate) use axis::Axis;
pub use connections::{Connections, spikes_by_position};
pub use conv::ConvConfig;
pub(crate) use conv::{conv_transpose2d_map, conv2d_map};
pub(crate) use links::{Links, NOWHERE};

use crate::room::room;

/// Tells the two kinds of linear map that a layer can be, by the order of their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Weight `[target, source, kh, kw]`.
    Conv,
    /// Weight `[source, target, kh, kw]`.
    Transposed,
}

/// A layer's linear map on a map of known size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) kind: Kind,
    pub(crate) conv: ConvConfig,
    pub(crate) kernel: (usize, usize),
    /// Source and target channels.
    pub(crate) channels: (usize, usize),
    /// Source and target maps, rows and columns.
    pub(crate) source: (usize, usize),
    pub(crate) target: (usize, usize),
}

impl Geometry {
    /// Which source positions reach which targets.
    pub(crate) fn links(&self) -> Links {
        Links::new(self.kind, &self.conv, self.kernel, self.source, self.target)
    }

    /// Rows and columns, as the convolution sees them: of a transposed one, the output plays the image and the input the map.
    pub(crate) fn axes(&self) -> [Axis; 2] {
        let (image, map) = match self.kind {
            Kind::Conv => (self.source, self.target),
            Kind::Transposed => (self.target, self.source),
        };
        let ConvConfig { stride, padding, .. } = self.conv;
        let axis = |image, map, kernel| Axis { image, map, kernel, stride, padding };
        [axis(image.0, map.0, self.kernel.0), axis(image.1, map.1, self.kernel.1)]
    }

    /// Channels, rows and columns of the output.
    pub(crate) fn output(&self) -> [usize; 3] {
        [self.channels.1, self.target.0, self.target.1]
    }

    /// The source positions that these target positions depend on, in ascending order.
    pub(crate) fn sources(&self, targets: &[u32]) -> Vec<u32> {
        let [rows, columns] = self.axes();
        let seen = |axis: &Axis, target: usize| -> Vec<usize> {
            let source = |k| match self.kind {
                Kind::Conv => axis.image_at(target, k),
                Kind::Transposed => axis.map_at(target, k),
            };
            (0..axis.kernel).filter_map(source).collect()
        };
        let mut sources = Vec::new();
        for target in targets.iter().map(|&p| p as usize) {
            let xs = seen(&columns, target % self.target.1);
            for y in seen(&rows, target / self.target.1) {
                sources.extend(xs.iter().map(|x| (y * self.source.1 + x) as u32));
            }
        }
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// Checks that the positions of both maps can be counted in 32 bits, whose largest number stands for no position.
    pub(crate) fn check_countable(&self) -> Result<()> {
        for (what, (rows, columns)) in [("input", self.source), ("output", self.target)] {
            if rows.checked_mul(columns).is_none_or(|positions| positions >= u32::MAX as usize) {
                bail!(
                    "the positions of an {what} of {rows} rows and {columns} columns cannot be counted in 32 bits"
                )
            }
        }
        Ok(())
    }

    /// Checks that there is memory for [`links`](Self::links).
    pub(crate) fn room(&self) -> Result<()> {
        self.check_countable()?;
        let area = |side: (usize, usize)| side.0 * side.1;
        let source_is_larger = area(self.source) >= area(self.target);
        let ((rows, columns), kernel) =
            (if source_is_larger { self.source } else { self.target }, self.kernel);
        // Two lists of pairs of positions, in effect.
        room("the links of a spiking layer", &[kernel.0, kernel.1, 4, rows, columns], DType::U32)
    }
}
