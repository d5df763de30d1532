//! Arrays in numpy's `.npy` format, the members of an `.npz` archive.
//!
//! A magic string, the version, the length of the header, the header (a Python dictionary with `descr`, the type,
//! `fortran_order` and `shape`), then the elements.

use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// An array.
pub(crate) struct Npy {
    /// `f` for floating point, `i` and `u` for integers, as in numpy.
    kind: char,
    /// Bytes of an element.
    size: usize,
    dims: Vec<usize>,
    /// The elements, last axis fastest, each with its lowest byte first.
    bytes: Vec<u8>,
}

type Result<T> = std::result::Result<T, String>;

impl Npy {
    /// Reads one to the end of its file, whichever byte order and order of axes it has. The message says what is wrong.
    pub(crate) fn read(reader: &mut impl Read) -> Result<Self> {
        let header = read_header(reader)?;
        let descr = text(&header, "descr")?;
        let (order, kind, size) = element(descr)?;
        let dims = shape(&header)?;
        let bytes = read_elements(reader, size, &dims)?;
        let mut npy = Self { kind, size, dims, bytes };
        if order == '>' {
            npy.bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        match value(&header, "fortran_order")? {
            v if v.starts_with("False") => Ok(npy),
            v if v.starts_with("True") => Ok(npy.transposed()),
            v => Err(format!("`fortran_order` is {}", shown(v))),
        }
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements, if they are floating-point numbers of at most 64 bits.
    pub(crate) fn floats(&self) -> Result<Vec<f64>> {
        let value = |bytes: &[u8]| match *bytes {
            [a, b] => Some(half(u16::from_le_bytes([a, b]))),
            [a, b, c, d] => Some(f32::from_le_bytes([a, b, c, d]).into()),
            [a, b, c, d, e, f, g, h] => Some(f64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => None,
        };
        let elements = self.bytes.chunks_exact(self.size).map(value);
        let values = if self.kind == 'f' { elements.collect() } else { None };
        values.ok_or_else(|| {
            let (kind, bits) = (self.kind.to_uppercase(), self.size.saturating_mul(8));
            format!("expected f32 or f64, got {kind}{bits}: save it with `.astype(\"float64\")`")
        })
    }

    /// The elements, if they are integers or floating-point numbers without a fraction.
    pub(crate) fn integers(&self) -> Result<Vec<i128>> {
        if !matches!((self.kind, self.size), ('i' | 'u', 1..=8)) {
            let whole =
                |x: f64| if x.fract() == 0.0 { Ok(x as i128) } else { Err(format!("{x} is no integer")) };
            return self.floats()?.into_iter().map(whole).collect();
        }
        let value = |bytes: &[u8]| {
            let negative = self.kind == 'i' && bytes.last().is_some_and(|top| *top >= 128);
            bytes
                .iter()
                .rev()
                .fold(if negative { -1 } else { 0 }, |sum: i128, byte| (sum << 8) | i128::from(*byte))
        };
        Ok(self.bytes.chunks_exact(self.size).map(value).collect())
    }

    /// From first axis fastest to last axis fastest.
    fn transposed(mut self) -> Self {
        let mut elements = Vec::with_capacity(self.bytes.len());
        for mut place in 0..self.bytes.len() / self.size {
            // `place` counts with the last axis fastest, `at` with the first.
            let (mut at, mut stride) = (0, self.bytes.len() / self.size);
            for len in self.dims.iter().rev() {
                stride /= len;
                at += place % len * stride;
                place /= len;
            }
            elements.extend_from_slice(&self.bytes[at * self.size..][..self.size]);
        }
        self.bytes = elements;
        self
    }
}

fn read_header(reader: &mut impl Read) -> Result<String> {
    let mut start = [0; 8];
    fill(reader, &mut start)?;
    if start[..6] != *MAGIC {
        return Err(format!("is no `.npy` array: it begins with {:02x?}", &start[..6]));
    }
    let len = match start[6] {
        1 => {
            let mut len = [0; 2];
            fill(reader, &mut len)?;
            u16::from_le_bytes(len).into()
        }
        2 | 3 => {
            let mut len = [0; 4];
            fill(reader, &mut len)?;
            u32::from_le_bytes(len)
        }
        version => return Err(format!("has version {version} of the `.npy` format, expected 1 to 3")),
    };
    let mut header = Vec::new();
    reader.take(len.into()).read_to_end(&mut header).map_err(|e| format!("is damaged: {e}"))?;
    Ok(String::from_utf8_lossy(&header).into_owned())
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<()> {
    reader.read_exact(buffer).map_err(|e| format!("its header cannot be read: {e}"))
}

/// Exactly the elements; reading to the end also checks the archive's checksum.
fn read_elements(reader: &mut impl Read, size: usize, dims: &[usize]) -> Result<Vec<u8>> {
    let wanted = dims.iter().try_fold(size, |bytes, len| bytes.checked_mul(*len));
    let wanted = wanted.ok_or_else(|| format!("claims the impossible shape {dims:?}"))?;
    // The header is not trusted with an allocation: the vector grows with what is really there.
    let mut bytes = Vec::new();
    let limit = (wanted as u64).saturating_add(1);
    reader.take(limit).read_to_end(&mut bytes).map_err(|e| format!("is damaged: {e}"))?;
    match bytes.len() {
        len if len < wanted => {
            Err(format!("is cut short: shape {dims:?} needs {wanted} bytes, it holds {len}"))
        }
        len if len > wanted => Err(format!("holds more than the {wanted} bytes of shape {dims:?}")),
        _ => Ok(bytes),
    }
}

/// What stands behind a key of the dictionary.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let quoted = ['\'', '"'].map(|quote| format!("{quote}{key}{quote}"));
    let found = quoted.iter().find_map(|key| header.split_once(key.as_str()));
    let value = found.and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
    value.map(str::trim_start).ok_or_else(|| format!("its header has no `{key}`: {}", shown(header)))
}

/// A quoted text behind a key.
fn text<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let value = value(header, key)?;
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let inner = quote.and_then(|quote| value[1..].split_once(quote));
    inner.map(|(text, _)| text).ok_or_else(|| format!("`{key}` is no plain type: {}", shown(value)))
}

/// Byte order, kind and size of a type such as `<f8`.
fn element(descr: &str) -> Result<(char, char, usize)> {
    let (order, rest) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '=' | '|')) => (order, &descr[1..]),
        _ => ('<', descr),
    };
    let mut rest = rest.chars();
    let size = |digits: &str| digits.parse().ok().filter(|size| *size > 0);
    match (rest.next(), size(rest.as_str())) {
        (Some(kind @ ('f' | 'i' | 'u' | 'c' | 'b')), Some(size)) => Ok((order, kind, size)),
        (Some('O'), _) => Err("holds Python objects: save it with `.astype(\"float64\")`".into()),
        _ => Err(format!("holds elements of the type {}, which is none of numbers", shown(descr))),
    }
}

/// The lengths of the axes.
fn shape(header: &str) -> Result<Vec<usize>> {
    let value = value(header, "shape")?;
    let wrong = || format!("`shape` is {}", shown(value));
    let (inside, _) = value.strip_prefix('(').and_then(|v| v.split_once(')')).ok_or_else(wrong)?;
    let lengths = inside.split(',').map(str::trim).filter(|len| !len.is_empty());
    // Python 2 wrote long integers with an L.
    lengths.map(|len| len.trim_end_matches('L').parse().map_err(|_| wrong())).collect()
}

/// The beginning of a text, for a message.
fn shown(text: &str) -> String {
    format!("{:?}", text.trim().chars().take(60).collect::<String>())
}

/// An IEEE number of 16 bits.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from((bits >> 10) & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}
