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
    check::<Sdid>();
    check::<SdidConfig>();
    check::<TokenInput>();
    check::<Weighting>();
}

#[test]
fn configs_survive_json_and_say_what_they_are() {
    let config = SamplingConfig { order: Order::ExactK, temperature: 0.65, steps: None, batch_size: 8 };
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(text, r#"{"order":"exact_k","temperature":0.65,"batch_size":8}"#);
    assert_eq!(serde_json::from_str::<SamplingConfig>(&text).unwrap(), config);
    assert!(serde_json::from_str::<ElboConfig>(r#"{"strata":8,"batch_size":8,"stratum":1}"#).is_err());
    assert_eq!(serde_json::to_string(&Weighting::Released).unwrap(), r#""released""#);
}
