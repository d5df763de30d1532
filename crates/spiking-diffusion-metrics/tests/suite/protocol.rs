use spiking_diffusion_metrics::{
    EvaluationOptions, FeatureStats, InceptionConfig, InceptionLayer, InceptionVariant, Protocol, evaluate,
    evaluate_stats, frechet_distance, frechet_distance_of_features, frechet_distance_paper,
};

use crate::{assert_close, message, normal};

fn options(protocol: Protocol) -> EvaluationOptions {
    EvaluationOptions { protocol, extractor: "normal".into(), seed: 7, prdc: true }
}

#[test]
fn names_go_both_ways() {
    for protocol in Protocol::ALL {
        assert_eq!(protocol.name().parse::<Protocol>().unwrap(), protocol);
        assert_eq!(serde_json::to_string(&protocol).unwrap(), format!("\"{protocol}\""));
    }
    assert!(message("fid".parse::<Protocol>()).starts_with("`protocol` = fid: must be one of paper, "));
}

#[test]
fn features_and_statistics_give_the_same_distance() {
    for (n, m) in [(12, 20), (20, 12), (200, 20), (200, 300)] {
        let (a, b) = (normal(&[n, 30], 0), normal(&[m, 30], 1));
        let stats = |x| FeatureStats::from_features(x).unwrap();
        let want = frechet_distance(&stats(&a), &stats(&b)).unwrap();
        assert_close(frechet_distance_of_features(&a, &b).unwrap(), want, 1e-10);
    }
    let one = normal(&[1, 30], 0);
    let text = message(frechet_distance_of_features(&one, &one));
    assert_eq!(text, "samples: got 1, need at least 2");
}

#[test]
fn the_paper_s_number_is_the_distance_of_commuting_covariances_only() {
    let diagonal = |a, b| FeatureStats::new(vec![0.0; 2], vec![a, 0.0, 0.0, b], None).unwrap();
    let (a, b) = (diagonal(4.0, 1.0), diagonal(1.0, 9.0));
    assert_close(frechet_distance_paper(&a, &b).unwrap(), 1.0 + 4.0, 1e-12);
}

#[test]
fn a_report_says_how_it_was_made() {
    let (a, b) = (normal(&[40, 50], 0), normal(&[60, 50], 1));
    let found = evaluate(&a, &b, &options(Protocol::TorchFidelity)).unwrap();
    assert_eq!((found.dims, found.count_a, found.count_b, found.seed), (50, Some(40), Some(60), 7));
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    assert_eq!(found, evaluate(&a, &b, &options(Protocol::TorchFidelity)).unwrap());
    let json = serde_json::to_value(&found).unwrap();
    for field in ["fid", "kid_mean", "kid_std", "precision", "coverage"] {
        assert!(json[field].is_number(), "{field}: {json}");
    }
    assert_eq!(json["protocol"], "torch-fidelity");
}

#[test]
fn the_paper_takes_its_own_root() {
    let stats = |seed| FeatureStats::from_features(&normal(&[90, 6], seed)).unwrap();
    let (a, b) = (stats(0), stats(1));
    let fid = |protocol| evaluate_stats(&a, &b, &options(protocol)).unwrap().fid;
    assert_close(fid(Protocol::Paper), frechet_distance_paper(&a, &b).unwrap(), 0.0);
    assert_close(fid(Protocol::CleanFid), frechet_distance(&a, &b).unwrap(), 0.0);
}

#[test]
fn protocols_hand_out_their_networks() {
    let layer = InceptionLayer::Mixed768;
    for (protocol, want) in [
        (Protocol::PytorchFid, InceptionConfig::pytorch_fid(layer)),
        (Protocol::TorchFidelity, InceptionConfig::torch_fidelity(layer)),
        (Protocol::CleanFid, InceptionConfig::clean_fid(layer)),
    ] {
        let settings = protocol.settings(layer);
        assert_eq!((settings.inception, settings.kernel_inception), (Some(want), Some(want)));
    }
    let paper = Protocol::Paper.settings(layer);
    assert_eq!(paper.inception.unwrap().variant, InceptionVariant::ImageNet);
    assert_eq!(paper.kernel_inception, Some(InceptionConfig::torch_fidelity(layer)));
    assert_eq!(Protocol::Fad.settings(layer).inception, None);
    let json = serde_json::to_string(&paper).unwrap();
    assert_eq!(serde_json::from_str::<spiking_diffusion_metrics::Settings>(&json).unwrap(), paper);
}

#[test]
fn the_paper_takes_its_kernel_distance_of_other_features() {
    let (a, b) = (normal(&[40, 5], 0), normal(&[60, 5], 1));
    let mut found = evaluate(&a, &b, &options(Protocol::Paper)).unwrap();
    assert_eq!((found.kid_mean, found.kernel_extractor.as_deref()), (None, None));
    assert!(found.warnings.iter().any(|w| w.starts_with("KID: paper takes it of")), "{:?}", found.warnings);
    found.add_kernel(&a, &b, "other").unwrap();
    let usual = evaluate(&a, &b, &options(Protocol::TorchFidelity)).unwrap();
    assert_eq!((found.kid_mean, found.kid_std), (usual.kid_mean, usual.kid_std));
    assert_eq!(found.kernel_extractor.as_deref(), Some("other"));
}
