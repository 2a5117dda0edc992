//! Tests of selectors: the real server's wordings, row by row.

use super::*;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;
use std::collections::BTreeMap;

fn matches(selector: &LabelSelector, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<&str, &str> = labels.iter().copied().collect();
    selector.matches(|key| labels.get(key).copied())
}

#[rstest]
#[case("", "", &[], true)]
#[case("a=b", "a=b", &[("a", "b")], true)]
#[case("a==b", "a==b", &[("a", "c")], false)]
#[case("a!=b", "a!=b", &[], true)]
#[case("a!=b", "a!=b", &[("a", "b")], false)]
#[case("a in (b, c)", "a in (b,c)", &[("a", "c")], true)]
#[case("a in (b,)", "a in (,b)", &[("a", "")], true)]
#[case("a notin (c,b)", "a notin (b,c)", &[("a", "d")], true)]
#[case("a notin (b)", "a notin (b)", &[], true)]
#[case("a in ()", "a in (,)", &[("a", "")], true)]
#[case("a", "a", &[("a", "")], true)]
#[case("!a", "!a", &[("a", "")], false)]
#[case("a>1", "a>1", &[("a", "2")], true)]
#[case("a<1", "a<1", &[("a", "x")], false)]
#[case("a=,b", "a=,b", &[("a", ""), ("b", "x")], true)]
#[case("in in (in)", "in in (in)", &[("in", "in")], true)]
#[case(" x.y/z = 1 , b ", "b,x.y/z=1", &[("x.y/z", "1"), ("b", "")], true)]
fn label_selectors_parse_print_and_match(
    #[case] text: &str,
    #[case] printed: &str,
    #[case] labels: &[(&str, &str)],
    #[case] expected: bool,
) {
    let selector = LabelSelector::parse(text).expect("valid");
    assert_eq!(selector.to_string(), printed);
    assert_eq!(matches(&selector, labels), expected);
    assert_eq!(LabelSelector::parse(printed).expect("valid"), selector);
}

const NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

#[rstest]
#[case("a in", "unable to parse requirement: found '' expected: '('")]
#[case("a in (b", "unable to parse requirement: found '', expected: ',' or ')'")]
#[case("a,", "found '', expected: identifier after ','")]
#[case(
    "a b",
    "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
)]
#[case("a=b c", "found 'c', expected: ',' or 'end of string'")]
#[case("=a", "found '=', expected: !, identifier, or 'end of string'")]
#[case("!", "unable to parse requirement: found '', expected: identifier")]
#[case("a=(", "unable to parse requirement: found '(', expected: identifier")]
#[case(
    "a>x",
    "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"
)]
fn bad_label_selectors_are_refused_in_the_real_words(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(LabelSelector::parse(text).expect_err("refused").to_string(), expected);
}

#[test]
fn bad_keys_and_values_are_explained() {
    assert_eq!(
        LabelSelector::parse("-a").expect_err("refused").to_string(),
        format!("unable to parse requirement: <nil>: Invalid value: \"-a\": name part {NAME_RULE}")
    );
    assert_eq!(
        LabelSelector::parse("a=-").expect_err("refused").to_string(),
        "unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid label must be an empty string or \
         consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
         (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    );
    assert_eq!(
        qualified_name_errors(&format!("a/{}", "b".repeat(64))),
        ["name part must be no more than 63 characters"]
    );
    assert_eq!(qualified_name_errors("/a"), ["prefix part must be non-empty"]);
    assert!(qualified_name_errors("example.com/a_b").is_empty());
    assert!(qualified_name_errors("Example.com/a")[0].starts_with("prefix part a lowercase RFC 1123 subdomain"));
    assert!(qualified_name_errors("a\n").len() == 1);
}

#[test]
fn label_selector_objects_are_read() {
    let selector = LabelSelector::from_object(&json!({
        "matchLabels": {"a": "b"},
        "matchExpressions": [
            {"key": "c", "operator": "NotIn", "values": ["d"]},
            {"key": "e", "operator": "Exists"},
        ],
    }))
    .expect("valid");
    assert_eq!(selector.to_string(), "a=b,c notin (d),e");
    assert!(selector.matches_object(&json!({"metadata": {"labels": {"a": "b", "e": ""}}})));
    assert!(!selector.matches_object(&json!({"metadata": {}})));
    assert!(
        !LabelSelector::from_object(&json!(null))
            .expect("nothing")
            .matches_object(&json!({}))
    );
    assert!(LabelSelector::from_object(&json!({})).expect("everything").is_empty());
    let wrong = json!({"matchExpressions": [{"key": "c", "operator": "Near"}]});
    assert_eq!(
        LabelSelector::from_object(&wrong).expect_err("refused").to_string(),
        "\"Near\" is not a valid label selector operator"
    );
}

#[test]
fn field_selectors_parse_print_and_match() {
    let selector = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running,spec.size==3").expect("valid");
    assert_eq!(
        selector.to_string(),
        r"metadata.name=a\,b,spec.size=3,status.phase!=Running"
    );
    assert_eq!(selector.fields(), ["metadata.name", "spec.size", "status.phase"]);
    assert_eq!(selector.exact("metadata.name"), Some("a,b"));
    assert!(selector.matches(&json!({"metadata": {"name": "a,b"}, "spec": {"size": 3}}), |_| ""));
    assert!(!selector.matches(
        &json!({"metadata": {"name": "a,b"}, "spec": {"size": 3}, "status": {"phase": "Running"}}),
        |_| ""
    ));
    assert!(FieldSelector::parse("").expect("valid").matches(&json!({}), |_| ""));
}

#[rstest]
#[case("a", "invalid selector: 'a'; can't understand 'a'")]
#[case("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'")]
#[case(r"a=\b", r"invalid field selector: invalid escape sequence: \b")]
#[case("a=b=c", "invalid field selector: unescaped character in value: 61")]
fn bad_field_selectors_are_refused_in_the_real_words(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(FieldSelector::parse(text).expect_err("refused").to_string(), expected);
}

proptest! {
    #[test]
    fn whatever_parses_prints_and_parses_again(text in "[ab/.!=<>(), 01-]{0,16}|[ab](=|!=| in | notin )\\(?[ab,]{0,4}\\)?") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let again = LabelSelector::parse(&selector.to_string());
            prop_assert_eq!(again.as_ref(), Ok(&selector), "{}", selector);
        }
        if let Ok(selector) = FieldSelector::parse(&text) {
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
        }
    }

    #[test]
    fn field_values_survive_escaping(value in "[ab,=\\\\]{0,8}") {
        let object = json!({"a": value});
        let selector = FieldSelector::parse("a=x").expect("valid");
        let escaped = value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let parsed = FieldSelector::parse(&format!("a={escaped}")).expect("valid");
        prop_assert!(parsed.matches(&object, |_| ""));
        prop_assert_eq!(selector.matches(&object, |_| ""), value == "x");
    }
}
