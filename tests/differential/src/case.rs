//! The format of the cases: what a `cases/*.yaml` file may say.
//!
//! Text anywhere in a case may hold variables, `${name}`: `${ns}` is a namespace of the
//! case's own, `${group}` an API group of the file's own (its `definitions` live there),
//! `${own}` an API group of the case's own, `${run}` the run's id; others are kept from
//! earlier answers by `keep`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

/// One file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// CustomResourceDefinitions that the file's cases share: made once, before the first of them.
    #[serde(default)]
    pub definitions: Vec<Value>,
    /// Bodies that steps start from with `template`.
    #[serde(default)]
    pub templates: BTreeMap<String, Value>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A sequence of requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, in a few words; unique in its file.
    pub case: String,
    /// It needs the controllers (garbage collection, namespace deletion), which binaries of
    /// envtest do not bring.
    #[serde(default)]
    pub controllers: bool,
    /// It changes what all cases see (a cluster-wide object with a fixed name): no other case runs beside it.
    #[serde(default)]
    pub alone: bool,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// One request, or one look at a watch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `METHOD /path?query`.
    #[serde(default)]
    pub send: Option<String>,
    /// Opens a watch: `NAME /path?query`; its events are read by `read`.
    #[serde(default)]
    pub watch: Option<String>,
    /// Reads from the watch of this name.
    #[serde(default)]
    pub read: Option<String>,
    /// With `read`: as many events; without it, all until the stream ends.
    #[serde(default)]
    pub events: Option<usize>,

    /// The body, sent as JSON.
    #[serde(default)]
    pub body: Option<Value>,
    /// The body is one of the file's templates, changed by `set`.
    #[serde(default)]
    pub template: Option<String>,
    /// With `template`: JSON pointers, and what is put there; `null` takes away.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// The body as it is, byte by byte.
    #[serde(default)]
    pub text: Option<String>,
    /// The body in pieces, some of them many times: for what is too long to write down.
    #[serde(default)]
    pub pieces: Vec<Piece>,
    /// The media type of the body; `application/json` where a body is sent, `none` for no header.
    #[serde(default)]
    pub content: Option<String>,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Impersonates this user.
    #[serde(default, rename = "as")]
    pub user: Option<String>,
    /// Impersonates these groups, with `as`.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Sends no client certificate.
    #[serde(default)]
    pub anonymous: bool,

    /// Sends the request again and again, until its answer is so; the last one is compared.
    #[serde(default)]
    pub until: Option<Until>,
    /// Variables for the later steps: name, and JSON pointer into the answer.
    #[serde(default)]
    pub keep: BTreeMap<String, String>,
    /// How the answer is compared.
    #[serde(default)]
    pub compare: How,
}

/// A piece of a body.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// Text, once.
    Once(String),
    /// Text, many times.
    Many {
        /// The text.
        repeat: String,
        /// How often.
        times: usize,
    },
}

/// What an answer is waited to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Until {
    /// The status code.
    #[serde(default)]
    pub code: Option<u16>,
    /// A JSON pointer, which has to be there (or has to be `equals`).
    #[serde(default)]
    pub pointer: Option<String>,
    /// What is at the pointer; `null` for nothing.
    #[serde(default, deserialize_with = "given")]
    pub equals: Option<Value>,
}

/// A value that is given is there, also when it is `null`.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// How an answer is compared. In pointers, `*` stands for any key or index.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct How {
    /// Compares nothing: the step is preparation.
    #[serde(default)]
    pub nothing: bool,
    /// Compares only what is at these JSON pointers of the body (code and headers always).
    #[serde(default)]
    pub only: Vec<String>,
    /// Leaves out what is at these pointers.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Leaves out elements of lists.
    #[serde(default)]
    pub select: Vec<Select>,
    /// Lists whose order says nothing.
    #[serde(default)]
    pub unordered: Vec<String>,
    /// Compares these headers too, or (with a leading `-`) not.
    #[serde(default)]
    pub headers: Vec<String>,
}

/// Keeps only some elements of a list.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// JSON pointer of the list.
    pub at: String,
    /// JSON pointer in each element.
    pub by: String,
    /// What it has to be there to stay.
    #[serde(rename = "in")]
    pub within: Vec<Value>,
}

impl File {
    /// Reads and checks one file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let options = serde_saphyr::options! { strict_booleans: true };
        let mut file: Self = serde_saphyr::from_str_with_options(&text, options)
            .with_context(|| format!("{} is not a file of cases", path.display()))?;
        let mut names = std::collections::BTreeSet::new();
        for case in &mut file.cases {
            ensure!(
                names.insert(case.case.clone()),
                "{} has two cases named {:?}; rename one",
                path.display(),
                case.case
            );
            for (index, step) in case.steps.iter_mut().enumerate() {
                if let Some(name) = &step.template {
                    let template = file.templates.get(name);
                    let mut body = template
                        .with_context(|| format!("no template is named {name}"))?
                        .clone();
                    for (pointer, value) in &step.set {
                        put(&mut body, pointer, value)
                            .with_context(|| format!("{pointer} of {:?} does not fit the template", case.case))?;
                    }
                    step.body = Some(body);
                }
                let verbs = [&step.send, &step.watch, &step.read].into_iter().flatten().count();
                ensure!(
                    verbs == 1,
                    "step {index} of {:?} in {} needs exactly one of send, watch and read",
                    case.case,
                    path.display()
                );
            }
        }
        Ok(file)
    }
}

/// Puts a value at a JSON pointer, making the objects on the way; `-` appends to a list, `null` takes away.
fn put(body: &mut Value, pointer: &str, value: &Value) -> Option<()> {
    let mut parts: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect();
    let last = parts.pop()?;
    let mut place = body;
    for part in parts {
        place = match place {
            Value::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
            Value::Object(map) => map.entry(part).or_insert_with(|| Value::Object(serde_json::Map::new())),
            _ => return None,
        };
    }
    match place {
        Value::Array(items) if last == "-" => items.push(value.clone()),
        Value::Array(items) => *items.get_mut(last.parse::<usize>().ok()?)? = value.clone(),
        Value::Object(map) if value.is_null() => {
            map.remove(&last);
        }
        Value::Object(map) => {
            map.insert(last, value.clone());
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_is_changed_where_a_step_says_so() {
        let mut body = json!({ "a": { "b": 1, "c": 2 }, "list": [{ "x": 1 }] });
        for (pointer, value) in [
            ("/a/b", json!(null)),
            ("/new/deep", json!(3)),
            ("/list/0/x", json!("y")),
            ("/list/-", json!(4)),
        ] {
            assert_eq!(put(&mut body, pointer, &value), Some(()), "{pointer}");
        }
        assert_eq!(
            body,
            json!({ "a": { "c": 2 }, "new": { "deep": 3 }, "list": [{ "x": "y" }, 4] })
        );
        assert_eq!(put(&mut body, "/list/9/x", &json!(1)), None);
    }
}
