//! The binary: help, version, bad flags.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_core-controller"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .output()
        .unwrap()
}

#[test]
fn help_has_examples_and_version_is_told() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("Examples:") && text.contains("--provider"), "{text}");
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .starts_with("core-controller ")
    );
}

#[test]
fn bad_flags_get_one_line_and_exit_code_2() {
    for (arguments, wanted) in [
        (vec!["--provider", "fake"], "NAME=ENDPOINT"),
        (vec!["--workers", "many"], "--workers"),
        (vec!["--nonsense"], "--nonsense"),
        (vec!["--provider", "a=https://host:1"], "mutual TLS"),
        (vec!["--log", "="], "log filter"),
        (vec!["--metrics-listen", "everywhere"], "--metrics-listen"),
    ] {
        let output = run(&arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments:?}: {text}");
        assert!(text.contains(wanted), "{arguments:?}: {text}");
    }
}

#[test]
fn a_kubeconfig_that_is_not_there_is_named() {
    let output = run(&["--kubeconfig", "/nowhere/kubeconfig"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/nowhere/kubeconfig"), "{text}");
}
