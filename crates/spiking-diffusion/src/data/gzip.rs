//! Files that may be gzipped: their content decides, not their name.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// What gzip begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The content of a file, decompressed if it is gzip.
pub(super) fn open<R: BufRead + 'static>(mut file: R) -> io::Result<Box<dyn Read>> {
    Ok(if file.fill_buf()?.starts_with(&MAGIC) {
        Box::new(Members(Some(GzDecoder::new(file))))
    } else {
        Box::new(file)
    })
}

/// The members of a gzip file one after the other, without the zeros that pad it (tapes and block devices do), as
/// `gzip -d` and Python read it.
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mut member) = self.0.take() {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                self.0 = Some(member);
                return Ok(count);
            }
            self.0 = next_member(member.into_inner())?;
        }
        Ok(0)
    }
}

fn next_member<R: BufRead>(mut rest: R) -> io::Result<Option<GzDecoder<R>>> {
    loop {
        let bytes = rest.fill_buf()?;
        let (zeros, all) = (bytes.iter().take_while(|&&byte| byte == 0).count(), bytes.len());
        rest.consume(zeros);
        if all == 0 {
            return Ok(None);
        }
        if zeros < all {
            break;
        }
    }
    let member = GzDecoder::new(rest);
    if member.header().is_some() {
        return Ok(Some(member));
    }
    let message = "behind its gzip data are bytes that are neither zeros nor more gzip data";
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}
