use absorbing_diffusion::*;

#[test]
fn public_types_cross_threads() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<AbsorbingProcess>();
    check::<BitsPerToken>();
    check::<ElboConfig>();
    check::<Error>();
    check::<Order>();
    check::<SamplingConfig>();
    check::<Schedule>();
    check::<Sdid>();
    check::<SdidConfig>();
    check::<TokenInput>();
    check::<Weighting>();
}

#[test]
fn configs_survive_json_and_say_what_they_are() {
    let config = SamplingConfig {
        order: Order::ExactK,
        temperature: 0.65.into(),
        batch_size: 8,
        ..Default::default()
    };
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(text, r#"{"order":"exact_k","temperature":0.65,"batch_size":8}"#);
    assert_eq!(serde_json::from_str::<SamplingConfig>(&text).unwrap(), config);
    let cut = SamplingConfig {
        temperature: Schedule::Linear { from: 1., to: 0.5 },
        top_k: Some(9),
        top_p: Some(0.9),
        order: Order::Halton,
        ..Default::default()
    };
    let text = serde_json::to_string(&cut).unwrap();
    let expected =
        r#"{"order":"halton","temperature":{"from":1.0,"to":0.5},"top_k":9,"top_p":0.9,"batch_size":64}"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<SamplingConfig>(&text).unwrap(), cut);
    assert!(serde_json::from_str::<ElboConfig>(r#"{"strata":8,"batch_size":8,"stratum":1}"#).is_err());
    assert_eq!(serde_json::to_string(&Weighting::Released).unwrap(), r#""released""#);
}
