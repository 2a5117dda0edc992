//! The provider in Python: judged by the suite, and at work under a real core.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // a test may panic

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::provider::ProviderCommand;
use third_party::{ThirdParty, job, suite};

/// Its interpreter and the code made from the `.proto` files, where `.ci/tools test` has put them.
fn installed() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new("bash")
        .arg(root.join(".ci/install/third-party-python"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "the Python provider could not be installed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn python(tokens: &str) -> ThirdParty {
    let (made, sources) = (installed(), Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
    let interpreter = made.join("venv/bin/python").into_os_string();
    let command = |file: &str| vec![interpreter.clone(), OsString::from("-B"), sources.join(file).into()];
    ThirdParty {
        provider: ProviderCommand {
            name: "python".to_owned(),
            serve: command("provider.py"),
            audit: command("audit.py"),
            settings: vec![
                (
                    "PYTHONPATH".to_owned(),
                    made.join("generated").to_string_lossy().into_owned(),
                ),
                ("CLOUD_TOKENS".to_owned(), tokens.to_owned()),
            ],
        },
        config: sources.join("conformance.yaml"),
        manifest: sources.join("demo.yaml"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let party = python("conformance-token-good,conformance-token-rotated");
    let report = suite::judge(&party).await.unwrap();
    println!("{report}");
    assert!(report.conforms(), "{report}");
    assert_eq!(
        report.not_advertised,
        ["watch_machines", "endpoint_members", "console_output"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_the_main_job() {
    job::main_job(&python("demo-token")).await.unwrap();
}

/// The page shows the whole provider, piece by piece and verbatim: what is tested is what is read.
#[test]
fn the_page_is_the_tested_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/tutorial-python.md")).unwrap();
    let source = std::fs::read_to_string(root.join("tests/third-party/python/provider.py")).unwrap();
    let mut rest = source.as_str();
    for block in page.split("```python\n").skip(1) {
        let (block, _) = block.split_once("\n```\n").unwrap();
        rest = rest
            .trim_start_matches('\n')
            .strip_prefix(block)
            .unwrap_or_else(|| panic!("docs/tutorial-python.md is not provider.py here:\n{block}"));
    }
    assert_eq!(
        rest.trim(),
        "",
        "docs/tutorial-python.md leaves out the end of provider.py"
    );
}
