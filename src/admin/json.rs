//! JSON as the admin interface writes it.

use std::fmt::{Display, Write};

/// A JSON object that is being written. What has to be escaped in a text is escaped already.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    pub(super) fn field(&mut self, name: impl Display, value: impl Display) {
        let comma = if self.0.len() == 1 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{comma}\"{name}\":{value}");
    }

    pub(super) fn text(&mut self, name: impl Display, value: impl Display) {
        self.field(name, format_args!("\"{value}\""));
    }

    /// A text, or `null`.
    pub(super) fn text_or_null(&mut self, name: impl Display, value: Option<impl Display>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.field(name, "null"),
        }
    }

    pub(super) fn end(self) -> String {
        self.0 + "}"
    }
}

/// Text for a string of JSON.
pub(super) fn escaped(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            _ if character.is_control() => {
                let _ = write!(json, "\\u{:04x}", u32::from(character));
            }
            _ => json.push(character),
        }
    }
    json
}

pub(super) fn list<T>(items: &[T], write: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(write).collect::<Vec<_>>().join(","))
}

pub(super) fn object(fields: &[(impl Display, u64)]) -> String {
    let mut json = Object::new();
    for (name, value) in fields {
        json.field(name, value);
    }
    json.end()
}

/// A number, or `null`.
pub(super) fn or_null(value: Option<impl Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let text = "a \"b\" c:\\d \u{1b}\n\u{85} \u{e4}\u{1f980}";
        let json: String = serde_json::from_str(&format!("\"{}\"", escaped(text))).unwrap();
        assert_eq!(json, text);
    }
}
