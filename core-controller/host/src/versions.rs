//! Which protocol is spoken with a provider: the highest stable major that both sides
//! have. Pure.

use actuator_proto::discovery::v1::{Protocol, Stability};

/// The packages that this core speaks.
pub const SPOKEN: &[&str] = &[actuator_proto::PACKAGE_V1];

/// No protocol is shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provider serves {theirs} and this core speaks {ours}; install versions of both that share a stable one")]
pub struct NoCommonVersion {
    theirs: String,
    ours: String,
}

/// The package to speak, one of `ours`.
pub fn choose<'a>(ours: &[&'a str], theirs: &[Protocol]) -> Result<&'a str, NoCommonVersion> {
    ours.iter()
        .copied()
        .filter_map(|package| stable_major(package).map(|major| (major, package)))
        .filter(|(_, package)| {
            theirs.iter().any(|protocol| {
                protocol.package == *package
                    && matches!(protocol.stability(), Stability::Stable | Stability::Deprecated)
            })
        })
        .max_by_key(|(major, _)| *major)
        .map(|(_, package)| package)
        .ok_or_else(|| NoCommonVersion {
            theirs: names(theirs),
            ours: ours.join(", "),
        })
}

/// 2 for `actuator.v2`; `None` for `actuator.v2alpha1` and for foreign packages.
fn stable_major(package: &str) -> Option<u32> {
    package
        .strip_prefix("actuator.v")?
        .parse()
        .ok()
        .filter(|_| !package.contains('+'))
}

fn names(theirs: &[Protocol]) -> String {
    let names: Vec<String> = theirs
        .iter()
        .map(|protocol| match protocol.stability() {
            Stability::Stable => protocol.package.clone(),
            other => {
                let stability = other.as_str_name().trim_start_matches("STABILITY_").to_lowercase();
                format!("{} ({stability})", protocol.package)
            }
        })
        .collect();
    if names.is_empty() {
        "no protocol".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(package: &str, stability: Stability) -> Protocol {
        Protocol {
            package: package.into(),
            stability: stability.into(),
        }
    }

    #[test]
    fn the_highest_stable_major_of_both_is_taken() {
        let theirs = [
            served("actuator.v1", Stability::Deprecated),
            served("actuator.v10", Stability::Stable),
            served("actuator.v2", Stability::Stable),
            served("actuator.v3", Stability::Beta),
            served("actuator.v4alpha1", Stability::Alpha),
        ];
        let ours = ["actuator.v1", "actuator.v2", "actuator.v3", "actuator.v4alpha1"];
        assert_eq!(choose(&ours, &theirs), Ok("actuator.v2"));
        assert_eq!(choose(&["actuator.v1"], &theirs), Ok("actuator.v1"));
        assert_eq!(choose(&["actuator.v2", "actuator.v10"], &theirs), Ok("actuator.v10"));
    }

    #[test]
    fn nothing_unstable_is_taken_and_the_sentence_names_both_sides() {
        let theirs = [
            served("actuator.v2", Stability::Stable),
            served("actuator.v1", Stability::Unspecified),
        ];
        let error = choose(SPOKEN, &theirs).unwrap_err().to_string();
        assert!(error.contains("actuator.v2, actuator.v1 (unspecified)"), "{error}");
        assert!(error.contains("speaks actuator.v1"), "{error}");
        assert!(choose(SPOKEN, &[]).unwrap_err().to_string().contains("no protocol"));
        assert!(
            choose(
                &["actuator.v4alpha1"],
                &[served("actuator.v4alpha1", Stability::Stable)]
            )
            .is_err()
        );
    }
}
