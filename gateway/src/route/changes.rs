//! Header fields that are set, added or removed on the way.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::template::{Facts, Template};

/// Changes of the header fields of a message.
#[derive(Clone, Debug, Default)]
pub struct HeaderChanges {
    /// The same for every request.
    pub fixed: Arc<Settled>,
    /// Those whose values depend on the request.
    pub made: Box<[Made]>,
}

/// A field whose value depends on the request.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: Template,
    /// Added to what is there, instead of put in its place.
    pub add: bool,
}

/// Changes of header fields with all values known. No name is in two of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Fields that end here.
    pub remove: Vec<HeaderName>,
    /// Fields that have this value and no other.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields that have this value beside what they had.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderChanges {
    /// The changes for one request. A field to be set to a value that cannot be made is removed:
    /// what the other side wrote into it must not pass for ours.
    pub fn settle(&self, facts: &Facts<'_>) -> Arc<Settled> {
        if self.made.is_empty() {
            return Arc::clone(&self.fixed);
        }
        let mut settled = Settled::clone(&self.fixed);
        for Made { name, value, add } in &self.made {
            match (value.make(facts), add) {
                (Some(value), true) => settled.add.push((name.clone(), value)),
                (Some(value), false) => settled.set.push((name.clone(), value)),
                (None, false) => settled.remove.push(name.clone()),
                (None, true) => {}
            }
        }
        Arc::new(settled)
    }
}

/// As people read it: `set x-a, x-b; add via; remove x-c`.
impl fmt::Display for HeaderChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = |add| self.made.iter().filter(move |made| made.add == add);
        let names = |fixed: &[(HeaderName, HeaderValue)], add| -> Vec<String> {
            let fixed = fixed.iter().map(|(name, _)| name);
            let all = fixed.chain(made(add).map(|made| &made.name));
            all.map(ToString::to_string).collect()
        };
        let remove = self.fixed.remove.iter().map(ToString::to_string).collect();
        let lists: [(&str, Vec<String>); 3] = [
            ("set", names(&self.fixed.set, false)),
            ("add", names(&self.fixed.add, true)),
            ("remove", remove),
        ];
        let lists = lists.iter().filter(|(_, names)| !names.is_empty());
        let lists: Vec<String> = lists
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        f.write_str(&lists.join("; "))
    }
}

impl Settled {
    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::tests::with_facts;
    use super::*;

    #[test]
    fn fields_are_set_added_and_removed() {
        let name = HeaderName::from_static;
        let made = |field, text, add| Made {
            name: name(field),
            value: Template::parse(text).unwrap(),
            add,
        };
        let changes = HeaderChanges {
            fixed: Arc::new(Settled {
                remove: vec![name("x-gone")],
                set: vec![(name("x-set"), HeaderValue::from_static("new"))],
                add: vec![(name("x-add"), HeaderValue::from_static("two"))],
            }),
            made: Box::new([
                made("x-user", "{jwt.sub}", false),
                made("x-spoofed", "{api-key}", false),
                made("x-add", "{host}", true),
                made("x-add", "{api-key}", true),
            ]),
        };
        let mut headers = HeaderMap::new();
        for field in ["x-gone", "x-set", "x-add", "x-user", "x-spoofed", "x-kept"] {
            headers.append(name(field), HeaderValue::from_static("one"));
        }
        with_facts(|facts| changes.settle(facts).apply(&mut headers));
        let mut fields: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        fields.sort();
        let expected = [
            "x-add: a.test",
            "x-add: one",
            "x-add: two",
            "x-kept: one",
            "x-set: new",
            "x-user: alice",
        ];
        assert_eq!(fields, expected);
    }
}
