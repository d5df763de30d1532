use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, safetensors};
use image::{GrayImage, Luma, Rgb, RgbImage};
use spiking_diffusion_metrics::{
    FeatureExtractor, FeatureStats, ImageFolder, ImageSource, InceptionConfig, InceptionLayer, Pixels,
    TensorFile, extract_batches,
};

use crate::inception::hashed_network;
use crate::{message, normal};

fn folder_of(files: &[(&str, u32)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, (name, side)) in files.iter().enumerate() {
        if name.ends_with(".txt") {
            std::fs::write(folder.path().join(name), "no image").unwrap();
            continue;
        }
        let image = RgbImage::from_fn(*side, 4, |x, y| Rgb([number as u8, 10 * x as u8, 10 * y as u8]));
        image.save(folder.path().join(name)).unwrap();
    }
    folder
}

fn save(path: &Path, tensors: &[(&str, Tensor)]) {
    let tensors: HashMap<_, _> = tensors.iter().map(|(name, x)| ((*name).to_owned(), x.clone())).collect();
    safetensors::save(&tensors, path).unwrap();
}

#[test]
fn a_folder_is_read_in_the_order_of_names() {
    let folder = folder_of(&[("b.png", 3), ("a.PNG", 3), ("c.jpg", 3), ("notes.txt", 3)]);
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!(images.count(), 3);
    let names: Vec<_> = images.files().iter().map(|f| f.file_name().unwrap().to_string_lossy()).collect();
    assert_eq!(names, ["a.PNG", "b.png", "c.jpg"]);
    let pixels = (images.read(0, 3).unwrap() * 255.0).unwrap();
    assert_eq!(pixels.dims(), [3, 3, 4, 3]);
    let at = |n: usize, c: usize, y: usize, x: usize| {
        let pixel = pixels.get(n).unwrap().get(c).unwrap().get(y).unwrap().get(x).unwrap();
        pixel.to_scalar::<f32>().unwrap().round()
    };
    assert_eq!([at(0, 0, 0, 0), at(1, 0, 0, 0), at(0, 1, 3, 2), at(0, 2, 3, 2)], [1.0, 0.0, 20.0, 30.0]);
    // JPEG is close only.
    assert!((at(2, 1, 3, 2) - 20.0).abs() < 12.0, "{}", at(2, 1, 3, 2));
}

#[test]
fn grey_files_have_three_channels() {
    let folder = tempfile::tempdir().unwrap();
    GrayImage::from_pixel(2, 2, Luma([51])).save(folder.path().join("grey.png")).unwrap();
    let pixels = ImageFolder::open(folder.path()).unwrap().read(0, 1).unwrap();
    assert_eq!(pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap(), vec![0.2; 12]);
}

#[test]
fn a_folder_without_images_is_refused() {
    let folder = folder_of(&[("notes.txt", 3)]);
    let text = message(ImageFolder::open(folder.path()));
    assert!(text.contains("no PNG or JPEG file in it"), "{text}");
    assert!(message(ImageFolder::open("/no/such/folder")).starts_with("/no/such/folder: "));
}

#[test]
fn images_of_another_size_are_refused_whatever_the_batch() {
    let folder = folder_of(&[("a.png", 3), ("b.png", 3), ("c.png", 5)]);
    let images = ImageFolder::open(folder.path()).unwrap();
    for batch in [1, 3] {
        let text = message(extract_batches(&Pixels::new(3, 4, 3), &images, batch));
        assert!(
            text.contains("c.png: `size`: 5 x 4 pixels, but the first file of the folder has 3 x 4"),
            "{text}"
        );
    }
}

/// As clean-fid does; the features are those of each image alone, in the order of names.
#[test]
fn images_of_several_sizes_are_resized_each_from_its_own() {
    let config = InceptionConfig::clean_fid(InceptionLayer::Pool64);
    let network = hashed_network(config);
    let sizes = [("a.png", 3), ("b.png", 5), ("c.png", 3), ("d.png", 7), ("e.png", 5)];
    let folder = folder_of(&sizes);
    let images = ImageFolder::open(folder.path()).unwrap();
    let alone: Vec<Vec<f32>> = images
        .files()
        .iter()
        .zip(sizes)
        .map(|(file, (_, width))| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::copy(file, folder.path().join("one.png")).unwrap();
            let image = ImageFolder::open(folder.path()).unwrap().read(0, 1).unwrap();
            assert_eq!(image.dims(), [1, 3, 4, width as usize]);
            network.extract(&image).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        })
        .collect();
    for batch in [1, 2, 3, 50] {
        let features = extract_batches(&network, &images, batch).unwrap();
        assert_eq!(features.to_vec2::<f32>().unwrap(), alone, "batches of {batch}");
    }
    let stats = FeatureStats::from_images(&network, &images, 3).unwrap();
    assert_eq!((stats.dims(), stats.count()), (64, Some(5)));
    // Without resizing there is one size.
    let as_they_are = hashed_network(InceptionConfig { resize: None, ..config });
    let text = message(extract_batches(&as_they_are, &images, 50));
    assert!(text.contains("b.png: `size`: 5 x 4 pixels"), "{text}");
}

#[test]
fn what_systems_leave_in_folders_does_not_count() {
    let folder = folder_of(&[("0.png", 3), ("1.png", 3)]);
    for name in ["._0.png", "._1.JPG", ".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini"] {
        std::fs::write(folder.path().join(name), b"\x00\x05\x16\x07").unwrap();
    }
    std::fs::create_dir(folder.path().join("folder.png")).unwrap();
    std::fs::create_dir(folder.path().join("__MACOSX")).unwrap();
    let images = ImageFolder::open(folder.path()).unwrap();
    assert_eq!((images.count(), images.read(0, 2).unwrap().dims()), (2, &[2, 3, 4, 3][..]));
    let only = tempfile::tempdir().unwrap();
    std::fs::write(only.path().join("._0.png"), b"\x00\x05\x16\x07").unwrap();
    assert!(message(ImageFolder::open(only.path())).contains("no PNG or JPEG file in it"));
}

#[test]
fn corrupt_files_are_named() {
    let folder = folder_of(&[("a.png", 3), ("b.png", 3)]);
    let file = folder.path().join("b.png");
    let bytes = std::fs::read(&file).unwrap();
    for broken in [&b"no image"[..], &bytes[..bytes.len() - 20], &[]] {
        std::fs::write(&file, broken).unwrap();
        let text = message(ImageFolder::open(folder.path()).unwrap().read(0, 2));
        assert!(text.contains("b.png: `image`: "), "{text}");
    }
    std::fs::write(folder.path().join("a.png"), "no image").unwrap();
    assert!(message(ImageFolder::open(folder.path())).contains("a.png: `image`: "));
}

#[test]
fn one_image_has_no_covariance() {
    let folder = folder_of(&[("a.png", 3)]);
    let images = ImageFolder::open(folder.path()).unwrap();
    let text = message(FeatureStats::from_images(&Pixels::new(3, 4, 3), &images, 8));
    assert_eq!(text, "samples: got 1, need at least 2");
    assert!(message(images.read(0, 2)).contains("the folder has 1"));
}

#[test]
fn rows_of_a_file_are_those_of_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.safetensors");
    for dtype in [DType::F64, DType::F32, DType::F16, DType::U8] {
        let images = (normal(&[7, 2, 3, 4], 5).abs().unwrap() * 10.0).unwrap().to_dtype(dtype).unwrap();
        save(&path, &[("x", images.clone())]);
        let file = TensorFile::open(&path).unwrap();
        assert_eq!((file.count(), file.shape()), (7, &[7, 2, 3, 4][..]));
        for (start, count) in [(0, 7), (3, 2), (6, 1), (2, 0)] {
            let values = |x: &Tensor| {
                let x = x.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
                x.to_vec1::<f64>().unwrap()
            };
            let got = file.read(start, count).unwrap();
            assert!(got.dtype().is_float());
            assert_eq!(values(&got), values(&images.narrow(0, start, count).unwrap()));
        }
        assert!(message(file.read(6, 2)).contains("the file has 7"));
    }
}

#[test]
fn a_bad_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.safetensors");
    let x = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
    save(&path, &[("a", x.clone()), ("b", x.clone())]);
    assert!(message(TensorFile::open(&path)).contains("expected one tensor, got [\"a\", \"b\"]"));
    save(&path, &[("a", x)]);
    let bytes = std::fs::read(&path).unwrap();
    for cut in [0, 5, 30, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let text = message(TensorFile::open(&path));
        assert!(text.starts_with(&path.display().to_string()), "{text}");
    }
    std::fs::write(&path, [0xff; 64]).unwrap();
    assert!(message(TensorFile::open(&path)).contains("not safetensors"));
    assert!(message(TensorFile::open("/no/such")).starts_with("/no/such: "));
}
