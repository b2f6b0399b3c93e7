//! Real images of every kind, made here, through decoding, turning and resizing.

use std::io::Cursor;

use bytes::Bytes;
use haystack::imaging::{ImagingOptions, Rendition, render};
use haystack::media_type::MediaType;
use haystack::{Error, PhotoSize};
use image::{DynamicImage, ImageBuffer, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use jpeg_encoder::{ColorType, Encoder};

pub const OPTIONS: ImagingOptions = ImagingOptions {
    pixel_count_max: 50_000_000,
    derived_edges_px: [200, 100, 50, 20],
    jpeg_quality: 90,
    originals_untouched: false,
    thread_count: 1,
    queue_max: 0,
};

const RED: [u8; 3] = [220, 20, 20];
const GREEN: [u8; 3] = [20, 200, 20];
const BLUE: [u8; 3] = [20, 20, 220];
const WHITE: [u8; 3] = [250, 250, 250];

/// Red and green above blue and white.
fn quadrants(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb(match (x < width / 2, y < height / 2) {
            (true, true) => RED,
            (false, true) => GREEN,
            (true, false) => BLUE,
            (false, false) => WHITE,
        })
    })
}

/// A JPEG of `image` with an EXIF block.
pub fn jpeg(image: &RgbImage, exif: Option<&[u8]>) -> Bytes {
    let mut data = Vec::new();
    let mut encoder = Encoder::new(&mut data, 95);
    if let Some(exif) = exif {
        encoder.add_exif_metadata(exif).unwrap();
    }
    let (width, height) = (u16::try_from(image.width()).unwrap(), u16::try_from(image.height()).unwrap());
    encoder.encode(image, width, height, ColorType::Rgb).unwrap();
    data.into()
}

/// An EXIF block with an orientation, a camera, and a place if asked for.
fn exif(orientation: u16, place: bool, big_endian: bool) -> Vec<u8> {
    let short = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut block = if big_endian { b"MM\0\x2a".to_vec() } else { b"II\x2a\0".to_vec() };
    block.extend(long(8));
    let count = if place { 3 } else { 2 };
    let values = 8 + 2 + u32::from(count) * 12 + 4;
    block.extend(short(count));
    let entry = |block: &mut Vec<u8>, tag: u16, kind: u16, count: u32, value: [u8; 4]| {
        block.extend(short(tag));
        block.extend(short(kind));
        block.extend(long(count));
        block.extend(value);
    };
    entry(&mut block, 0x010f, 2, 8, long(values));
    let [high, low] = short(orientation);
    entry(&mut block, 0x0112, 3, 1, [high, low, 0, 0]);
    if place {
        entry(&mut block, 0x8825, 4, 1, long(values + 8));
    }
    block.extend(long(0));
    block.extend(b"Camera1\0");
    if place {
        block.extend(short(2));
        entry(&mut block, 1, 2, 2, *b"N\0\0\0");
        entry(&mut block, 2, 5, 3, long(values + 8 + 2 + 24 + 4));
        block.extend(long(0));
        for number in [48, 1, 51, 1, 2951, 100] {
            block.extend(long(number));
        }
    }
    block
}

fn sizes(upload: &Bytes) -> Vec<Rendition> {
    render(upload, &OPTIONS).unwrap()
}

fn decode(rendition: &Rendition) -> DynamicImage {
    let image = image::load_from_memory(&rendition.data).unwrap();
    assert_eq!((image.width(), image.height()), (rendition.width, rendition.height), "{:?}", rendition.size);
    image
}

#[track_caller]
fn assert_close(found: Rgb<u8>, expected: [u8; 3]) {
    let near = found.0.iter().zip(expected).all(|(found, expected)| found.abs_diff(expected) < 40);
    assert!(near, "{found:?} instead of {expected:?}");
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Bytes {
    let mut data = Cursor::new(Vec::new());
    image.write_to(&mut data, format).unwrap();
    data.into_inner().into()
}

#[test]
fn every_orientation_is_turned_upright() {
    // The colours that end up in the upper corners, left and right.
    let upright = [
        (RED, GREEN),
        (GREEN, RED),
        (WHITE, BLUE),
        (BLUE, WHITE),
        (RED, BLUE),
        (BLUE, RED),
        (WHITE, GREEN),
        (GREEN, WHITE),
    ];
    for (orientation, (left, right)) in (1..).zip(upright) {
        for big_endian in [false, true] {
            let upload = jpeg(&quadrants(240, 120), Some(&exif(orientation, false, big_endian)));
            let renditions = sizes(&upload);
            let turned = orientation >= 5;
            let expected = if turned { (120, 240) } else { (240, 120) };
            assert_eq!((renditions[0].width, renditions[0].height), expected);
            assert_eq!(renditions[0].data, upload, "nothing was to be taken out");
            for rendition in &renditions[1..] {
                let image = decode(rendition).into_rgb8();
                let (width, height) = image.dimensions();
                assert_eq!(width < height, turned);
                assert_close(*image.get_pixel(width / 4, height / 4), left);
                assert_close(*image.get_pixel(width * 3 / 4, height / 4), right);
                assert!(exif::Reader::new().read_from_container(&mut Cursor::new(&rendition.data)).is_err());
            }
        }
    }
}

#[test]
fn sizes_fall_and_small_photos_are_not_enlarged() {
    let renditions = sizes(&jpeg(&quadrants(400, 300), None));
    let found: Vec<_> = renditions.iter().map(|rendition| (rendition.width, rendition.height)).collect();
    assert_eq!(found, [(400, 300), (200, 150), (100, 75), (50, 38), (20, 15)]);
    let small = sizes(&jpeg(&quadrants(60, 30), None));
    let found: Vec<_> = small.iter().map(|rendition| (rendition.width, rendition.height)).collect();
    assert_eq!(found, [(60, 30), (60, 30), (60, 30), (50, 25), (20, 10)]);
    assert_eq!(small[1].data.as_ptr(), small[2].data.as_ptr(), "equal sizes share their bytes");
}

#[test]
fn where_a_photo_was_taken_leaves_its_original_and_nothing_else_does() {
    for big_endian in [false, true] {
        let upload = jpeg(&quadrants(100, 80), Some(&exif(6, true, big_endian)));
        let before = exif::Reader::new().read_from_container(&mut Cursor::new(&upload)).unwrap();
        assert!(before.get_field(exif::Tag::GPSLatitude, exif::In::PRIMARY).is_some());
        let original = &sizes(&upload)[0];
        assert_eq!(original.data.len(), upload.len());
        let after = exif::Reader::new().read_from_container(&mut Cursor::new(&original.data)).unwrap();
        assert!(after.fields().all(|field| field.tag.context() != exif::Context::Gps));
        assert_eq!(after.fields().count(), 2);
        let orientation = after.get_field(exif::Tag::Orientation, exif::In::PRIMARY).unwrap();
        assert_eq!(orientation.value.get_uint(0), Some(6));
        assert!(
            !original
                .data
                .windows(4)
                .any(|bytes| bytes == 2951_u32.to_be_bytes() || bytes == 2951_u32.to_le_bytes())
        );
        let (shown_before, shown_after) =
            (image::load_from_memory(&upload), image::load_from_memory(&original.data));
        assert_eq!(shown_before.unwrap(), shown_after.unwrap());
        let untouched = ImagingOptions { originals_untouched: true, ..OPTIONS };
        assert_eq!(render(&upload, &untouched).unwrap()[0].data, upload);
    }
}

#[test]
fn location_in_xmp_and_behind_the_image_is_removed() {
    let plain = jpeg(&quadrants(40, 40), None);
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<x exif:GPSLatitude='48,51N'/>";
    let mut upload = plain[..2].to_vec();
    upload.extend([0xff, 0xe1]);
    upload.extend(u16::try_from(xmp.len() + 2).unwrap().to_be_bytes());
    upload.extend(xmp);
    upload.extend(&plain[2..]);
    upload.extend(b"ftypmp4 a video that knows where it was");
    assert_eq!(sizes(&upload.into())[0].data, plain);
}

#[test]
fn location_leaves_png_and_webp_too() {
    for (format, chunk) in [(ImageFormat::Png, b"eXIf"), (ImageFormat::WebP, b"EXIF")] {
        let plain = encode(&quadrants(30, 20).into(), format);
        let block = exif(1, true, true);
        let mut upload = plain.to_vec();
        if format == ImageFormat::Png {
            let mut data = chunk.to_vec();
            data.extend(&block);
            let mut inserted = u32::try_from(block.len()).unwrap().to_be_bytes().to_vec();
            inserted.extend(&data);
            inserted.extend(crc32fast::hash(&data).to_be_bytes());
            upload.splice(33..33, inserted);
        } else {
            upload.extend(chunk);
            upload.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            upload.extend(&block);
            let length = u32::try_from(upload.len() - 8).unwrap();
            upload[4..8].copy_from_slice(&length.to_le_bytes());
        }
        let original = sizes(&upload.into()).remove(0).data;
        let seconds = 2951_u32.to_be_bytes();
        assert!(!original.windows(4).any(|bytes| bytes == seconds), "{format:?}");
        assert!(original.windows(7).any(|bytes| bytes == b"Camera1"), "{format:?}");
        assert!(image::load_from_memory(&original).is_ok());
    }
}

#[test]
fn what_shines_through_stays_so_and_what_does_not_becomes_jpeg() {
    let clear = RgbaImage::from_fn(300, 200, |x, _| Rgba([10, 200, 10, if x < 150 { 0 } else { 255 }]));
    let opaque = RgbaImage::from_pixel(300, 200, Rgba([10, 200, 10, 255]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let renditions = sizes(&encode(&clear.clone().into(), format));
        for rendition in &renditions[1..] {
            assert_eq!(rendition.media_type, MediaType::Png);
            let image = decode(rendition).into_rgba8();
            assert_eq!(image.get_pixel(1, 1).0[3], 0);
            assert_eq!(image.get_pixel(image.width() - 2, 1).0, [10, 200, 10, 255]);
        }
        assert_eq!(sizes(&encode(&opaque.clone().into(), format))[1].media_type, MediaType::Jpeg);
    }
}

#[test]
fn sixteen_bits_gray_gif_and_cmyk_are_taken() {
    let deep = ImageBuffer::from_pixel(300, 200, Rgb([0xdc00_u16, 0x1400, 0x1400]));
    let renditions = sizes(&encode(&DynamicImage::ImageRgb16(deep), ImageFormat::Png));
    assert_close(*decode(&renditions[1]).into_rgb8().get_pixel(9, 9), RED);
    let gray = DynamicImage::from(quadrants(300, 200)).into_luma8();
    let renditions = sizes(&encode(&gray.into(), ImageFormat::Png));
    assert!(!decode(&renditions[1]).color().has_color());
    let renditions = sizes(&encode(&quadrants(300, 200).into(), ImageFormat::Gif));
    assert_eq!((renditions[0].media_type, renditions[1].media_type), (MediaType::Gif, MediaType::Jpeg));
    assert_close(*decode(&renditions[1]).into_rgb8().get_pixel(9, 9), RED);
    let mut cmyk = Vec::new();
    let pixels: Vec<u8> = [0, 255, 255, 20].repeat(300 * 200);
    Encoder::new(&mut cmyk, 95).encode(&pixels, 300, 200, ColorType::Cmyk).unwrap();
    assert_eq!(decode(&sizes(&cmyk.into())[1]).color(), image::ColorType::Rgb8);
}

#[test]
fn a_colour_profile_is_kept_where_it_fits() {
    let mut profile = vec![0; 128];
    profile[16..20].copy_from_slice(b"RGB ");
    let upload = |profile: &[u8]| {
        let mut data = Vec::new();
        let mut encoder = Encoder::new(&mut data, 90);
        encoder.add_icc_profile(profile).unwrap();
        encoder.encode(&quadrants(300, 200), 300, 200, ColorType::Rgb).unwrap();
        Bytes::from(data)
    };
    let contains = |data: &Bytes, profile: &[u8]| data.windows(profile.len()).any(|window| window == profile);
    assert!(sizes(&upload(&profile))[1..].iter().all(|rendition| contains(&rendition.data, &profile)));
    profile[16..20].copy_from_slice(b"CMYK");
    assert!(sizes(&upload(&profile))[1..].iter().all(|rendition| !contains(&rendition.data, &profile)));
}

#[test]
fn an_image_that_claims_too_much_is_refused_before_it_is_decoded() {
    let mut header = b"IHDR".to_vec();
    header.extend(100_000_u32.to_be_bytes());
    header.extend(100_000_u32.to_be_bytes());
    header.extend([8, 6, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&header);
    png.extend(crc32fast::hash(&header).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT");
    png.extend(crc32fast::hash(b"IDAT").to_be_bytes());
    let mut large = jpeg(&quadrants(40, 40), None).to_vec();
    let frame = large.windows(2).position(|bytes| bytes == [0xff, 0xc0]).unwrap();
    large[frame + 5..frame + 9].fill(0xff);
    let mut gif = encode(&quadrants(40, 40).into(), ImageFormat::Gif).to_vec();
    gif[6..10].fill(0xff);
    for upload in [png, large, gif] {
        let refused = render(&upload.into(), &OPTIONS);
        assert!(matches!(refused, Err(Error::TooManyPixels { .. })), "{refused:?}");
    }
}

#[test]
fn broken_images_are_refused_and_never_panic() {
    let upload = jpeg(&quadrants(64, 48), Some(&exif(6, true, false)));
    let png = encode(&quadrants(64, 48).into(), ImageFormat::Png);
    for sound in [&upload, &png] {
        for at in 0..sound.len() {
            let mut broken = sound.to_vec();
            broken[at] ^= 0xff;
            // Refused or taken, but never a panic.
            let _ = render(&broken.into(), &OPTIONS);
        }
        // The last chunk of a PNG file says nothing but that it is the last.
        for length in (0..sound.len() - 16).step_by(7) {
            let cut = render(&sound.slice(..length), &OPTIONS);
            assert!(cut.is_err(), "{length} of {} bytes are taken for an image", sound.len());
        }
    }
    assert!(matches!(
        render(&Bytes::from_static(b"\xff\xd8\xff\xe0"), &OPTIONS),
        Err(Error::DamagedImage { .. })
    ));
    assert!(matches!(
        render(&Bytes::from_static(b"hello"), &OPTIONS),
        Err(Error::NotAnImage { found: "text" })
    ));
}

#[test]
fn every_rendition_is_there_in_order() {
    let found: Vec<PhotoSize> =
        sizes(&jpeg(&quadrants(9, 9), None)).iter().map(|rendition| rendition.size).collect();
    assert_eq!(found, PhotoSize::ALL);
}
