//! JUnit's XML, as CI systems read it.

use std::fmt::Write as _;

use super::{Ended, Report};

/// The whole report; a suite of tests, each rule a case.
pub fn render(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let failures = report.count(Ended::Failed);
    let skipped = report.outcomes.len() - failures - report.count(Ended::Passed);
    // Writing to a String cannot fail.
    let _ = writeln!(
        xml,
        "<testsuite name=\"actuator-conformance {}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\" time=\"{:.3}\">",
        escape(&report.provider),
        report.outcomes.len(),
        report.took.as_secs_f64()
    );
    for outcome in &report.outcomes {
        let (part, name) = outcome.id.split_once('.').unwrap_or(("", &outcome.id));
        let _ = write!(
            xml,
            "  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            escape(part),
            escape(name),
            outcome.took.as_secs_f64()
        );
        let words = escape(&outcome.words);
        let _ = match outcome.ended {
            Ended::Passed => writeln!(xml, "/>"),
            Ended::Failed => {
                let mut text = format!("{}\n", outcome.sentence);
                for exchange in &outcome.exchanges {
                    let _ = writeln!(
                        text,
                        "{}\n  sent: {}\n  received: {}",
                        exchange.call, exchange.sent, exchange.received
                    );
                }
                writeln!(
                    xml,
                    ">\n    <failure message=\"{words}\" type=\"{}\">{}</failure>\n  </testcase>",
                    escape(&outcome.severity),
                    escape(&text)
                )
            }
            Ended::Skipped | Ended::NotAdvertised | Ended::Inapplicable | Ended::LeftOut => {
                let why = match outcome.ended {
                    Ended::NotAdvertised => format!("capability {} is not advertised", outcome.tier),
                    Ended::LeftOut => "left out".to_owned(),
                    _ => words,
                };
                writeln!(xml, ">\n    <skipped message=\"{why}\"/>\n  </testcase>")
            }
        };
    }
    xml.push_str("</testsuite>\n");
    xml
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            // XML 1.0 has no other control characters.
            character if character.is_control() => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;
    use crate::rule::{Rule, Severity, Stop};
    use std::time::Duration;

    #[test]
    fn whatever_a_provider_says_it_stays_xml() {
        let rule = Rule::required("create.a", Severity::Major, "a < b & \"c\"", |_| async { Ok(()) });
        let outcome = Outcome::new(
            &rule,
            Err(Stop::broken("]]> <&\u{1}\"")),
            Duration::from_millis(5),
            Vec::new(),
        );
        let report = Report {
            provider: "<p>".to_owned(),
            version: String::new(),
            run: String::new(),
            conforms: false,
            not_advertised: Vec::new(),
            left_behind: Vec::new(),
            outcomes: vec![outcome],
            took: Duration::from_secs(1),
        };
        let xml = render(&report);
        assert!(xml.contains("message=\"]]&gt; &lt;&amp;\u{fffd}&quot;\""), "{xml}");
        assert!(
            xml.contains("name=\"actuator-conformance &lt;p&gt;\" tests=\"1\" failures=\"1\""),
            "{xml}"
        );
    }
}
