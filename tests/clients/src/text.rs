//! What kubectl printed, made comparable: what differs between any two servers (uids, times,
//! revisions, addresses, tokens) is named instead of shown.

use std::sync::LazyLock;

use regex::Regex;

/// What is masked in any output: a pattern, and what stands in its place.
const MASKS: &[(&str, &str)] = &[
    (
        r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
        "UID",
    ),
    (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (
        r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
        "TIME",
    ),
    (r#"(resourceVersion"?: ?"?)\d+"#, "${1}REVISION"),
    (r"(Resource Version: +)\d+", "${1}REVISION"),
    (r"https://127\.0\.0\.1:\d+", "https://SERVER"),
    (r"\beyJ[\w-]+\.[\w-]+\.[\w-]+", "TOKEN"),
    (r"(?m)(^| )(\d+[dhms])+( ago)?( |$)", "${1}AGE${4}"),
    (r"<invalid>", "AGE"),
    // kubectl warns of a watch that saw nothing in less than a second: of its own --timeout=1s, by chance.
    (
        r"(?m)^W\d{4} [\d:.]+ +\d+ reflector\.go:\d+\] .* very short watch: .*(\n|\z)",
        "",
    ),
];

static COMPILED: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let compiled = MASKS
        .iter()
        .map(|(pattern, with)| Some((Regex::new(pattern).ok()?, *with)));
    compiled.flatten().collect()
});

/// With the masks applied, and every run of spaces after a line's beginning cut to two: the
/// width of a column follows the longest age or name in it.
pub fn normal(text: &str, masks: &[(Regex, String)]) -> String {
    let mut text = text.to_owned();
    for (mask, with) in masks {
        text = mask.replace_all(&text, with).into_owned();
    }
    // Twice: neighbours share the space between them.
    for _ in 0..2 {
        for (mask, with) in COMPILED.iter() {
            text = mask.replace_all(&text, *with).into_owned();
        }
    }
    let lines = text.lines().map(|line| {
        let inner = line.trim_start_matches(' ');
        let mut cut = " ".repeat(line.len() - inner.len());
        let mut spaces = 0;
        for character in inner.trim_end().chars() {
            spaces = if character == ' ' { spaces + 1 } else { 0 };
            if spaces <= 2 {
                cut.push(character);
            }
        }
        cut
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_servers_never_share_is_masked() {
        let shown = "NAME  AGE\na       3m10s\nb     <invalid>\n";
        assert_eq!(normal(shown, &[]), "NAME  AGE\na  AGE\nb  AGE");
        assert_eq!(normal("a 3s 4m ago x", &[]), "a AGE AGE x");
        assert_eq!(
            normal(r#""resourceVersion":"12""#, &[]),
            r#""resourceVersion":"REVISION""#
        );
        assert_eq!(normal("  at: 2026-01-02T03:04:05Z", &[]), "  at: TIME");
        assert_eq!(normal("count: 3", &[]), "count: 3");
        let chance = "a\nW1124 09:02:28.065733  22190 reflector.go:492] k8s.io/client-go/informerwatcher.go:146: watch of \
                      *unstructured.Unstructured ended with: very short watch: Unexpected watch close\nb";
        assert_eq!(normal(chance, &[]), "a\nb");
        assert_eq!(
            normal("W1124 09:02:28.065733 1 other.go:4] b", &[]),
            "W1124 09:02:28.065733 1 other.go:4] b"
        );
    }

    #[test]
    fn every_mask_compiles() {
        assert_eq!(COMPILED.len(), MASKS.len());
    }
}
