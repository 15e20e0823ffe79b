//! Verdicts as JUnit XML, which build servers read.

use std::fmt::Write;

use super::output::{DAMAGED, DIFFERENT, OK};

/// A trace and what came of it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) verdict: Verdict,
}

/// The result of a trace.
pub(super) enum Verdict {
    /// It did what was expected, if anything was.
    Same,
    /// It did not, in these ways.
    Different(Vec<String>),
    /// It is no trace, or is damaged.
    Damaged(String),
}

impl Verdict {
    /// The exit status.
    pub(super) fn status(&self) -> u8 {
        match self {
            Self::Same => OK,
            Self::Different(_) => DIFFERENT,
            Self::Damaged(_) => DAMAGED,
        }
    }
}

/// The report of all traces. It is the same for the same verdicts: it tells no times.
pub(super) fn report(cases: &[Case]) -> String {
    let count = |status: u8| cases.iter().filter(|case| case.verdict.status() == status).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let (tests, failures, errors) = (cases.len(), count(DIFFERENT), count(DAMAGED));
    // Writing to a string cannot fail.
    let _ = writeln!(
        xml,
        "<testsuite name=\"fortnight replay\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"0\">"
    );
    for Case { name, verdict } in cases {
        let _ = write!(xml, "  <testcase classname=\"fortnight replay\" name=\"{}\"", escaped(name));
        let (element, text) = match verdict {
            Verdict::Same => {
                xml.push_str("/>\n");
                continue;
            }
            Verdict::Different(differences) => ("failure", differences.join("\n")),
            Verdict::Damaged(reason) => ("error", reason.clone()),
        };
        let message = text.lines().next().unwrap_or_default();
        let _ = writeln!(
            xml,
            ">\n    <{element} message=\"{}\">{}</{element}>\n  </testcase>",
            escaped(message),
            escaped(&text)
        );
    }
    xml + "</testsuite>\n"
}

/// Text for an attribute or an element. What XML cannot hold at all becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' | '\t' => xml.push(character),
            _ if character.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&character) => {
                xml.push('\u{fffd}');
            }
            _ => xml.push(character),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_has_its_element() {
        let case = |name: &str, verdict| Case { name: name.to_owned(), verdict };
        let cases = [
            case("a", Verdict::Same),
            case("<&\">", Verdict::Different(vec!["first\n    more".to_owned(), "second".to_owned()])),
            case("\u{7}\u{ffff}", Verdict::Damaged("line 1".to_owned())),
        ];
        assert_eq!(
            report(&cases),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"fortnight replay\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\">\n  \
             <testcase classname=\"fortnight replay\" name=\"a\"/>\n  \
             <testcase classname=\"fortnight replay\" name=\"&lt;&amp;&quot;&gt;\">\n    \
             <failure message=\"first\">first\n    more\nsecond</failure>\n  </testcase>\n  \
             <testcase classname=\"fortnight replay\" name=\"\u{fffd}\u{fffd}\">\n    \
             <error message=\"line 1\">line 1</error>\n  </testcase>\n\
             </testsuite>\n"
        );
    }
}
