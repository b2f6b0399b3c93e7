//! Takes where a photo was taken out of its original, without recompressing it.
//!
//! | where it stands                           | what is done                               |
//! |-------------------------------------------|--------------------------------------------|
//! | EXIF GPS directory (JPEG, PNG, WebP)      | zeroed with its values, its pointer removed |
//! | EXIF that cannot be read                  | removed (WebP: zeroed)                     |
//! | XMP that speaks of GPS                    | removed (WebP: blanked)                    |
//! | after a JPEG's end: videos and the like   | removed; further JPEG images are cleaned   |
//!
//! Everything else stays byte for byte: orientation, camera, colour profile,
//! text. Place names that somebody typed are text. Maker notes are not searched.

use std::ops::Range;

use crate::media_type::MediaType;

/// The most directories followed in one EXIF block.
const DIRECTORY_COUNT_MAX: usize = 8;

const XMP_JPEG: &[u8] = b"http://ns.adobe.com/";
const XMP_PNG: &[u8] = b"XML:com.adobe.xmp\0";
const EXIF_JPEG: &[u8] = b"Exif\0\0";

/// `image` without its location; none if it has none.
pub fn without_location(media_type: MediaType, image: &[u8]) -> Option<Vec<u8>> {
    let edits = match media_type {
        MediaType::Jpeg => jpeg_edits(image),
        MediaType::Png => png_edits(image),
        MediaType::Webp => webp_edits(image),
        MediaType::Gif | MediaType::OctetStream => Vec::new(),
    };
    if edits.is_empty() {
        return None;
    }
    let mut cleaned = Vec::with_capacity(image.len());
    let mut copied = 0;
    for Edit { range, replacement } in edits {
        cleaned.extend_from_slice(&image[copied..range.start]);
        cleaned.extend_from_slice(&replacement);
        copied = range.end;
    }
    cleaned.extend_from_slice(&image[copied..]);
    Some(cleaned)
}

/// Bytes that stand in the place of others. Edits are in order and apart.
struct Edit {
    range: Range<usize>,
    replacement: Vec<u8>,
}

impl Edit {
    fn remove(range: Range<usize>) -> Self {
        Self { range, replacement: Vec::new() }
    }
}

fn mentions_gps(xmp: &[u8]) -> bool {
    xmp.windows(3).any(|window| window == b"GPS")
}

/// Walks the segments of a JPEG file and of JPEG images right after it.
fn jpeg_edits(image: &[u8]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut at = 0;
    loop {
        match jpeg_image_edits(image, at, &mut edits) {
            Some(end) => at = end,
            // It decoded, so only its end can be missing.
            None => return edits,
        }
        let gap = image[at..].iter().take_while(|byte| **byte == 0).count();
        if !image[at + gap..].starts_with(&[0xff, 0xd8, 0xff]) {
            if at + gap < image.len() {
                edits.push(Edit::remove(at..image.len()));
            }
            return edits;
        }
        at += gap;
    }
}

/// Walks one JPEG image that starts at `start`; gives its end.
fn jpeg_image_edits(image: &[u8], start: usize, edits: &mut Vec<Edit>) -> Option<usize> {
    let mut at = start + 2;
    loop {
        if *image.get(at)? != 0xff {
            return None;
        }
        match *image.get(at + 1)? {
            0xff => at += 1,
            0xd9 => return Some(at + 2),
            0x01 | 0xd0..=0xd7 => at += 2,
            marker => {
                let length = usize::from(u16::from_be_bytes([*image.get(at + 2)?, *image.get(at + 3)?]));
                let end = at + 2 + length;
                let payload = image.get(at + 4..end)?;
                if marker == 0xe1 {
                    edits.extend(app1_edit(payload, at..end));
                }
                at = if marker == 0xda { end + entropy_coded_bytes(image.get(end..)?)? } else { end };
            }
        }
    }
}

/// Bytes before the next marker that is not part of the coded data.
fn entropy_coded_bytes(coded: &[u8]) -> Option<usize> {
    coded.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff))
}

fn app1_edit(payload: &[u8], segment: Range<usize>) -> Option<Edit> {
    if let Some(tiff) = payload.strip_prefix(EXIF_JPEG) {
        let tiff_start = segment.end - tiff.len();
        return match scrub_exif(tiff)? {
            Some(replacement) => Some(Edit { range: tiff_start..segment.end, replacement }),
            None => Some(Edit::remove(segment)),
        };
    }
    (payload.starts_with(XMP_JPEG) && mentions_gps(payload)).then(|| Edit::remove(segment))
}

/// Walks the chunks of a PNG file.
fn png_edits(image: &[u8]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut at = 8;
    while let Some(head) = image.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (kind, data_start) = (&head[4..8], at + 8);
        let Some(data) = image.get(data_start..data_start + length) else { return edits };
        let end = data_start + length + 4;
        let chunk = at..end.min(image.len());
        match kind {
            b"eXIf" => match scrub_exif(data) {
                Some(Some(replacement)) => {
                    let checksum = crc32fast::hash(&[kind, &replacement[..]].concat());
                    let replacement = [&replacement[..], &checksum.to_be_bytes()].concat();
                    edits.push(Edit { range: data_start..chunk.end, replacement });
                }
                Some(None) => edits.push(Edit::remove(chunk)),
                None => {}
            },
            b"iTXt" if data.starts_with(XMP_PNG) && mentions_gps(data) => edits.push(Edit::remove(chunk)),
            // EXIF as older programs wrote it: hexadecimal in a text chunk.
            b"zTXt" | b"tEXt"
                if data.starts_with(b"Raw profile type") && !data[16..].starts_with(b" icc") =>
            {
                edits.push(Edit::remove(chunk));
            }
            _ => {}
        }
        at = end;
    }
    edits
}

/// Walks the chunks of a WebP file. Lengths stay, so that the container's do.
fn webp_edits(image: &[u8]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut at = 12;
    while let Some(head) = image.get(at..at + 8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let data_start = at + 8;
        let Some(data) = image.get(data_start..data_start + length) else { return edits };
        let range = data_start..data_start + length;
        match &head[..4] {
            b"EXIF" => {
                let prefix = if data.starts_with(EXIF_JPEG) { EXIF_JPEG.len() } else { 0 };
                if let Some(scrubbed) = scrub_exif(&data[prefix..]) {
                    let replacement = scrubbed.unwrap_or_else(|| vec![0; length - prefix]);
                    edits.push(Edit { range: range.start + prefix..range.end, replacement });
                }
            }
            b"XMP " if mentions_gps(data) => edits.push(Edit { range, replacement: vec![b' '; length] }),
            _ => {}
        }
        at = data_start + length + length % 2;
    }
    edits
}

/// The EXIF block `tiff` without its GPS directory, at the same length: none if
/// it has none, and a none within if it cannot be read.
#[expect(clippy::option_option, reason = "nothing to do, do this, or throw it away: used on three lines")]
fn scrub_exif(tiff: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut block = Exif { bytes: tiff.to_vec(), big_endian: tiff.starts_with(b"MM") };
    match block.remove_gps() {
        Some(true) => Some(Some(block.bytes)),
        Some(false) => None,
        None => Some(None),
    }
}

/// A TIFF structure (TIFF 6.0, section 2; EXIF 2.32, section 4.6).
struct Exif {
    bytes: Vec<u8>,
    big_endian: bool,
}

const GPS_POINTER: u16 = 0x8825;
const ENTRY_BYTES: usize = 12;

impl Exif {
    /// Whether there was a GPS directory; none where the structure is broken.
    fn remove_gps(&mut self) -> Option<bool> {
        if !matches!(self.bytes.get(..4)?, b"II\x2a\0" | b"MM\0\x2a") {
            return None;
        }
        let mut found = false;
        let mut directory = self.long(4)?;
        for _ in 0..DIRECTORY_COUNT_MAX {
            if directory == 0 {
                return Some(found);
            }
            let count = usize::from(self.short(directory)?);
            let entries = directory + 2;
            let next = entries + count * ENTRY_BYTES;
            let following = self.long(next).unwrap_or(0);
            for place in (0..count).rev() {
                let entry = entries + place * ENTRY_BYTES;
                if self.short(entry)? == GPS_POINTER {
                    let gps = self.long(entry + 8)?;
                    self.erase_directory(gps)?;
                    self.remove_entry(directory, entry)?;
                    found = true;
                }
            }
            directory = following;
        }
        Some(found)
    }

    /// Zeroes a directory and the values that it points to.
    fn erase_directory(&mut self, directory: usize) -> Option<()> {
        let count = usize::from(self.short(directory)?);
        for place in 0..count {
            let entry = directory + 2 + place * ENTRY_BYTES;
            let unit = match self.short(entry + 2)? {
                3 | 8 => 2,
                4 | 9 | 11 | 13 => 4,
                5 | 10 | 12 => 8,
                _ => 1,
            };
            let length = self.long(entry + 4)?.checked_mul(unit)?;
            if length > 4 {
                let start = self.long(entry + 8)?;
                self.bytes.get_mut(start..start.checked_add(length)?)?.fill(0);
            }
        }
        self.bytes.get_mut(directory..directory + 2 + count * ENTRY_BYTES)?.fill(0);
        Some(())
    }

    /// Takes an entry out of its directory; what follows it moves up.
    fn remove_entry(&mut self, directory: usize, entry: usize) -> Option<()> {
        let count = self.short(directory)?.checked_sub(1)?;
        let end = (directory + 2 + (usize::from(count) + 1) * ENTRY_BYTES + 4).min(self.bytes.len());
        self.bytes.copy_within(entry + ENTRY_BYTES..end, entry);
        self.bytes.get_mut(end - ENTRY_BYTES..end)?.fill(0);
        let count = if self.big_endian { count.to_be_bytes() } else { count.to_le_bytes() };
        self.bytes[directory..directory + 2].copy_from_slice(&count);
        Some(())
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let value = if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(value).ok()
    }
}
