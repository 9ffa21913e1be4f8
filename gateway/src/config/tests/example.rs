//! The example leaves nothing out.

use crate::config::File;

#[test]
fn the_example_shows_every_section_and_key() {
    let text = include_str!("../../../examples/gateway.toml");
    let schema = serde_json::to_value(schemars::schema_for!(File)).unwrap();
    let mut keys: Vec<&str> = Vec::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.len() > 60, "the schema is read wrongly: {keys:?}");
    for key in keys {
        let shown = |line: &str| {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.into_iter().any(|word| word == key)
        };
        assert!(text.lines().any(shown), "`{key}` is not in the example");
    }
}

/// The names of all properties in a JSON Schema.
fn collect_keys<'s>(schema: &'s serde_json::Value, keys: &mut Vec<&'s str>) {
    if let Some(members) = schema.as_object() {
        for (name, member) in members {
            if let (true, Some(properties)) = (name == "properties", member.as_object()) {
                keys.extend(properties.keys().map(String::as_str));
            }
            collect_keys(member, keys);
        }
    }
    for member in schema.as_array().into_iter().flatten() {
        collect_keys(member, keys);
    }
}
