//! Decoding, resizing and encoding. Everything here runs on the pool, on bytes that anybody may have
//! made: sizes are checked before pixels are, and a decoder's panic counts as a broken picture.

use std::{
    fs::File,
    io::BufReader,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use fast_image_resize::{ResizeOptions, Resizer};
use hearth_core::limits::IMAGE_MAX_PIXELS;
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits,
    codecs::{
        jpeg::JpegEncoder,
        png::{PngDecoder, PngEncoder},
        webp::WebPDecoder,
    },
    metadata::Orientation,
};

use super::size::{Plan, Target};
use crate::error::Error;

/// How much a decoder may allocate for each pixel, in bytes: 16-bit RGBA.
const DECODER_PIXEL_BYTES: u64 = 8;

/// The quality of JPEG thumbnails, of 100: smaller files than this show at a glance.
const JPEG_QUALITY: u8 = 84;

/// The format of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    Gif,
    WebP,
}

/// The result of a rendering.
#[derive(Debug)]
pub(super) enum Rendered {
    /// The original is right as it is.
    Original(Format),
    /// A new picture.
    New(Format, Vec<u8>),
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::WebP => "webp",
        }
    }
}

/// Makes the thumbnail of a file.
pub(super) fn render(path: &Path, target: Target) -> Result<Rendered, Error> {
    catch_unwind(AssertUnwindSafe(|| render_unguarded(path, target))).unwrap_or_else(|_| {
        tracing::warn!(path = %path.display(), "a picture made its decoder panic");
        Err(Error::NotAnImage)
    })
}

fn render_unguarded(path: &Path, target: Target) -> Result<Rendered, Error> {
    let mut reader = open(path)?;
    let format = format_of(&reader).ok_or(Error::NotAnImage)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(IMAGE_MAX_PIXELS * DECODER_PIXEL_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > IMAGE_MAX_PIXELS {
        return Err(Error::ImageTooLarge);
    }
    if width == 0 || height == 0 {
        return Err(Error::NotAnImage);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let target = if is_turned(orientation) {
        target.turned()
    } else {
        target
    };
    let plan = target.plan(width, height);
    if plan.is_none() && (target.may_move || !moves(path, format)) {
        return Ok(Rendered::Original(format));
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let mut picture = resize(to_eight_bits(picture), plan)?;
    picture.apply_orientation(orientation);
    encode(picture, format)
}

fn open(path: &Path) -> Result<ImageReader<BufReader<File>>, Error> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound,
        _ => Error::Io(error),
    })?;
    Ok(ImageReader::new(BufReader::new(file)).with_guessed_format()?)
}

fn format_of(reader: &ImageReader<BufReader<File>>) -> Option<Format> {
    match reader.format()? {
        ImageFormat::Jpeg => Some(Format::Jpeg),
        ImageFormat::Png => Some(Format::Png),
        ImageFormat::Gif => Some(Format::Gif),
        ImageFormat::WebP => Some(Format::WebP),
        _ => None,
    }
}

fn broken(error: image::ImageError) -> Error {
    match error {
        image::ImageError::Limits(_) => Error::ImageTooLarge,
        image::ImageError::IoError(error) if error.raw_os_error().is_some() => Error::Io(error),
        _ => Error::NotAnImage,
    }
}

/// Whether width and height change places when the picture is shown.
fn is_turned(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Whether the picture may move. A GIF counts as moving: counting its frames would cost as much as
/// making a still of it.
fn moves(path: &Path, format: Format) -> bool {
    let Ok(file) = File::open(path).map(BufReader::new) else {
        return true;
    };
    match format {
        Format::Jpeg => false,
        Format::Gif => true,
        Format::Png => PngDecoder::new(file)
            .and_then(|one| one.is_apng())
            .unwrap_or(true),
        Format::WebP => WebPDecoder::new(file)
            .map(|one| one.has_animation())
            .unwrap_or(true),
    }
}

/// Thumbnails have eight bits a channel.
fn to_eight_bits(picture: DynamicImage) -> DynamicImage {
    match picture.color() {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => picture,
        ColorType::L16 => picture.into_luma8().into(),
        ColorType::La16 => picture.into_luma_alpha8().into(),
        color if color.has_alpha() => picture.into_rgba8().into(),
        _ => picture.into_rgb8().into(),
    }
}

fn resize(picture: DynamicImage, plan: Option<Plan>) -> Result<DynamicImage, Error> {
    let Some(Plan {
        source: (left, top, width, height),
        width: to_width,
        height: to_height,
    }) = plan
    else {
        return Ok(picture);
    };
    let mut resized = DynamicImage::new(to_width, to_height, picture.color());
    let options = ResizeOptions::new().crop(left, top, width, height);
    Resizer::new()
        .resize(&picture, &mut resized, &options)
        .map_err(|error| {
            tracing::warn!(%error, "a picture could not be resized");
            Error::NotAnImage
        })?;
    Ok(resized)
}

/// Photographs become JPEG; what may have sharp edges or transparency becomes PNG.
fn encode(picture: DynamicImage, source: Format) -> Result<Rendered, Error> {
    let has_alpha = picture.color().has_alpha();
    let mut bytes = Vec::new();
    let (width, height, color) = (picture.width(), picture.height(), picture.color().into());
    let pixels = picture.as_bytes();
    let format = if matches!(source, Format::Jpeg | Format::WebP) && !has_alpha {
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        encoder
            .write_image(pixels, width, height, color)
            .map_err(broken)?;
        Format::Jpeg
    } else {
        PngEncoder::new(&mut bytes)
            .write_image(pixels, width, height, color)
            .map_err(broken)?;
        Format::Png
    };
    Ok(Rendered::New(format, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thumbnail::size::{Method, ThumbnailRequest};
    use image::{ExtendedColorType, GenericImageView};
    use proptest::prelude::*;

    fn run(bytes: &[u8], width: u32, height: u32, method: Method) -> Result<Rendered, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture");
        std::fs::write(&path, bytes).unwrap();
        let request = ThumbnailRequest {
            width,
            height,
            method,
            animated: false,
        };
        render(&path, request.normalized())
    }

    fn picture(width: u32, height: u32, color: ColorType) -> DynamicImage {
        let mut picture = DynamicImage::new(width, height, color);
        if let Some(rgb) = picture.as_mut_rgb8() {
            for (x, y, pixel) in rgb.enumerate_pixels_mut() {
                pixel.0 = [x as u8, y as u8, 128];
            }
        }
        picture
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_format_is_resized() {
        for (format, color, expected) in [
            (ImageFormat::Png, ColorType::Rgb8, Format::Png),
            (ImageFormat::Png, ColorType::Rgba8, Format::Png),
            (ImageFormat::Png, ColorType::Rgba16, Format::Png),
            (ImageFormat::Png, ColorType::L16, Format::Png),
            (ImageFormat::Jpeg, ColorType::Rgb8, Format::Jpeg),
            (ImageFormat::Jpeg, ColorType::L8, Format::Jpeg),
            (ImageFormat::Gif, ColorType::Rgba8, Format::Png),
            (ImageFormat::WebP, ColorType::Rgb8, Format::Jpeg),
            (ImageFormat::WebP, ColorType::Rgba8, Format::Png),
        ] {
            let source = encoded(&picture(400, 200, color), format);
            for (method, size) in [(Method::Scale, (32, 16)), (Method::Crop, (32, 32))] {
                match run(&source, 32, 32, method).unwrap() {
                    Rendered::New(got, bytes) => {
                        assert_eq!(got, expected, "{format:?} {color:?}");
                        let decoded = image::load_from_memory(&bytes).unwrap();
                        assert_eq!(decoded.dimensions(), size, "{format:?} {method:?}");
                    }
                    Rendered::Original(_) => panic!("{format:?} was not resized"),
                }
            }
        }
    }

    #[test]
    fn small_pictures_stay_and_gifs_stand_still() {
        let small = encoded(&picture(20, 20, ColorType::Rgb8), ImageFormat::Png);
        let got = run(&small, 96, 96, Method::Crop).unwrap();
        assert!(matches!(got, Rendered::Original(Format::Png)));
        let gif = encoded(&picture(20, 20, ColorType::Rgba8), ImageFormat::Gif);
        let got = run(&gif, 96, 96, Method::Scale).unwrap();
        assert!(matches!(got, Rendered::New(Format::Png, _)));
    }

    #[test]
    fn a_photograph_is_turned_upright() {
        let mut jpeg = encoded(&picture(400, 200, ColorType::Rgb8), ImageFormat::Jpeg);
        // An EXIF segment behind the start marker, with orientation 6: turn right.
        let exif: &[u8] = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let mut segment = vec![0xFF, 0xE1];
        segment.extend_from_slice(&(exif.len() as u16 + 2).to_be_bytes());
        segment.extend_from_slice(exif);
        jpeg.splice(2..2, segment);
        let Rendered::New(_, bytes) = run(&jpeg, 96, 96, Method::Scale).unwrap() else {
            panic!("not resized")
        };
        assert_eq!(image::load_from_memory(&bytes).unwrap().dimensions(), (48, 96));
    }

    #[test]
    fn bombs_are_refused_by_their_header() {
        // A PNG that says it has 100,000 by 100,000 pixels: only its header is right.
        let mut bomb = encoded(&picture(1, 1, ColorType::Rgb8), ImageFormat::Png);
        bomb[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&100_000_u32.to_be_bytes());
        // The header's checksum is wrong now, so both answers refuse it without decoding.
        assert!(run(&bomb, 32, 32, Method::Scale).is_err());
        let wide = vec![0_u8; 70_000_000];
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(&wide, 70_000, 1_000, ExtendedColorType::L8)
            .unwrap();
        assert!(matches!(
            run(&png, 32, 32, Method::Scale),
            Err(Error::ImageTooLarge)
        ));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let png = encoded(&picture(300, 300, ColorType::Rgb8), ImageFormat::Png);
        let cut = &png[..png.len() / 2];
        for bytes in [
            &b""[..],
            b"hello",
            b"<svg/>",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a",
            b"RIFF\0\0\0\0WEBP",
            cut,
        ] {
            assert!(
                matches!(run(bytes, 32, 32, Method::Scale), Err(Error::NotAnImage)),
                "{bytes:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_pictures_never_panic(
            which in 0_usize..4, at in any::<proptest::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..16),
        ) {
            let format = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP][which];
            let color = if format == ImageFormat::Gif { ColorType::Rgba8 } else { ColorType::Rgb8 };
            let mut source = encoded(&picture(64, 40, color), format);
            let start = at.index(source.len());
            for (place, byte) in source[start..].iter_mut().zip(bytes) {
                *place = byte;
            }
            let _ = run(&source, 32, 32, Method::Crop);
        }
    }
}
