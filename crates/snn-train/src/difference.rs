//! In which fields two configs differ.

use serde_json::Value;

/// A field in which two configs differ: its dotted name, and its value in each.
type Difference = (String, [Value; 2]);

/// Finds, for an error message, that of the [differences] which a person can do most about: what somebody has typed, which is short,
/// before a checksum, and a checksum before a number of many digits, which follows from something else.
#[must_use]
pub fn most_readable_difference(a: &Value, b: &Value) -> Option<Difference> {
    let rank = |(field, values): &Difference| match values.iter().all(|value| value.to_string().len() <= 16) {
        true => 0,
        false if field.ends_with("sha256") => 1,
        false => 2,
    };
    differences(a, b).into_iter().min_by_key(rank)
}

/// Finds the fields in which two configs differ, given as JSON. A field that only one of them has is null in the other; objects that share no
/// field, such as two variants of an enum, differ as a whole.
///
/// # Examples
/// ```
/// use serde_json::json;
/// let found = snn_train::differences(&json!({"lr": 1, "net": {"width": 8}}), &json!({"lr": 1, "net": {"width": 9}}));
/// assert_eq!(found, [("net.width".to_owned(), [json!(8), json!(9)])]);
/// let found = snn_train::differences(&json!({"lr": 1}), &json!({"lr": 1, "clip": 2}));
/// assert_eq!(found, [("clip".to_owned(), [json!(null), json!(2)])]);
/// ```
#[must_use]
pub fn differences(a: &Value, b: &Value) -> Vec<Difference> {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) if x.keys().any(|key| y.contains_key(key)) => {
            let inner = |key: &String| {
                let [here, there] = [x, y].map(|fields| fields.get(key).unwrap_or(&Value::Null));
                let join = |path: String| if path.is_empty() { key.clone() } else { format!("{key}.{path}") };
                let found = differences(here, there).into_iter();
                found.map(|(path, values)| (join(path), values)).collect::<Vec<_>>()
            };
            x.keys().chain(y.keys().filter(|key| !x.contains_key(*key))).flat_map(inner).collect()
        }
        _ if a != b => vec![(String::new(), [a.clone(), b.clone()])],
        _ => Vec::new(),
    }
}
