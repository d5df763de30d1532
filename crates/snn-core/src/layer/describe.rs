//! What a model says about its layers.

use candle_core::Result;

use crate::Connections;

/// Describes one layer of a model: its name, whose spikes it reads, and its connections. What counts operations, or lists layers, asks for
/// these and knows no names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerDescription {
    /// The name under which an [`Observer`](crate::Observer) sees its spikes, if it has any.
    pub name: String,
    /// The names of those whose spikes it reads, side by side; none where it reads what the model is given, or numbers.
    pub reads: Vec<String>,
    /// Its connections, on maps of the size that they have in the model.
    pub connections: Connections,
    /// Whether what it reads are numbers, as in a network without spikes, and not spikes.
    pub reads_numbers: bool,
}

impl LayerDescription {
    /// Describes a layer that reads the spikes of these.
    pub fn new(name: impl Into<String>, reads: &[&str], connections: Connections) -> Self {
        let reads = reads.iter().map(|&name| name.to_owned()).collect();
        Self { name: name.into(), reads, connections, reads_numbers: false }
    }

    /// Describes the same layer of a network without spikes.
    #[must_use]
    pub fn without_spikes(self) -> Self {
        Self { reads_numbers: true, ..self }
    }

    /// Describes layers in a row, `<part>.0`, `<part>.1`, ..., each of which reads the one before; the first reads these.
    #[must_use]
    pub fn in_a_row(part: &str, reads: &[&str], connections: Vec<Connections>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::with_capacity(connections.len());
        for (i, connections) in connections.into_iter().enumerate() {
            let name = format!("{part}.{i}");
            let next = match all.last() {
                Some(before) => Self::new(name, &[&before.name], connections),
                None => Self::new(name, reads, connections),
            };
            all.push(next);
        }
        all
    }

    /// Describes the same layer of a model that is a part of another: all names begin with `<model>.`.
    #[must_use]
    pub fn within(self, model: &str) -> Self {
        let longer = |name: String| format!("{model}.{name}");
        let reads = self.reads.into_iter().map(longer).collect();
        Self { name: longer(self.name), reads, ..self }
    }
}

/// Tells which layers a model has.
pub trait DescribeLayers {
    /// Lists every layer, in the order of the forward pass.
    ///
    /// # Errors
    /// Returns an error if maps do not fit: never for a model that runs.
    fn describe_layers(&self) -> Result<Vec<LayerDescription>>;
}

impl<M: DescribeLayers + ?Sized> DescribeLayers for &M {
    fn describe_layers(&self) -> Result<Vec<LayerDescription>> {
        (**self).describe_layers()
    }
}
